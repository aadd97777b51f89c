"""`python -m bench.nodes`: what Redis costs a node, and what a second worker brings.

Every figure is server CPU per delivered message, of all the server's processes together (not of
Redis), on one processor, with the generator on another. What two workers on two processors can do,
against one, follows from the cost of a message: on this machine the generator needs the second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.machine import BenchError, build, processors
from bench.process import running
from bench.run import judge
from bench.servers import BY_NAME, Server, our_command
from bench.workloads import BY_NAME as WORKLOADS
from tests.support.redis import RedisServer

KEPT = '[[topic]]\npattern = ">"\nhistory_size = 100\n'
WORK = ("fan1", "fan8", "echo")
# How much two workers have to bring.
GOAL = 1.7


def servers(redis: str, config: Path) -> dict[str, Server]:
    """Our server in every way that is compared."""
    ours = BY_NAME["ours"]
    ways: dict[str, tuple[str, ...]] = {
        "memory": (),
        "memory, history": ("--config", str(config)),
        "Redis": ("--redis", redis),
        "Redis, history": ("--redis", redis, "--config", str(config)),
        "Redis, 2 workers": ("--redis", redis, "--workers", "2"),
    }
    return {
        name: Server(name, name, ours.kind, ours.dialect, our_command(*options), ours.needs)
        for name, options in ways.items()
    }


def measure(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Medians of microseconds a delivered message, by way and work."""
    wsload = build("wsload")["wsload"]
    found: dict[str, dict[str, list[float]]] = {}
    redis = RedisServer("--appendonly", "no")
    redis.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.toml")
            config.write_text(KEPT)
            config.chmod(0o644)
            for number in range(rounds):
                for name, server in servers(redis.url, config).items():
                    with running(server, Path(), processors()) as up:
                        for work in WORK:
                            arguments = WORKLOADS[work].arguments(server.dialect)
                            if arguments is None:
                                raise BenchError(f"{work} cannot be asked of our server")
                            pace = ("--duration", str(seconds), "--warmup", "20", "--settle", "500")
                            before = cpu_seconds(redis.pid)
                            result = judge(up.load(wsload, [*arguments, *pace, "--spread"]))
                            if "invalid" in result:
                                raise BenchError(f"{name}, {work}: {result['invalid']}")
                            figures = found.setdefault(name, {})
                            figures.setdefault(work, []).append(result["cpu_us"])
                            # What Redis takes while wsload warms up is counted, too: a little much.
                            its = (cpu_seconds(redis.pid) - before) * 1e6 / result["deliveries"]
                            figures.setdefault(f"Redis' {work}", []).append(its)
                            print(f"round {number + 1}: {name:16} {work:5} {result['cpu_us']:.2f}")
    finally:
        redis.remove()
    return {
        name: {work: statistics.median(figures) for work, figures in works.items()}
        for name, works in found.items()
    }


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    medians = measure(options.rounds, options.seconds)
    columns = (*WORK, "Redis' echo")
    print(f"\n{'µs CPU a message':18}" + "".join(f"{column:>12}" for column in columns))
    for name, works in medians.items():
        print(f"{name:18}" + "".join(f"{works[column]:12.2f}" for column in columns))
    ratio: Any = {
        work: round(2 * medians["Redis"][work] / medians["Redis, 2 workers"][work], 2)
        for work in ("fan1", "fan8")
    }
    print(f"two workers on two processors, against one: {json.dumps(ratio)}")
    # With several outstanding one worker merges more of them into a write than two do.
    if ratio["fan1"] < GOAL:
        raise BenchError(f"two workers bring less than {GOAL} times one")


if __name__ == "__main__":
    main()
