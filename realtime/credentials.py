"""What proves who somebody is: our secrets and an issuer's keys, read, and read again.

The secrets of a state directory are looked at every two seconds, as revocations are; those of
--secret-file, and the file of an issuer's keys, when the server is told to reload as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from realtime.audit import Audit
from realtime.database import Workers
from realtime.errors import ConfigurationError
from realtime.jwks import BadKeys, KeyReader, fetch_file, fetch_url, place_of, read_file, read_jwks
from realtime.metrics import Counters
from realtime.settings import Settings
from realtime.signed_post import Connections, Watch
from realtime.signing_keys import load_keys, load_secrets
from realtime.token_keys import Keys, PublicKey, load_public_key
from realtime.tokens import Tokens

_log = Logger()

POLL_SECONDS: Final = 2.0


def make_tokens(settings: Settings, state: Path, reactor: Any) -> Tokens:
    """The token service; raises `ConfigurationError`. Keys at a URL are still to be read."""
    secrets = read_secrets(settings, state, reactor.seconds())
    return Tokens(
        Keys(*secrets, public=_public_keys(settings)),
        issuer=settings.issuer,
        audience=settings.audience,
        access_ttl=settings.access_token_ttl,
        refresh_ttl=settings.refresh_token_ttl,
        now=reactor.seconds,
    )


def read_secrets(settings: Settings, state: Path, now: float) -> tuple[bytes, ...]:
    """Our secrets, the one that signs first; raises `ConfigurationError`."""
    if settings.secret is not None:
        return tuple(secret.encode() for secret in settings.secret)
    if settings.secret_file is not None:
        return load_secrets(settings.secret_file, "--secret-file")
    return load_keys(state, now)


def _public_keys(settings: Settings) -> list[PublicKey]:
    if settings.jwks_file is not None:
        try:
            return read_jwks(read_file(settings.jwks_file))[0]
        except BadKeys as error:
            raise ConfigurationError(f"--jwks-file {settings.jwks_file}: {error}") from None
    path, algorithm = settings.jwt_public_key, settings.jwt_algorithm
    if path is None or algorithm is None:
        return []
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--jwt-public-key {path}: {error.strerror}") from None
    return [load_public_key(algorithm, pem)]


class Credentials:
    """Tokens whose keys follow those of the settings, once started.

    `on_dropped` is told the id of a secret of ours that counts no more.
    """

    def __init__(
        self,
        settings: Settings,
        state: Path,
        counters: Counters,
        reactor: Any,
        audit: Audit | None = None,
        on_dropped: Callable[[str], object] = lambda kid: None,
    ) -> None:
        self.tokens = make_tokens(settings, state, reactor)
        self._on_dropped = on_dropped
        self._settings = settings
        self._state = state
        self._audit = audit or Audit()
        self._reactor = reactor
        self._secrets: tuple[bytes, ...] = ()
        self._watch = Watch("reading of signing keys", str(state), reactor)
        self._workers = Workers(reactor, threads=1, max_pending=4, name="token keys")
        self._connections: Connections | None = None
        self._reader = self._make_reader(counters)
        self._watching = False
        self._loop = LoopingCall(self._poll)
        self._loop.clock = reactor

    def _make_reader(self, counters: Counters) -> KeyReader | None:
        url, path = self._settings.jwks_url, self._settings.jwks_file
        if url is not None:
            self._connections = Connections(self._reactor, kept=1)
            fetch, name = fetch_url(url, self._connections.agent), place_of(url)
        elif path is not None:
            fetch, name = fetch_file(path, self._workers), path
        else:
            return None
        return KeyReader(
            self.tokens.keys,
            fetch,
            name,
            counters,
            self._reactor,
            every=self._settings.jwks_refresh_seconds,
            on_change=lambda kids: self._audit.note("issuer_keys", keys=", ".join(kids)),
        )

    async def start(self) -> None:
        """Read an issuer's keys, and watch those that may change."""
        if self._reader is not None:
            await self._reader.start()
        if self._settings.secret is None and self._settings.secret_file is None:
            self._loop.start(POLL_SECONDS, now=False)
            if self._settings.redis:
                _log.info(
                    "Tokens are signed by key {kid} of {state}: nodes of other state directories "
                    "refuse them, unless all have one --secret-file",
                    kid=self.tokens.keys.kids[0],
                    state=str(self._state),
                )

    async def stop(self) -> None:
        """Watch no more."""
        if self._loop.running:
            self._loop.stop()
        if self._reader is not None:
            await self._reader.stop()
        if self._connections is not None:
            await self._connections.close()
        await self._workers.stop()

    def read_again(self) -> Callable[[], None]:
        """Read the secrets; answer what makes them count. Raises `ConfigurationError`."""
        secrets = self._read()
        return lambda: self._reloaded(secrets)

    def _reloaded(self, secrets: tuple[bytes, ...]) -> None:
        self._take(secrets)
        if self._reader is not None:
            self._reader.begin()

    def _read(self) -> tuple[bytes, ...]:
        return read_secrets(self._settings, self._state, self._reactor.seconds())

    async def _poll(self) -> None:
        try:
            secrets = await self._workers.run(self._read)
        except Exception as error:
            self._watch.failed(str(error))
        else:
            self._watch.worked()
            self._take(secrets)

    def _take(self, secrets: tuple[bytes, ...]) -> None:
        """Have these secrets count, if they are others than so far."""
        if secrets == self._secrets:
            return
        first, self._secrets = not self._secrets, secrets
        keys = self.tokens.keys
        before = keys.kids
        keys.become_secrets(secrets)
        if not first or keys.kids != before:
            signs, accepted = keys.kids[0], ", ".join(keys.kids[1:])
            _log.info("Tokens are signed by key {kid}", kid=signs)
            self._audit.note("signing_keys", key=signs, accepted=accepted or None)
        for kid in set(before).difference(keys.kids):
            self._on_dropped(kid)
