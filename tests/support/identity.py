"""Identity for tests: cheap password hashes, keys, and a database in a temporary directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from realtime.accounts import Accounts
from realtime.auth import Auth, LoginLimits
from realtime.database import Database, Workers
from realtime.model import User
from realtime.passwords import Hasher
from realtime.sessions_sqlite import Sessions
from realtime.token_keys import Keys
from realtime.tokens import Tokens

SECRET = b"0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse"
START = 1_700_000_000.0
ALICE = User("user_1", "alice", ("user", "subscriber"), START)


def make_clock() -> Clock:
    """Make a clock that stands at `START`, in Unix seconds."""
    clock = Clock()
    clock.rightNow = START
    return clock


def make_tokens(now: Callable[[], float], **options: Any) -> Tokens:
    """Make tokens signed with `SECRET`, with the defaults of the server."""
    return Tokens(Keys(SECRET), now=now, **options)


def make_access(now: Callable[[], float], user: User = ALICE, **options: Any) -> str:
    """Make an access token of `user` without a session."""
    return make_tokens(now).issue_access(user, None, **options)


def quick_hasher(**options: Any) -> Hasher:
    """Make an argon2id hasher that costs next to nothing."""
    return Hasher(**{"time_cost": 1, "memory_cost": 8, "parallelism": 1, **options})


def make_state_dir(case: TestCase) -> str:
    """Make a directory that goes with the test."""
    directory = tempfile.TemporaryDirectory(prefix="realtime-test-")
    case.addCleanup(directory.cleanup)
    return directory.name


async def open_database(case: TestCase, path: str | None = None) -> Database:
    """Open a database, in a new temporary directory unless `path` says where; closed after."""
    if path is None:
        path = os.path.join(make_state_dir(case), "realtime.sqlite3")
    database = Database(path, reactor)
    await database.open()
    case.addCleanup(database.close)
    return database


def make_workers(case: TestCase, **options: Any) -> Workers:
    """Make a small thread pool, stopped after the test."""
    settings = {"threads": 2, "max_pending": 64, "name": "test", **options}
    workers = Workers(reactor, **settings)
    case.addCleanup(workers.stop)
    return workers


class IdentityKit:
    """The whole identity part over one database file, with a `Clock`. `revoked` lists calls."""

    def __init__(self, case: TestCase, database: Database, clock: Clock, **options: Any) -> None:
        self.clock = clock
        self.database = database
        self.revoked: list[tuple[str, str]] = []
        self.tokens = make_tokens(clock.seconds)
        self.workers = make_workers(case)
        self.accounts = Accounts(database, quick_hasher(), self.workers, clock.seconds)
        self.sessions = Sessions(database, clock, session_ttl=self.tokens.refresh_ttl)
        self.auth = Auth(
            self.tokens,
            self.accounts,
            self.sessions,
            clock,
            lambda kind, id: self.revoked.append((kind, id)),
            login_limits=LoginLimits(rate=1 / 60, burst=3),
            **options,
        )


async def make_identity(
    case: TestCase, path: str | None = None, clock: Clock | None = None, **options: Any
) -> IdentityKit:
    """Make and start the identity part; stopped after the test."""
    database = await open_database(case, path)
    kit = IdentityKit(case, database, clock or make_clock(), **options)
    await kit.auth.start()
    case.addCleanup(kit.auth.stop)
    return kit
