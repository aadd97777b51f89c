"""Brokers with a journal of durable topics in a temporary directory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from queue import Queue
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from realtime.broker_memory import MemoryBroker
from realtime.history import Changes
from realtime.history_sqlite import Journal
from realtime.model import Namespace
from tests.support.identity import make_state_dir

T = TypeVar("T")
DURABLE = Namespace(">", history_size=1000, durable=True)


class WatchedJournal(Journal):
    """A journal that tells what is written, and whose disk can be full."""

    def __init__(self, path: str, reactor: Any) -> None:
        super().__init__(path, reactor)
        self.written: list[Changes] = []
        self.path = path

    async def write(self, changes: Changes) -> None:
        """Write, and remember it."""
        self.written.append(changes)
        await super().write(changes)

    async def fill_disk(self, full: bool = True) -> None:
        """Let the file grow no more, or again."""
        # One page is below what there is: SQLite takes the present size then.
        pages = 1 if full else 2**30
        await self._database.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}"))


class Pump:
    """Stands in for a reactor where only threads call: what they say is done in `wait`."""

    def __init__(self) -> None:
        self._calls: Queue[Callable[[], object]] = Queue()

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """See `IReactorFromThreads`."""
        self._calls.put(lambda: function(*args))

    def wait(self, done: Coroutine[Any, Any, T] | Deferred[T]) -> T:
        """Do what threads say until `done` is; answer its result, or raise."""
        deferred = done if isinstance(done, Deferred) else Deferred.fromCoroutine(done)
        results: list[T] = []
        failures: list[Any] = []
        deferred.addCallbacks(results.append, failures.append)
        while not results and not failures:
            self._calls.get(timeout=30)()
        if failures:
            failures[0].raiseException()
        return results[0]


def journal_path(case: TestCase) -> str:
    """Make the path of a journal in a directory that goes with the test."""
    return os.path.join(make_state_dir(case), "history.sqlite3")


async def open_broker(
    case: TestCase,
    path: str,
    namespace_of: Callable[[str], Namespace | None] = lambda topic: DURABLE,
    *args: Any,
    journal: Journal | None = None,
    **options: Any,
) -> MemoryBroker:
    """Open a broker that has its journal at `path`; stopped after the test."""
    broker = MemoryBroker(*args, journal=journal or Journal(path, reactor), **options)
    await broker.open(namespace_of)
    case.addCleanup(broker.stop)
    return broker


def rows(path: str, query: str) -> list[tuple[Any, ...]]:
    """Ask a file that is not open elsewhere."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()
