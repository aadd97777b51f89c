"""A server, a bystander on it, and one attack after the other; what all that did to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import get_native_id
from typing import Any

from tests.hostile.attack import Attack, Issuer, Target, together
from tests.support.server import Server, environment

# What is promised: milliseconds, and bytes.
P99 = 100.0
GROWTH = 5 * 1024 * 1024
# Seconds that the server has to give back what it took.
SETTLING = 30.0
# Enough connections for the server to give memory back when they have gone (realtime/memory.py).
CROWD = 1200


@contextmanager
def serving(issuer: Issuer, *options: str) -> Iterator[Server]:
    """A server that trusts the issuer."""
    with TemporaryDirectory(prefix="hostile-") as folder:
        key = Path(folder) / "issuer.pem"
        key.write_bytes(issuer.public_pem)
        server = Server(
            *("--compression", "--jwt-algorithm=RS256", f"--jwt-public-key={key}"), *options
        ).start()
        try:
            yield server
        finally:
            server.stop()


class Bystander:
    """The process of a bystander."""

    def __init__(self, server: Server, issuer: Issuer) -> None:
        urls = (server.token_url(issuer.token("bystander")), f"{server.http_url}/health/ready")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.bystander", *urls],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def report(self) -> dict[str, Any]:
        """What it has seen since the last time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seen: dict[str, Any] = json.loads(self._process.stdout.readline())
        return seen

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.__exit__(None, None, None)


@dataclass
class Outcome:
    """What came of an attack: memory in bytes, times in milliseconds."""

    name: str
    got: Counter[str] = field(default_factory=Counter)
    before: int = 0
    peak: int = 0
    after: int = 0
    seen: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def row(self) -> list[str]:
        """Its row in the table."""
        times = [f"{self.seen.get(name, 0):.1f}" for name in ("p50", "p99", "max", "health")]
        memory = [f"{size / 2**20:.1f}" for size in (self.before, self.peak, self.after)]
        got = ", ".join(f"{name} x{number}" for name, number in sorted(self.got.items()))
        verdict = "FAILED: " + "; ".join(self.problems) if self.problems else "ok"
        return [self.name, *times, *memory, f"{verdict} ({got[:200]})"]


HEADINGS = ["attack", "p50", "p99", "max", "health", "before", "peak", "after", "verdict (got)"]
_WIDTHS = (24, 5, 6, 6, 6, 7, 7, 7)


def aligned(cells: Sequence[str]) -> str:
    """A line of the table, whose last column is as wide as it has to be."""
    name, *numbers = zip(cells, _WIDTHS, strict=False)
    return "  ".join([name[0].ljust(name[1]), *(n.rjust(w) for n, w in numbers), cells[-1]])


def measure(attack: Attack, issuer: Issuer, seconds: float) -> Outcome:
    """Attack a server of its own for so long, at least once."""
    outcome = Outcome(attack.name)
    with serving(issuer, *attack.options) as server:
        bystander = Bystander(server, issuer)
        try:
            _measure(outcome, attack, Target(server, issuer), bystander, seconds)
        except Exception as error:
            # What a server does that is not as it should be: it closes, is silent, or is gone.
            outcome.problems.append(f"broken off by {error!r}")
        finally:
            bystander.stop()
    return outcome


def _measure(
    outcome: Outcome, attack: Attack, target: Target, bystander: Bystander, seconds: float
) -> None:
    server = target.server
    _warm(target, attack)
    outcome.before = _settle(target, _memory(server.pid))
    bystander.report()
    end = time.monotonic() + seconds
    _forget_peak(server.pid)
    outcome.got.update(_run(attack, target))
    while time.monotonic() < end:
        outcome.got.update(_run(attack, target))
    outcome.seen = bystander.report()
    outcome.peak = _peak(server.pid)
    outcome.problems += _judge(outcome.seen)
    if (problem := attack.verdict(outcome.got)) is not None:
        outcome.problems.append(problem)
    outcome.after = _settle(target, outcome.before + GROWTH)
    if (growth := outcome.after - outcome.before) > GROWTH:
        outcome.problems.append(f"{growth / 2**20:.1f} MB of memory remain")
    outcome.problems += _judge_server(server, bystander.report())


def _judge(seen: dict[str, Any]) -> list[str]:
    problems = [f"the bystander's {each}" for each in seen["problems"][:3]]
    if seen["p99"] >= P99:
        problems.append(f"the bystander's p99 is {seen['p99']:.0f} ms")
    if not seen["count"]:
        problems.append("the bystander saw nothing")
    return problems


def _judge_server(server: Server, seen: dict[str, Any]) -> list[str]:
    """Whether it is as before."""
    problems = _judge(seen)
    status, _, body = server.request("GET", "/health/ready")
    if status != 200:
        problems.append(f"unhealthy: {body}")
    if "Traceback" in server.output:
        problems.append(f"a failure in the log: {server.output[-2000:]}")
    return problems


def _warm(target: Target, attack: Attack) -> None:
    """Have the server do once all that it is going to do: be crowded, and be attacked a little."""
    lines = together(lambda _: target.websocket(), range(CROWD), 8)
    for line in lines:
        line.command("Subscribe", 1, topics=["warm"])
    for line in lines:
        line.reply(1)
    for number in range(10):
        lines[0].command("Broadcast", number + 2, topic="warm", payload="x" * 1000)
        lines[0].reply(number + 2)
    for line in lines:
        line.close()
    _run(attack, Target(target.server, target.issuer, small=True))


def _run(attack: Attack, target: Target) -> list[str]:
    """Run an attack at the lowest priority, which the threads that it starts inherit."""

    def run() -> list[str]:
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)
        return list(attack.run(target))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _settle(target: Target, enough: int) -> int:
    """Wait until the bystander is alone, and memory is no more than enough; answer how much."""
    end = time.monotonic() + SETTLING
    while target.metric("active_connections") > 1 and time.monotonic() < end:
        time.sleep(0.2)
    # The server looks once a second whether most connections have gone.
    time.sleep(2.5)
    while (memory := _memory(target.server.pid)) > enough and time.monotonic() < end:
        time.sleep(0.2)
    return memory


def _memory(pid: int) -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid: int) -> int:
    """The most resident bytes since then."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
