"""Sessions in SQLite, and the revocations that a running server must heed at once.

Revocations stand in the database, where any process can add one, and in memory, where every
authentication looks. The database is asked for new ones every two seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from realtime.database import Damaged, Database, add_revocation
from realtime.errors import ConfigurationError, InvalidCredentials, InvalidToken, Unavailable
from realtime.interfaces import ISessions
from realtime.model import Identity, Session
from realtime.names import new_session_id
from realtime.revocations import Revocation, Revocations

_log = Logger()

POLL_SECONDS: Final = 2.0
PURGE_SECONDS: Final = 600.0
# A revocation: kind, id, at, expires.
_Row = tuple[str, str, float, float]
# How `Sessions` tells that a 'session' or 'user' has been revoked.
Listener = Callable[[str, str], object]


@implementer(ISessions)
class Sessions:
    """See `ISessions`. One lasts `session_ttl` seconds after its last refresh token was issued."""

    def __init__(self, db: Database, clock: IReactorTime, *, session_ttl: float) -> None:
        self.revocations = Revocations()
        # When the last poll that has an answer was asked for.
        self.polled_at = 0.0
        self._db = db
        self._clock = clock
        self._session_ttl = session_ttl
        self._last_number = 0
        self._next_purge = 0.0
        self._listener: Listener | None = None
        self._loop = LoopingCall(self._poll_safely)
        self._loop.clock = clock
        self._stopped: Deferred[LoopingCall] | None = None

    async def start(self, listener: Listener) -> None:
        """See `ISessions.start`."""
        await self.poll()
        self._listener = listener
        self._stopped = self._loop.start(POLL_SECONDS, now=False)

    async def stop(self) -> None:
        """See `ISessions.stop`."""
        if self._loop.running:
            self._loop.stop()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            await stopped

    def is_revoked(self, identity: Identity, issued_at: float) -> bool:
        """See `ISessions.is_revoked`."""
        return self.revocations.is_revoked(identity, issued_at)

    async def poll(self) -> None:
        """Take in what this and other processes have revoked."""
        now = self._clock.seconds()
        rows = await self._db.read(_new_revocations, self._last_number)
        self.polled_at = now
        for number, kind, id, at, expires in rows:
            self._last_number = max(self._last_number, number)
            self._apply(kind, id, at, expires)

    async def check_user(self, user_id: str, since: float) -> None:
        """Raise `InvalidCredentials` as `create` does; then `poll`."""
        await self._db.read(_check_user, user_id, since)
        await self.poll()

    async def create(
        self, user_id: str, *, refresh_id: str, access_until: float, since: float | None = None
    ) -> Session:
        """See `ISessions.create`."""
        now = self._clock.seconds()
        session = Session(new_session_id(), user_id, now, now + self._session_ttl)
        since = now if since is None else since
        await self._db.run(_insert, session, refresh_id, access_until, since)
        # What was revoked before the session began must not reach its connections later.
        await self.poll()
        return session

    async def get(self, session_id: str) -> Session | None:
        """See `ISessions.get`."""
        return await self._db.read(_select, session_id, self._clock.seconds())

    async def renew(
        self,
        session_id: str,
        user_id: str,
        refresh_id: str,
        *,
        access_until: float,
        next_refresh_id: str | None = None,
    ) -> None:
        """See `ISessions.renew`."""
        now = self._clock.seconds()
        expires_at = now + self._session_ttl
        outcome = await self._db.run(
            _renew,
            (session_id, user_id, refresh_id),
            now,
            access_until,
            None if next_refresh_id is None else (next_refresh_id, expires_at),
        )
        if outcome is None:
            raise InvalidToken("The session has ended.")
        if outcome:
            _log.warn("A replaced refresh token was used: session {id} ends", id=session_id)
            self._apply(*outcome[0])
            raise InvalidToken("The session has ended.")

    async def end(self, session_id: str, *, access_until: float | None = None) -> bool:
        """See `ISessions.end`."""
        rows = await self._db.run(_end, session_id, self._clock.seconds(), access_until)
        for row in rows:
            self._apply(*row)
        return bool(rows)

    async def _poll_safely(self) -> None:
        try:
            await self.poll()
            now = self._clock.seconds()
            if now >= self._next_purge:
                await self._db.run(_purge, now)
                self.revocations.purge(now)
                self._next_purge = now + PURGE_SECONDS
        except (Unavailable, ConfigurationError) as error:
            _log.error("Revocations were not read, to be tried again: {why}", why=str(error))
        except Exception:
            _log.failure("Revocations were not read, to be tried again")

    def _apply(self, kind: str, id: str, at: float, expires: float) -> None:
        if self.revocations.add(Revocation(kind, id, at, expires)) and self._listener is not None:
            try:
                self._listener(kind, id)
            except Exception:
                _log.failure("Ending the connections of {kind} {id} failed", kind=kind, id=id)


# -- in the database's thread --------------------------------------------------------------


def _new_revocations(
    connection: sqlite3.Connection, last: int
) -> list[tuple[int, str, str, float, float]]:
    query = "SELECT number, kind, id, at, expires FROM revocations WHERE number > ? ORDER BY number"
    rows = connection.execute(query, (last,)).fetchall()
    for number, kind, id, at, expires in rows:
        if kind not in ("session", "user") or not isinstance(id, str):
            raise Damaged(f"the revocation {number} is of nobody")
        if not isinstance(at, float) or not isinstance(expires, float):
            raise Damaged(f"the revocation {number} has no times")
    return rows


def _purge(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM sessions WHERE expires_at <= ?", (now,))
    connection.execute("DELETE FROM revocations WHERE expires <= ?", (now,))


def _check_user(connection: sqlite3.Connection, user_id: str, since: float) -> None:
    user = connection.execute(
        "SELECT 1 FROM users WHERE user_id = :id AND NOT disabled AND NOT EXISTS"
        " (SELECT 1 FROM revocations WHERE kind = 'user' AND id = :id AND at >= :since)",
        {"id": user_id, "since": since},
    ).fetchone()
    if user is None:
        raise InvalidCredentials()


def _insert(
    connection: sqlite3.Connection,
    session: Session,
    refresh_id: str,
    access_until: float,
    since: float,
) -> None:
    _check_user(connection, session.user_id, since)
    connection.execute(
        "INSERT INTO sessions (session_id, user_id, refresh_id, created_at, expires_at,"
        " access_until) VALUES (?, ?, ?, ?, ?, ?)",
        (
            session.session_id,
            session.user_id,
            refresh_id,
            session.created_at,
            session.expires_at,
            access_until,
        ),
    )


def _select(connection: sqlite3.Connection, session_id: str, now: float) -> Session | None:
    row = connection.execute(
        "SELECT session_id, user_id, created_at, expires_at FROM sessions"
        " WHERE session_id = ? AND expires_at > ?",
        (session_id, now),
    ).fetchone()
    if row is None:
        return None
    if not all(isinstance(moment, float) for moment in row[2:]):
        raise Damaged(f"the session {session_id!r} has no times")
    return Session(*row)


def _renew(
    connection: sqlite3.Connection,
    claims: tuple[str, str, str],
    now: float,
    access_until: float,
    replacement: tuple[str, float] | None,
) -> list[_Row] | None:
    """Answer None when the session is over, and the revocations made when it is ended."""
    session_id, user_id, refresh_id = claims
    row = connection.execute(
        "SELECT refresh_id FROM sessions WHERE session_id = ? AND user_id = ? AND expires_at > ?",
        (session_id, user_id, now),
    ).fetchone()
    if row is None:
        return None
    if row[0] != refresh_id:
        return _end(connection, session_id, now, None)
    connection.execute(
        "UPDATE sessions SET access_until = max(access_until, ?) WHERE session_id = ?",
        (access_until, session_id),
    )
    if replacement is not None:
        connection.execute(
            "UPDATE sessions SET refresh_id = ?, expires_at = ? WHERE session_id = ?",
            (*replacement, session_id),
        )
    return []


def _end(
    connection: sqlite3.Connection, session_id: str, now: float, access_until: float | None
) -> list[_Row]:
    row = connection.execute(
        "SELECT access_until FROM sessions WHERE session_id = ?", (session_id,)
    ).fetchone()
    connection.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
    until = max(0.0 if row is None else row[0], access_until or 0.0)
    if not until:
        return []
    revocation = ("session", session_id, now, until)
    add_revocation(connection, *revocation)
    return [revocation]
