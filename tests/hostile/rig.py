"""A server, a bystander on it, and one attack after the other; what all that did to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
        url = server.token_url(issuer.token("bystander"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.bystander", url, f"{server.http_url}/health"],
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


@dataclass(frozen=True)
class Outcome:
    """What came of an attack: memory in bytes, times in milliseconds."""

    name: str
    got: Counter[str]
    rounds: int
    before: int
    peak: int
    after: int
    seen: dict[str, Any]
    problems: tuple[str, ...]

    def row(self) -> list[str]:
        """Its row in the table."""
        mega = 1024 * 1024
        got = ", ".join(f"{name} x{number}" for name, number in sorted(self.got.items()))
        return [
            self.name,
            got[:60],
            f"{self.seen['p50']:.1f}",
            f"{self.seen['p99']:.1f}",
            f"{self.seen['max']:.0f}",
            f"{self.seen['health']:.0f}",
            f"{self.before / mega:.1f}",
            f"{self.peak / mega:.1f}",
            f"{(self.after - self.before) / mega:+.1f}",
            "FAILED: " + "; ".join(self.problems) if self.problems else "ok",
        ]


HEADINGS = ["attack", "got", "p50", "p99", "max", "health", "before", "peak", "more", ""]


def measure(attack: Attack, issuer: Issuer, seconds: float) -> Outcome:
    """Attack a server of its own for so long, at least once."""
    with serving(issuer, *attack.options) as server:
        target = Target(server, issuer)
        bystander = Bystander(server, issuer)
        try:
            _warm(target, attack)
            before = _settle(target, _memory(server.pid))
            bystander.report()
            got: Counter[str] = Counter()
            rounds = peak = 0
            end = time.monotonic() + seconds
            _forget_peak(server.pid)
            while not rounds or time.monotonic() < end:
                got.update(_run(attack, target))
                rounds += 1
            seen = bystander.report()
            peak = _peak(server.pid)
            after = _settle(target, before + GROWTH)
            problems = [*_judge(seen), attack.verdict(got)]
            if after - before > GROWTH:
                problems.append(f"{(after - before) >> 20} MB of memory remain")
            problems += _judge_server(server, bystander.report())
        finally:
            bystander.stop()
    found = tuple(problem for problem in problems if problem)
    return Outcome(attack.name, got, rounds, before, peak, after, seen, found)


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
    status, _, body = server.request("GET", "/health")
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
