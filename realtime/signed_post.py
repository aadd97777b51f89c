"""Signed posts to an operator's receiver: what webhooks and hooks have in common.

Of a URL no more than scheme, host and port is ever logged, and of the secret nothing.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from realtime import __version__
from realtime.model import Identity

_log = Logger()

# Seconds for which an idle connection is kept: less than after which most servers close it.
_IDLE: Final = 4
_GONE: Final = (ConnectionDone, ConnectionLost)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered; `body` is empty where it was larger than was to be read."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """There was none, and the text says why."""


@implementer(IStreamClientEndpoint)
class _Quiet:
    """An endpoint whose connections are made and ended without a word in the log."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint.connect`."""
        protocolFactory.noisy = False
        connected: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connected


class _Pool(HTTPConnectionPool):
    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        connected: Deferred[Any] = super().getConnection(key, _Quiet(endpoint))
        return connected


class Connections:
    """Connections to receivers, of which some stay open between posts."""

    def __init__(self, reactor: Any, *, kept: int) -> None:
        self._pool = _Pool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = kept
        self._pool.cachedConnectionTimeout = _IDLE
        # Certificates are verified, as is the default.
        self.agent: IAgent = Agent(reactor, pool=self._pool)

    async def close(self) -> None:
        """Close those that are idle."""
        await self._pool.closeCachedConnections()


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """The signature of a body that is sent at a Unix second."""
    code = hmac.new(secret, b"%d." % timestamp, sha256)
    code.update(body)
    return f"sha256={code.hexdigest()}"


class SignedPost:
    """Posts JSON to one URL. Redirects are not followed; `timeout` is seconds, for all of it."""

    def __init__(
        self,
        url: str,
        secret: bytes,
        agent: IAgent,
        clock: IReactorTime,
        *,
        timeout: float,
        max_answer: int,
    ) -> None:
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        self.receiver = f"{parts.scheme}://{host}"
        self._url = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"realtime-server/{__version__}",
        }
        if userinfo:
            token = b64encode(unquote_to_bytes(userinfo)).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._secret = secret
        # Nothing is kept of one answer that would be sent with the next post.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._http = HTTPClient(agent, cookies, _Body)
        self._clock = clock
        self._timeout = timeout
        self._max_answer = max_answer

    def send(self, body: bytes, delivery: str) -> Deferred[Answer]:
        """Post a body under the id of its delivery; fails with `NoAnswer` and nothing else."""
        sent = Deferred.fromCoroutine(self._send(body, delivery))
        timer = self._clock.callLater(self._timeout, sent.cancel)

        def explain(failure: Failure) -> Failure:
            if timer.active():
                return Failure(NoAnswer(reason_of(failure.value)))
            return Failure(NoAnswer(f"no answer within {self._timeout:g} seconds"))

        def done(result: Answer | Failure) -> Answer | Failure:
            if timer.active():
                timer.cancel()
            return result

        return sent.addErrback(explain).addBoth(done)

    async def _send(self, body: bytes, delivery: str) -> Answer:
        timestamp = int(self._clock.seconds())
        headers = self._headers | {
            "X-Realtime-Delivery": delivery,
            "X-Realtime-Timestamp": str(timestamp),
            "X-Realtime-Signature": sign(self._secret, timestamp, body),
        }
        try:
            return await self._post(body, headers)
        except (ResponseNeverReceived, RequestTransmissionFailed) as error:
            if not all(reason.check(*_GONE) for reason in error.reasons):
                raise
        # The receiver may have closed a kept connection at this very moment.
        return await self._post(body, headers)

    async def _post(self, body: bytes, headers: dict[str, str]) -> Answer:
        response = await self._http.post(
            self._url,
            data=body,
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        reader = BodyReader(self._max_answer)
        response.deliverBody(reader)
        return Answer(response.code, await reader.body)


@implementer(IBodyProducer)
class _Body:
    """Writes a whole body at once; they are small."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is all written."""

    resumeProducing = stopProducing = pauseProducing


class BodyReader(Protocol):
    """Reads an answer's body, and closes the connection when that is too large."""

    def __init__(self, limit: int) -> None:
        self.body: Deferred[bytes] = Deferred(lambda _: self._drop())
        self._left = limit
        self._chunks: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._left -= len(data)
        if self._left >= 0:
            self._chunks.append(data)
        elif not self.body.called:
            self._drop()
            self.body.callback(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was all, or the connection is gone."""
        if self.body.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.body.callback(b"".join(self._chunks))
        else:
            self.body.errback(reason)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class Watch:
    """Says once that a receiver has begun to fail, and once that it works again."""

    def __init__(self, what: str, receiver: str, clock: IReactorTime) -> None:
        self._what = what
        self._receiver = receiver
        self._clock = clock
        self._since: float | None = None

    def failed(self, problem: str) -> None:
        """It has failed."""
        if self._since is None:
            self._since = self._clock.seconds()
            _log.warn(
                "The {what} at {receiver} fails: {problem}",
                what=self._what,
                receiver=self._receiver,
                problem=problem,
            )

    def worked(self) -> None:
        """It has done what it should."""
        if self._since is not None:
            seconds = int(self._clock.seconds() - self._since)
            self._since = None
            _log.info(
                "The {what} at {receiver} works again, after {seconds} s",
                what=self._what,
                receiver=self._receiver,
                seconds=seconds,
            )


def who(identity: Identity, connection_id: str | None) -> dict[str, Any]:
    """A connection and its user, as receivers see them."""
    shown = {
        "connection_id": connection_id,
        "user_id": identity.user_id,
        "username": identity.username,
        "session_id": identity.session_id,
    }
    return {name: value for name, value in shown.items() if value is not None}


def reason_of(error: BaseException | None) -> str:
    """Why a request has failed, in one line without control characters."""
    reasons = getattr(error, "reasons", None)
    if reasons:  # of a request that broke off
        error = reasons[0].value
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
