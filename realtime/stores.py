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
from realtime.settings import Settings
from realtime.tokens import Keys, Tokens, load_or_create_secret, load_secret

T = TypeVar("T")

DATABASE = "realtime.sqlite3"
SIGNING_KEY = "secret.key"


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


def make_tokens(settings: Settings, state: Path, reactor: Any) -> Tokens:
    """The token service, with its signing key from the state directory or --secret-file."""
    if settings.secret is not None:
        secret = settings.secret.encode()
    elif settings.secret_file is None:
        secret = load_or_create_secret(str(state / SIGNING_KEY))
    else:
        secret = load_secret(settings.secret_file, "--secret-file")
    pem = None
    if settings.jwt_public_key is not None:
        try:
            pem = Path(settings.jwt_public_key).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"--jwt-public-key {settings.jwt_public_key}: {error.strerror}"
            ) from None
    return Tokens(
        Keys(secret, algorithm=settings.jwt_algorithm, public_pem=pem),
        issuer=settings.issuer,
        audience=settings.audience,
        access_ttl=settings.access_token_ttl,
        refresh_ttl=settings.refresh_token_ttl,
        now=reactor.seconds,
    )
