"""The journal of durable topics: what has to be there after a crash, in an SQLite file of its own.

What is written together is one transaction, on the disk when `write` is done. One server has the
file open at a time: its lock keeps others out.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any, Final

from twisted.internet.interfaces import IReactorFromThreads

from realtime.database import Database, Schema
from realtime.history import Changes, KeyState, TopicState
from realtime.model import Position, Publication

# Bounds of what is read at once, so that taking it in holds the reactor for some milliseconds.
READ_ROWS: Final = 1000
READ_BYTES: Final = 1024 * 1024
# Keys that are past, deleted with each write.
_DELETE_KEYS: Final = 1000

_APPLICATION_ID: Final = 0x72746D68  # "rtmh", in the header of our files

SCHEMA: Final = Schema(
    application_id=_APPLICATION_ID,
    # Without a lock two servers would give the same offsets. FULL: on the disk at each commit.
    pragmas=("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = FULL"),
    # Upgrade n leads from version n to n + 1. Never change one that was released: append.
    upgrades=(
        (
            f"PRAGMA application_id = {_APPLICATION_ID}",
            # top is the newest offset ever given, also when that publication is deleted.
            """CREATE TABLE topics (
                id INTEGER PRIMARY KEY,
                topic TEXT NOT NULL UNIQUE,
                epoch TEXT NOT NULL,
                top INTEGER NOT NULL
            )""",
            # number is the order accepted, over all topics.
            """CREATE TABLE publications (
                number INTEGER PRIMARY KEY,
                topic_id INTEGER NOT NULL,
                position INTEGER NOT NULL,
                payload BLOB NOT NULL,
                from_user TEXT NOT NULL,
                timestamp INTEGER NOT NULL
            )""",
            "CREATE UNIQUE INDEX publications_by_position ON publications (topic_id, position)",
            # A key outlives its publication, of which it tells the position.
            """CREATE TABLE keys (
                number INTEGER PRIMARY KEY,
                topic TEXT NOT NULL,
                from_user TEXT NOT NULL,
                key TEXT NOT NULL,
                epoch TEXT NOT NULL,
                position INTEGER NOT NULL,
                used_at REAL NOT NULL
            )""",
            "CREATE INDEX keys_by_time ON keys (used_at)",
        ),
    ),
)


class Journal:
    """The file at `path`, once `open` has succeeded."""

    def __init__(self, path: str, reactor: IReactorFromThreads) -> None:
        self._database = Database(path, reactor, schema=SCHEMA)
        # Row and epoch of each topic seen; for the database's thread.
        self._rows: dict[str, tuple[int, str]] = {}

    async def open(self) -> None:
        """Open the file, making it if need be; raises `ConfigurationError`."""
        await self._database.open()

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        await self._database.close()

    async def write(self, changes: Changes) -> None:
        """Write all of `changes`, or nothing: raises `Unavailable`. One call at a time."""
        try:
            await self._database.run(self._write, changes)
        except BaseException:
            self._rows.clear()
            raise

    async def publications(self, after: int) -> tuple[list[Publication], int | None]:
        """Some publications in the order accepted, and what to go on `after`; begin with 0."""
        return await self._database.read(_publications, after)

    async def topics(self, after: int) -> tuple[list[TopicState], int | None]:
        """Some topics, and what to go on `after`."""
        return await self._database.read(_topics, after)

    async def keys(self, after: int, since: float) -> tuple[list[KeyState], int | None]:
        """Some of the keys used later than `since`, oldest first, and what to go on `after`."""
        return await self._database.read(_keys, after, since)

    # -- in the thread ---------------------------------------------------------------------

    def _write(self, connection: sqlite3.Connection, changes: Changes) -> None:
        for topic in changes.forgotten:
            self._forget(connection, topic)
        for state in changes.topics:
            self._update(connection, state)
        rows = self._rows
        connection.executemany(
            "INSERT INTO publications (topic_id, position, payload, from_user, timestamp)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                (rows[p.topic][0], p.position.offset, p.payload, p.from_user, p.timestamp)
                for p in changes.publications
                if p.position is not None
            ],
        )
        # Last, as one batch may hold more publications of a topic than are kept of it.
        connection.executemany(
            "DELETE FROM publications WHERE topic_id = ? AND position < ?",
            [(rows[state.topic][0], state.first) for state in changes.topics],
        )
        connection.executemany(
            "INSERT INTO keys (topic, from_user, key, epoch, position, used_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(*k.scope, k.position.epoch, k.position.offset, k.at) for k in changes.keys],
        )
        connection.execute(
            "DELETE FROM keys WHERE number IN"
            " (SELECT number FROM keys WHERE used_at <= ? ORDER BY used_at LIMIT ?)",
            (changes.keys_from, _DELETE_KEYS),
        )

    def _find(self, connection: sqlite3.Connection, topic: str) -> tuple[int, str] | None:
        row = self._rows.get(topic)
        if row is None:
            row = connection.execute(
                "SELECT id, epoch FROM topics WHERE topic = ?", (topic,)
            ).fetchone()
        return row

    def _forget(self, connection: sqlite3.Connection, topic: str) -> None:
        row = self._find(connection, topic)
        if row is not None:
            connection.execute("DELETE FROM publications WHERE topic_id = ?", row[:1])
            connection.execute("DELETE FROM topics WHERE id = ?", row[:1])
            self._rows.pop(topic, None)

    def _update(self, connection: sqlite3.Connection, state: TopicState) -> None:
        row = self._find(connection, state.topic)
        if row is not None and row[1] != state.epoch:
            self._forget(connection, state.topic)
            row = None
        if row is None:
            id = connection.execute(
                "INSERT INTO topics (topic, epoch, top) VALUES (?, ?, ?)", state[:3]
            ).lastrowid
            row = (int(id or 0), state.epoch)
        else:
            connection.execute("UPDATE topics SET top = ? WHERE id = ?", (state.top, row[0]))
        self._rows[state.topic] = row


def _publications(
    connection: sqlite3.Connection, after: int
) -> tuple[list[Publication], int | None]:
    cursor = connection.execute(
        "SELECT number, topic, epoch, position, payload, from_user, timestamp"
        " FROM publications JOIN topics ON topics.id = topic_id"
        " WHERE number > ? ORDER BY number LIMIT ?",
        (after, READ_ROWS),
    )
    found: list[Publication] = []
    size = 0
    number: int | None = None
    row: tuple[Any, ...]
    for row in cursor:
        number, topic, epoch, offset, payload, from_user, timestamp = row
        found.append(
            Publication(
                sys.intern(topic),
                payload,
                sys.intern(from_user),
                timestamp,
                Position(offset, sys.intern(epoch)),
            )
        )
        size += len(payload)
        if size > READ_BYTES:
            break
    return found, number


def _topics(connection: sqlite3.Connection, after: int) -> tuple[list[TopicState], int | None]:
    rows = connection.execute(
        "SELECT id, topic, epoch, top FROM topics WHERE id > ? ORDER BY id LIMIT ?",
        (after, READ_ROWS),
    ).fetchall()
    # What is deleted beyond `first` is for the reader to say.
    found = [TopicState(topic, epoch, top, 1) for _, topic, epoch, top in rows]
    return found, rows[-1][0] if rows else None


def _keys(
    connection: sqlite3.Connection, after: int, since: float
) -> tuple[list[KeyState], int | None]:
    rows = connection.execute(
        "SELECT number, topic, from_user, key, epoch, position, used_at FROM keys"
        " WHERE number > ? AND used_at > ? ORDER BY number LIMIT ?",
        (after, since, READ_ROWS),
    ).fetchall()
    found = [
        KeyState((topic, user, key), Position(offset, epoch), at)
        for _, topic, user, key, epoch, offset, at in rows
    ]
    return found, rows[-1][0] if rows else None
