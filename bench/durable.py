"""`python -m bench.durable`: kill -9 a process amid 100,000 acknowledged durable publications.

Prints how many were acknowledged, how fast, how many a restart recovers, and in what time; fails
where one that was acknowledged is missing, double or out of order.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from bench.machine import BenchError
from tests.support.publisher import WINDOW, recover, run_and_kill


async def main() -> None:
    """Run it, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.durable", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="publications [%(default)s]")
    parser.add_argument("--kills", type=int, default=1, help="how often it is killed [1]")
    parser.add_argument("--dir", help="where the journal is written [the temporary directory]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="realtime-bench-") as folder:
        path = os.path.join(folder, "history.sqlite3")
        acknowledged: list[tuple[str, int, int]] = []
        for number in range(options.kills):
            after = random.randrange(options.count // 2, options.count * 95 // 100)
            killed = await deferToThread(
                run_and_kill, path, number * options.count, options.count, after
            )
            acknowledged += killed.acknowledged
            found = await recover(path, acknowledged)
            print(
                f"killed after {len(killed.acknowledged)} of {options.count} acknowledged, "
                f"{len(killed.acknowledged) / killed.seconds:.0f}/s, {WINDOW} under way; "
                f"recovered {found.publications} in {found.seconds:.2f} s "
                f"(acknowledged in all: {len(acknowledged)})"
            )
            if found.problems:
                raise BenchError("; ".join(found.problems))
    print("every acknowledged publication is there, once and in order")


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main()))
