"""The SQLite file: opened with care, used in a thread of its own.

A file that is not ours, corrupt, or of a later version is refused before anything is written.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from realtime.errors import ConfigurationError, Unavailable

_log = Logger()
P = ParamSpec("P")
T = TypeVar("T")

_APPLICATION_ID: Final = 0x72746D65  # "rtme", in the header of our files
# Seconds to wait for another process that uses the file.
_PATIENCE: Final = 5.0
_HEADER: Final = b"SQLite format 3\x00"

# Upgrade n leads from version n to n + 1. Never change one that was released: append.
_UPGRADES: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {_APPLICATION_ID}",
        """CREATE TABLE users (
            user_id TEXT PRIMARY KEY,
            username TEXT NOT NULL,
            username_key TEXT NOT NULL UNIQUE,
            password_hash TEXT NOT NULL,
            roles TEXT NOT NULL,
            created_at REAL NOT NULL,
            disabled INTEGER NOT NULL DEFAULT 0
        )""",
        # refresh_id is the jti of the one good refresh token; access_until is when the last
        # access token has expired, so that a revocation need not be kept for longer.
        """CREATE TABLE sessions (
            session_id TEXT PRIMARY KEY,
            user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
            refresh_id TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            access_until REAL NOT NULL
        )""",
        "CREATE INDEX sessions_by_user ON sessions (user_id)",
        "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
        # number only grows, so that a reader can ask for what is new.
        """CREATE TABLE revocations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            at REAL NOT NULL,
            expires REAL NOT NULL,
            UNIQUE (kind, id)
        )""",
        "CREATE INDEX revocations_by_expiry ON revocations (expires)",
    ),
    (
        """CREATE TABLE api_keys (
            name TEXT PRIMARY KEY,
            key_hash TEXT NOT NULL UNIQUE,
            created_at REAL NOT NULL
        )""",
    ),
)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file is: its mark, its upgrades, and the settings it is used with."""

    application_id: int
    upgrades: Sequence[Sequence[str]]
    pragmas: Sequence[str]


def _accounts() -> Schema:
    """The file of users and sessions."""
    pragmas = ("PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON")
    return Schema(_APPLICATION_ID, _UPGRADES, pragmas)


class Damaged(Exception):
    """A row that is not as this server writes them: what functions of a database may raise."""


