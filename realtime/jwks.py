"""Another issuer's public keys as a JSON Web Key Set (RFC 7517), read again and again.

What cannot be read changes nothing: the keys there are stay. What can be read counts as it is:
tokens of a key that is no longer in the set are refused from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from jwt import PyJWK
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from realtime import __version__
from realtime.database import Workers
from realtime.metrics import Counters
from realtime.signed_post import BodyReader, Watch, reason_of
from realtime.token_keys import EXTERNAL, Keys, PublicKey, fits

_log = Logger()

MAX_BYTES: Final = 65536
MAX_KEYS: Final = 100
# Seconds for a whole answer.
TIMEOUT: Final = 5.0
# Seconds between readings that unknown keys ask for, or that have failed while there are no keys.
SOON: Final = 10.0
_MAX_KID: Final = 255

Fetch = Callable[[], Coroutine[Any, Any, bytes]]


class BadKeys(Exception):
    """What was read is no key set, or was not to be read; the text says why."""


class _Set(msgspec.Struct):
    keys: list[Any]


def read_jwks(text: bytes) -> tuple[list[PublicKey], list[str]]:
    """The keys of a set that can be used, and of the others what is wrong with each.

    Raises `BadKeys` where it is no key set.
    """
    try:
        found = msgspec.json.decode(text, type=_Set).keys
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadKeys("it is no JSON Web Key Set") from None
    if len(found) > MAX_KEYS:
        raise BadKeys(f"it has {len(found)} keys, more than {MAX_KEYS}")
    keys: dict[tuple[str, str | None], PublicKey] = {}
    skipped = []
    for number, jwk in enumerate(found, 1):
        key = _read_key(jwk)
        if isinstance(key, PublicKey) and (key.algorithm, key.kid) in keys:
            key = "has the kid of another"
        if isinstance(key, PublicKey):
            keys[key.algorithm, key.kid] = key
        else:
            skipped.append(f"key {number} {key}")
    return list(keys.values()), skipped


def _read_key(jwk: Any) -> PublicKey | str:
    """A key, or what is wrong with it."""
    if not isinstance(jwk, dict):
        return "is no object"
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _MAX_KID):
        return f"has a kid that is no text of up to {_MAX_KID} characters"
    try:
        if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
            return "is not for verifying signatures"
        parsed = PyJWK(jwk)
    except Exception:  # Whatever an odd key meets with: the others are to count.
        return "cannot be read"
    algorithm = parsed.algorithm_name
    if not fits(algorithm, parsed.key):
        kinds = ", ".join(f"{name} ({kind})" for name, kind in EXTERNAL.items())
        return f"is no public key of {kinds}"
    return PublicKey(algorithm, parsed.key, kid)


class KeyReader:
    """Keeps `keys` as a source has them, which `fetch` reads; `name` is how the log calls it.

    A token that names an unknown key has them read once more, soon; it is itself refused, as it
    comes before they are.
    """

    def __init__(
        self,
        keys: Keys,
        fetch: Fetch,
        name: str,
        counters: Counters,
        clock: IReactorTime,
        *,
        every: float,
        on_change: Callable[[list[str]], object] = lambda kids: None,
    ) -> None:
        self._keys = keys
        self._fetch = fetch
        self._counters = counters
        self._clock = clock
        self._every = every
        self._on_change = on_change
        self._watch = Watch("reading of token keys", name, clock)
        self._text: bytes | None = None
        self._reading: Deferred[None] | None = None
        self._read_at = clock.seconds()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._stopped = False
        keys.on_unknown = self.hurry

    async def start(self) -> None:
        """Read them for the first time; whether or not that succeeds, go on reading."""
        await self.read()
        if not self._stopped:
            self._loop.start(min(SOON, self._every), now=False)

    async def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        self._keys.on_unknown = None
        if self._loop.running:
            self._loop.stop()
        if self._reading is not None:
            self._reading.cancel()

    def hurry(self) -> None:
        """Read them now, unless they were read just now."""
        if self._clock.seconds() - self._read_at >= SOON:
            self.begin()

    def begin(self) -> None:
        """Begin to read them, unless that is under way."""
        if self._reading is None and not self._stopped:
            Deferred.fromCoroutine(self.read())

    async def read(self) -> None:
        """Read them; what goes wrong is logged and counted, and changes nothing."""
        self._read_at = self._clock.seconds()
        self._reading = reading = Deferred.fromCoroutine(self._read())
        reading.addTimeout(TIMEOUT, self._clock)
        try:
            await reading
        except Exception as error:
            if not self._stopped:
                self._counters.jwks_failures += 1
                late = self._clock.seconds() - self._read_at >= TIMEOUT
                problem = f"no answer within {TIMEOUT:g} seconds" if late else reason_of(error)
                self._watch.failed(problem)
        else:
            self._counters.jwks_refreshes += 1
            self._watch.worked()
        finally:
            self._reading = None

    def _tick(self) -> None:
        late = self._clock.seconds() - self._read_at >= self._every
        if late or self._text is None:
            self.begin()

    async def _read(self) -> None:
        text = await self._fetch()
        if text == self._text:
            return
        keys, skipped = read_jwks(text)
        self._text = text
        self._keys.become_public(keys)
        self._counters.jwks_keys = len(keys)
        for problem in skipped:
            _log.warn("A token key is left out: {problem}", problem=problem)
        if not keys:
            _log.warn("There is no key by which another issuer's tokens could be verified")
        self._on_change([key.kid or "(none)" for key in keys])


def fetch_url(url: str, agent: IAgent) -> Fetch:
    """How keys are read from a URL. Redirects are not followed."""
    http = HTTPClient(agent, CookieJar(DefaultCookiePolicy(allowed_domains=())))
    headers = {"Accept": "application/json", "User-Agent": f"realtime-server/{__version__}"}

    async def fetch() -> bytes:
        response = await http.get(url, headers=headers, allow_redirects=False, unbuffered=True)
        reader = BodyReader(MAX_BYTES)
        response.deliverBody(reader)
        body = await reader.body
        if response.code != 200:
            raise BadKeys(f"HTTP status {response.code}")
        if not body:
            raise BadKeys(f"the answer is empty, or larger than {MAX_BYTES} bytes")
        return body

    return fetch


def fetch_file(path: str, workers: Workers) -> Fetch:
    """How keys are read from a file, in a thread."""

    async def fetch() -> bytes:
        return await workers.run(read_file, path)

    return fetch


def read_file(path: str) -> bytes:
    """A file of keys, which is no larger than an answer may be; raises `BadKeys`."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadKeys(str(error.strerror)) from None
    if len(text) > MAX_BYTES:
        raise BadKeys(f"it is larger than {MAX_BYTES} bytes")
    return text


def place_of(url: str) -> str:
    """What the log says of a URL: no more than from where it is."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
