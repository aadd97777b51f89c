"""A process that publishes on durable topics until it is killed, and what it must leave behind.

`python -m tests.support.publisher JOURNAL FIRST COUNT` publishes the numbers from FIRST on and
writes a line `TOPIC OFFSET NUMBER` for each that is acknowledged.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from realtime.broker_memory import MemoryBroker
from realtime.history_sqlite import Journal
from realtime.model import Namespace, Position, Publication
from tests.support.server import ROOT, environment

TOPICS = 5
# Publications under way at a time.
WINDOW = 400
NAMESPACE = Namespace(">", history_size=1_000_000, durable=True)


def topic_of(number: int) -> str:
    """Where a number is published."""
    return f"orders.{number % TOPICS}"


async def open_broker(path: str) -> MemoryBroker:
    """Open a broker that has its journal at `path`, and delivers to nobody."""
    broker = MemoryBroker(journal=Journal(path, reactor))
    broker.start(lambda publication: None, lambda topic, message: None)
    await broker.open(lambda topic: NAMESPACE)
    return broker


async def publish(path: str, first: int, count: int) -> None:
    """Publish some numbers, and say which are acknowledged."""
    broker = await open_broker(path)
    numbers = iter(range(first, first + count))

    async def work() -> None:
        for number in numbers:
            payload = b'{"number": %d, "text": "%s"}' % (number, b"x" * 100)
            sent = Publication(topic_of(number), payload, "user_1", int(time.time() * 1000))
            result: Any = broker.publish(sent, NAMESPACE, None)
            position = await result
            os.write(1, b"%s %d %d\n" % (sent.topic.encode(), position.offset, number))

    await gatherResults([Deferred.fromCoroutine(work()) for _ in range(WINDOW)])
    await broker.stop()


@dataclass
class Killed:
    """What a publisher said before it was killed."""

    acknowledged: list[tuple[str, int, int]]
    seconds: float


def run_and_kill(path: str, first: int, count: int, after: int) -> Killed:
    """Run a publisher, and kill it -9 soon after it has acknowledged `after` publications."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.publisher", path, str(first), str(count)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        started = ended = 0.0
        for line in process.stdout:
            ended = time.monotonic()
            started = started or ended
            lines.append(line)
            if len(lines) == after:
                time.sleep(random.random() * 0.005)  # somewhere in a commit
                process.kill()
        process.kill()
    acknowledged = [
        (topic, int(offset), int(number))
        for topic, offset, number in (
            line.decode().split() for line in lines if line.endswith(b"\n")
        )
    ]
    return Killed(acknowledged, ended - started)


@dataclass
class Recovered:
    """What a restart found. `problems` are breaches of the promise."""

    publications: int
    seconds: float
    problems: list[str]


async def recover(path: str, acknowledged: list[tuple[str, int, int]]) -> Recovered:
    """Open the journal as a restarted server does, and look for what was acknowledged."""
    started = time.monotonic()
    broker = await open_broker(path)
    seconds = time.monotonic() - started
    problems: list[str] = []
    found: dict[tuple[str, int], bytes] = {}
    for number in range(TOPICS):
        topic = topic_of(number)
        page = broker.history(topic, NAMESPACE, since=None, limit=None, reverse=False)
        assert page is not None
        publications = page.publications
        epochs = {each.position.epoch for each in publications if each.position}
        offsets = [each.position.offset for each in publications if each.position]
        if offsets != list(range(1, len(publications) + 1)) or len(epochs) > 1:
            problems.append(f"{topic}: offsets have gaps or epochs differ")
        if page.position != (Position(len(offsets), *epochs) if epochs else page.position):
            problems.append(f"{topic}: the newest is not at the end")
        numbers = [int(bytes(each.payload).split(b",")[0][11:]) for each in publications]
        if numbers != sorted(set(numbers)):
            problems.append(f"{topic}: out of order or twice")
        found.update({(topic, o): b"%d" % n for o, n in zip(offsets, numbers, strict=True)})
    lost = [each for each in acknowledged if found.get(each[:2]) != b"%d" % each[2]]
    if lost:
        problems.append(f"{len(lost)} acknowledged publications are lost, as {lost[0]}")
    await broker.stop()
    return Recovered(len(found), seconds, problems)


if __name__ == "__main__":
    path, first, count = sys.argv[1:]
    react(lambda _: Deferred.fromCoroutine(publish(path, int(first), int(count))))