class Workers:
    """A few threads with a bounded queue. Starts them when first needed."""

    def __init__(
        self, reactor: IReactorFromThreads, *, threads: int, max_pending: int, name: str
    ) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        self._max_pending = max_pending
        self._name = name
        self._pending = 0
        self._stopping = False
        self._idle: list[Deferred[None]] = []

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `function` in a thread; fails with `Unavailable` when the queue is full."""
        if self._stopping:
            return fail(Unavailable("The server is shutting down."))
        if self._pending >= self._max_pending:
            return fail(Unavailable(f"Too much work is waiting ({self._name}).", retry_after=1))
        if not self._pool.started:
            self._pool.start()
        self._pending += 1
        deferred: Deferred[T] = Deferred()

        def done(success: bool, result: Any) -> None:
            self._reactor.callFromThread(self._finish, deferred, success, result)

        self._pool.callInThreadWithCallback(done, function, *args, **kwargs)
        return deferred

    async def stop(self) -> None:
        """Take nothing more, finish what was taken, and end the threads."""
        self._stopping = True
        if self._pending:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        if self._pool.started and not self._pool.joined:
            self._pool.stop()

    def _finish(self, deferred: Deferred[T], success: bool, result: Any) -> None:
        self._pending -= 1
        if success:
            deferred.callback(result)
        else:
            deferred.errback(result)
        if not self._pending:
            waiting, self._idle = self._idle, []
            for idle in waiting:
                idle.callback(None)


class Database:
    """The file at `path`, once `open` has succeeded. Users and sessions, unless `schema` says."""

    def __init__(
        self,
        path: str,
        reactor: IReactorFromThreads,
        *,
        schema: Schema | None = None,
        max_pending: int = 1000,
    ) -> None:
        self.path = path
        self._schema = schema or _accounts()
        self._workers = Workers(reactor, threads=1, max_pending=max_pending, name="database")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Check, open and upgrade the file, making it if need be; raises `ConfigurationError`."""
        try:
            await self._workers.run(self._open)
        except BaseException:
            await self._workers.stop()
            raise

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call `function(connection, ...)` in the database's thread, within a transaction.

        It is committed when the function returns, and undone when it raises. Raises
        `Unavailable` when the queue is full or the database cannot do it now, and
        `ConfigurationError` where the function raises `Damaged`.
        """
        return await self._workers.run(
            self._transact, "BEGIN IMMEDIATE", lambda c: function(c, *args, **kwargs)
        )

    async def read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `run`, for a function that changes nothing: it waits for no other process."""
        return await self._workers.run(
            self._transact, "BEGIN", lambda c: function(c, *args, **kwargs)
        )

    async def close(self) -> None:
        """Finish what was asked for, then close the file. May be called twice."""
        try:
            await self._workers.run(self._close)
        except Unavailable:
            pass  # Closed before, or so busy that the process's end must close it.
        await self._workers.stop()

    # -- in the thread ---------------------------------------------------------------------

    def _open(self) -> None:
        check(self.path, self._schema)
        try:
            # SQLite gives its other files the mode of this one.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            try:
                for pragma in self._schema.pragmas:
                    connection.execute(pragma)
                _use_wal(connection)
                _upgrade(connection, self._schema.upgrades)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            raise ConfigurationError(f"database {self.path}: {error.strerror}") from None
        except sqlite3.Error as error:
            raise ConfigurationError(f"database {self.path}: {error}") from None
        self._connection = connection

    def _transact(self, begin: str, function: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise Unavailable("The database is not open.")
        try:
            connection.execute(begin)
            try:
                result = function(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except Damaged as error:
            raise ConfigurationError(f"database {self.path}: damaged: {error}") from None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            # SQLite's words name tables and files, never values.
            _log.error("The database failed: {error}", error=str(error))
            raise Unavailable("The database cannot be used at present.") from None
        return result

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def check(path: str, schema: Schema | None = None) -> None:
    """Raise `ConfigurationError`, in one line, unless `path` can be opened. Writes nothing."""
    try:
        with open(path, "rb") as file:
            header = file.read(len(_HEADER))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"database {path}: {error.strerror}") from None
    if not header:
        return
    if header != _HEADER:
        raise ConfigurationError(f"database {path}: not an SQLite database; left untouched")
    # Without a write-ahead log nobody has the file open, and reading need not even lock it.
    mode = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    try:
        uri = f"{Path(path).absolute().as_uri()}?{mode}"
        connection = sqlite3.connect(uri, timeout=_PATIENCE, uri=True)
        try:
            problem = _problem(connection, schema or _accounts())
        finally:
            connection.close()
    except sqlite3.Error as error:
        problem = str(error)
    if problem is not None:
        raise ConfigurationError(f"database {path}: {problem}; left untouched")


def _problem(connection: sqlite3.Connection, schema: Schema) -> str | None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != schema.application_id and (tables or version or application_id):
        return "belongs to another program"
    if not 0 <= version <= len(schema.upgrades):
        return f"has version {version}, this server knows up to {len(schema.upgrades)}"
    (report,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if report != "ok":
        return f"corrupt: {' '.join(str(report).split())}"
    return _missing(connection, schema.upgrades[:version])


def _missing(connection: sqlite3.Connection, upgrades: Sequence[Sequence[str]]) -> str | None:
    """What some upgrades have made and is not there, or not as they made it."""
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in chain(*upgrades):
            model.execute(statement)
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in model.execute(tables).fetchall():
            found = _columns(connection, table)
            for column in _columns(model, table):
                if column not in found:
                    what = f"column {table}.{column[0]}" if found else f"table {table}"
                    return f"damaged: there is no {what} as this server makes it"
    finally:
        model.close()
    return None


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int, int]]:
    """Name, type, NOT NULL and place in the primary key of each column; none without the table."""
    rows = connection.execute(f"PRAGMA table_info({table})")
    return [(name, type, not_null, key) for _, name, type, not_null, _, key in rows]


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. For this, SQLite does not wait for another process itself."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _upgrade(connection: sqlite3.Connection, upgrades: Sequence[Sequence[str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")  # Another process may be at it, too.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for statements in upgrades[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {max(version, len(upgrades))}")
    connection.execute("COMMIT")


def add_revocation(
    connection: sqlite3.Connection, kind: str, id: str, at: float, expires: float
) -> None:
    """Record that tokens of a 'user' issued up to `at`, or all of a 'session', are refused.

    `expires` is when they have all expired anyway.
    """
    connection.execute(
        "INSERT OR REPLACE INTO revocations (kind, id, at, expires) VALUES (?, ?, ?, ?)",
        (kind, id, at, expires),
    )
