"""What the server and its command line share of the assembly: the state directory's stores."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from realtime.accounts import Accounts
from realtime.api_keys import ApiKeys
from realtime.database import Database, Workers
from realtime.errors import ConfigurationError
from realtime.passwords import Hasher

T = TypeVar("T")

DATABASE = "realtime.sqlite3"


def run_alone(function: Callable[[Any], Awaitable[T]]) -> T:
    """Run a coroutine on a reactor of its own, before or without the process's reactor."""
    reactor = SelectReactor()
    outcome: list[T | Failure] = []

    def finish(result: T | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    def start() -> None:
        Deferred.fromCoroutine(_as_coroutine(function(reactor))).addBoth(finish)

    reactor.callWhenRunning(start)
    reactor.startRunning(installSignalHandlers=False)
    while reactor.running:  # As `run` does, which would log that a main loop has ended.
        reactor.iterate(0.1)
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def state_directory(path: str) -> Path:
    """Make the state directory, closed to others, unless it is there."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--state {path}: {error.strerror}") from None
    return Path(path)


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of users and API keys and what they need, on some reactor."""

    database: Database
    workers: Workers
    accounts: Accounts
    keys: ApiKeys

    async def close(self) -> None:
        """Finish and close."""
        await self.workers.stop()
        await self.database.close()


def make_stores(state: Path, reactor: Any) -> Stores:
    """The stores in a state directory; `database.open` has still to be called."""
    database = Database(str(state / DATABASE), reactor)
    workers = Workers(reactor, threads=2, max_pending=64, name="password hashing")
    accounts = Accounts(database, Hasher(), workers, reactor.seconds)
    return Stores(database, workers, accounts, ApiKeys(database, reactor.seconds))
