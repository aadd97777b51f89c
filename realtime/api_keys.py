"""Keys with which an operator's own programs use the server API.

A key is long and random, so a plain SHA-256 of it is all that is kept. As with revocations, what
another process changes in the database is known here within two seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from secrets import token_urlsafe
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from realtime.database import Damaged, Database
from realtime.errors import Conflict, InvalidRequest
from realtime.model import Identity
from realtime.names import SERVICE_ROLE, is_role

_log = Logger()

PREFIX: Final = "rk_"
POLL_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key by its name. `created_at` is Unix seconds."""

    name: str
    created_at: float


class ApiKeys:
    """The keys in a database. `seconds` is Unix time."""

    def __init__(self, db: Database, seconds: Callable[[], float]) -> None:
        self._db = db
        self._seconds = seconds
        self._names: dict[str, str] = {}
        self._loop: LoopingCall | None = None
        self._stopped: Deferred[LoopingCall] | None = None

    async def start(self, clock: IReactorTime) -> None:
        """Load the keys, and keep up with changes. Raises `Unavailable`."""
        await self.poll()
        self._loop = LoopingCall(self._poll_safely)
        self._loop.clock = clock
        self._stopped = self._loop.start(POLL_SECONDS, now=False)

    async def stop(self) -> None:
        """End what `start` began. May be called twice."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            await stopped

    async def poll(self) -> None:
        """Take in what this and other processes have changed."""
        self._names = dict(await self._db.read(_hashes))

    def identify(self, key: str) -> Identity | None:
        """Who has this key; None for who has none."""
        # Looked up by its hash: how long that takes tells nothing of any key.
        name = self._names.get(_hash(key)) if key.startswith(PREFIX) else None
        if name is None:
            return None
        return Identity(f"key:{name}", None, frozenset({SERVICE_ROLE}), None, inf)

    async def add(self, name: str) -> str:
        """Make a key, which is told this once; raises `Conflict` where the name is taken."""
        if not is_role(name):
            raise InvalidRequest("a key's name is 1 to 64 letters, digits, and _ . : -")
        key = PREFIX + token_urlsafe(32)
        await self._db.run(_insert, name, _hash(key), self._seconds())
        return key

    async def remove(self, name: str) -> bool:
        """Refuse a key from now on; answer whether there was one."""
        return await self._db.run(_delete, name)

    async def list(self) -> list[ApiKey]:
        """All keys, by name."""
        return await self._db.read(_select)

    async def _poll_safely(self) -> None:
        try:
            await self.poll()
        except Exception as error:
            _log.error("API keys were not read, to be tried again: {why}", why=str(error))


def _hash(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


# -- in the database's thread ----------------------------------------------------------------


def _hashes(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT key_hash, name FROM api_keys").fetchall()


def _insert(connection: sqlite3.Connection, name: str, key_hash: str, now: float) -> None:
    try:
        connection.execute(
            "INSERT INTO api_keys (name, key_hash, created_at) VALUES (?, ?, ?)",
            (name, key_hash, now),
        )
    except sqlite3.IntegrityError:
        raise Conflict(f"there is a key {name!r} already") from None


def _delete(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("DELETE FROM api_keys WHERE name = ?", (name,)).rowcount > 0


def _select(connection: sqlite3.Connection) -> list[ApiKey]:
    rows = connection.execute("SELECT name, created_at FROM api_keys ORDER BY name").fetchall()
    for name, created_at in rows:
        if not isinstance(created_at, float):
            raise Damaged(f"the API key {name!r} has no time")
    return [ApiKey(*row) for row in rows]
