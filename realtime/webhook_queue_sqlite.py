"""The queue of webhook events on disk, in an SQLite file of its own.

What is added together is one transaction. It outlives the process, however that ends; the machine
may forget the newest when it loses its power.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from twisted.internet.interfaces import IReactorFromThreads

from realtime.database import Database, Schema
from realtime.webhook_delivery import Event, fitting

# Bytes of events that may wait in the file.
DISK_BYTES: Final = 1024 * 1024 * 1024
_APPLICATION_ID: Final = 0x72746D77  # "rtmw", in the header of our files

SCHEMA: Final = Schema(
    application_id=_APPLICATION_ID,
    # Without a lock two servers would post the same events.
    pragmas=("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = NORMAL"),
    # Upgrade n leads from version n to n + 1. Never change one that was released: append.
    upgrades=(
        (
            f"PRAGMA application_id = {_APPLICATION_ID}",
            # number is their order.
            """CREATE TABLE events (
                number INTEGER PRIMARY KEY,
                at REAL NOT NULL,
                body BLOB NOT NULL
            )""",
        ),
    ),
)


class DiskQueue:
    """A `Queue` in the file at `path`."""

    durable = True

    def __init__(self, path: str, reactor: IReactorFromThreads) -> None:
        self._database = Database(path, reactor, schema=SCHEMA)
        # The number of the last that `first` has given.
        self._given = 0

    async def open(self) -> tuple[int, int]:
        """See `Queue.open`; raises `ConfigurationError`."""
        await self._database.open()
        try:
            return await self._database.read(_count)
        except BaseException:
            await self._database.close()
            raise

    async def add(self, events: Sequence[Event]) -> None:
        """See `Queue.add`."""
        await self._database.run(_add, events)

    async def first(self, count: int, size: int) -> list[Event]:
        """See `Queue.first`."""
        self._given, events = await self._database.read(_first, count, size)
        return events

    async def remove(self) -> None:
        """See `Queue.remove`."""
        await self._database.run(_remove, self._given)

    async def close(self) -> None:
        """See `Queue.close`."""
        await self._database.close()


def _count(connection: sqlite3.Connection) -> tuple[int, int]:
    query = "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
    count, size = connection.execute(query).fetchone()
    return count, size


def _add(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    connection.executemany("INSERT INTO events (at, body) VALUES (?, ?)", events)


def _first(connection: sqlite3.Connection, count: int, size: int) -> tuple[int, list[Event]]:
    query = "SELECT at, body FROM events ORDER BY number LIMIT ?"
    events = fitting((Event(*row) for row in connection.execute(query, (count,))), size)
    query = "SELECT number FROM events ORDER BY number LIMIT 1 OFFSET ?"
    row = connection.execute(query, (max(0, len(events) - 1),)).fetchone()
    return 0 if row is None else row[0], events


def _remove(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM events WHERE number <= ?", (number,))
