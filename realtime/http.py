"""HTTP on Twisted's server, with bounds: absolute deadlines, sizes, numbers of connections.

Twisted's `Site` has an idle timeout only, and takes bodies of any size. Here a request's head and
its whole body have to be there in time however they trickle in, a body larger than the limit is
refused before it is read, and whatever is refused is refused with the error envelope. What the
refusals of a parsed request look like is the resource's affair: it finds them in
`Request.refusal`.
"""

from __future__ import annotations

from enum import Enum, auto
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Site

from realtime.addresses import network_of
from realtime.answers import cors_headers, whole_answer
from realtime.crowd import Crowd
from realtime.errors import InvalidRequest, RealtimeError
from realtime.http_request import BodyTooLarge, HttpLimits, Request
from realtime.metrics import Counters
from realtime.origins import Origins


class _Phase(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    STREAM = auto()
    CLOSING = auto()


class _Muted:
    """Stands for the transport while Twisted parses, and drops the bare 400 it may write."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Drop it: the refusal with the envelope comes when Twisted closes the connection."""


class Channel(HTTPChannel):
    """One HTTP connection. In each phase but that of answering it has a deadline."""

    site: HttpSite
    phase = _Phase.IDLE
    _muted: Any
    _network: str
    _deadline: IDelayedCall | None = None
    _started = 0.0
    _head_size = 0
    _headers = 0

    def connectionMade(self) -> None:
        """Wait for the first request; a silent connection has no longer than a head has."""
        limits = self.site.limits
        self.MAX_LENGTH = self.totalHeadersSize = limits.head_size
        self.maxHeaders = limits.headers
        super().connectionMade()
        self._muted = _Muted(self.transport)
        self._network = network_of(getattr(self.getPeer(), "host", ""))
        self._enter(_Phase.IDLE, limits.head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget everything."""
        self._leave()
        super().connectionLost(reason)
        # Requests, which may stay for a while, refer to it, and so to all that was never sent.
        self._muted.transport = None

    def drain(self) -> None:
        """Close as soon as no request is under way."""
        if self.phase is _Phase.ANSWER:
            self.persistent = False
        elif self.phase is not _Phase.CLOSING:
            self._close()

    def stream(self) -> None:
        """The answer under way goes on until somebody ends it: it counts as the node's."""
        self._leave()
        self.phase = _Phase.STREAM
        self.persistent = False

    def evict(self) -> None:
        """End at once, to make room for another connection."""
        if self.phase is _Phase.IDLE:
            self._close()
        else:
            self.transport.abortConnection()  # type: ignore[union-attr]

    # -- bytes in ----------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Read on; what follows a refusal, or the request of a stream, is dropped."""
        if self.phase in (_Phase.CLOSING, _Phase.STREAM):
            return
        self._begin()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Read a line of a request's head, whose whole size is limited."""
        if self.phase is _Phase.CLOSING:
            return
        self._begin()
        self._head_size += len(line) + 2
        if self._head_size > self.site.limits.head_size:
            self.lineLengthExceeded(line)
            return
        if line[:1] in (b" ", b"\t"):
            self._refuse(InvalidRequest("A line of the request's head begins with a blank"))
            return
        self.transport = self._muted
        try:
            super().lineReceived(line)
        finally:
            self._unmute()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a head that is too large."""
        self.site.counters.limit("max-head-size")
        self._refuse(InvalidRequest("The request's head is too large", status=431))

    def headerReceived(self, line: bytes) -> bool:
        """Read a header; numbers of thousands of digits make Twisted's reading of it fail."""
        self._headers += 1
        if self._headers > self.site.limits.headers:
            self._refuse(InvalidRequest("The request has too many headers", status=431))
            return False
        name, _, value = line.partition(b":")
        if name.lower() == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            # Twisted ignores `identity`, where a proxy may read chunks.
            self._refuse(InvalidRequest("The request's transfer coding is unknown"))
            return False
        try:
            ok: bool = super().headerReceived(line)
        except ValueError:
            self._refuse(InvalidRequest("A header of the request is malformed"))
            return False
        return ok

    def allHeadersReceived(self) -> None:
        """Refuse a body that is declared too large, else give it its time."""
        self._unmute()
        if self.length is not None and self.length > self.site.limits.body_size:
            self.length = 0  # Nothing of it is read.
            self.requests[-1].gotLength(0)
            self._refuse_body()
            return
        super().allHeadersReceived()
        if self.site.draining:
            self._be_last()
        if self.length != 0:
            elapsed = self.site.reactor.seconds() - self._started
            self._enter(_Phase.BODY, self.site.limits.body - elapsed)

    def rawDataReceived(self, data: bytes) -> None:
        """Read a piece of the body, or keep what follows the request that is being answered."""
        if self.phase is _Phase.CLOSING or (self.phase is _Phase.ANSWER and not self.persistent):
            return
        self.transport = self._muted
        try:
            super().rawDataReceived(data)
        except BodyTooLarge:
            self._refuse_body()
            self.allContentReceived()
        finally:
            self._unmute()

    def allContentReceived(self) -> None:
        """Have the request answered, which takes the time it takes."""
        if self.phase is _Phase.CLOSING:
            return
        self._unmute()
        self._enter(_Phase.ANSWER, None)
        super().allContentReceived()
        if self.transport is None:  # The connection has become a WebSocket.
            self._leave()

    def requestDone(self, request: Request) -> None:
        """Wait for the next request, or close."""
        if self.persistent:
            self._enter(_Phase.IDLE, self.site.limits.idle)
            super().requestDone(request)
        elif request.refusal is None:
            super().requestDone(request)
        else:
            self._linger()

    # -- ends --------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close, once everything is written. Twisted calls this where it cannot parse, too."""
        if self.phase in (_Phase.HEAD, _Phase.BODY):
            self._refuse(InvalidRequest("This is not valid HTTP"))
        elif self.phase is not _Phase.CLOSING:
            self._close()

    def _refuse(self, error: RealtimeError) -> None:
        """Refuse a request that is not here as a whole."""
        self._unmute()
        assert self.transport is not None  # noqa: S101
        headers = self.requests[-1].requestHeaders if self.requests else Headers()
        origin = headers.getRawHeaders(b"Origin", [b""])[0].decode("ascii", "replace")
        self.transport.write(whole_answer(error, cors_headers(self.site.origins, origin)))
        self._linger()

    def _unmute(self) -> None:
        if isinstance(self.transport, _Muted):
            self.transport = self.transport.transport

    def _refuse_body(self) -> None:
        limit = self.site.limits.body_size
        self.site.counters.limit("max-body-size")
        self.requests[-1].refusal = InvalidRequest(
            f"The body is larger than {limit} bytes",
            status=413,
            details={"max_body_size": limit},
        )
        self._be_last()

    def _be_last(self) -> None:
        """Make the request under way the connection's last."""
        self.persistent = False
        self.requests[-1].responseHeaders.setRawHeaders("Connection", ["close"])

    def _close(self) -> None:
        self._enter(_Phase.CLOSING, self.site.limits.close)
        super().loseConnection()

    def _linger(self) -> None:
        """Close our side, and read on until the client has closed its own.

        Closing with bytes unread resets the connection, and the client may lose the answer.
        """
        transport: Any = self.transport
        plain_tcp: bool = ITCPTransport.providedBy(transport) and not self.isSecure()
        if not plain_tcp:
            self._close()
            return
        self._enter(_Phase.CLOSING, self.site.limits.close)
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseWriteConnection()

    # -- deadlines ---------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.phase is _Phase.IDLE:
            self._started = self.site.reactor.seconds()
            self._head_size = self._headers = 0
            self._enter(_Phase.HEAD, self.site.limits.head)

    def _enter(self, phase: _Phase, seconds: float | None) -> None:
        """Begin a phase that may last so long."""
        self._cancel()
        self.phase = phase
        crowd = self.site.crowd
        if phase is _Phase.ANSWER:
            crowd.serve(self, self._network)
        else:
            crowd.wait(self, self._network, idle=phase is _Phase.IDLE)
        if seconds is not None:
            self._deadline = self.site.reactor.callLater(max(0, seconds), self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self.phase is _Phase.IDLE:
            self._close()
        elif self.phase is _Phase.CLOSING:
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            part = "head" if self.phase is _Phase.HEAD else "body"
            self.site.counters.limit(f"{part}-timeout")
            self._refuse(InvalidRequest("The request took too long to arrive", status=408))

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _leave(self) -> None:
        self._cancel()
        self.site.forget(self)


class HttpSite(Site):
    """The factory of HTTP connections around a resource.

    There is no access log. When there are as many connections as the limits allow, one that is
    not being answered makes room for a new one.
    """

    noisy = False
    requestFactory = Request
    protocol = Channel  # type: ignore[assignment]
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        limits: HttpLimits | None = None,
        origins: Origins | None = None,
        counters: Counters | None = None,
    ) -> None:
        super().__init__(resource, reactor=reactor, timeout=None, parsePOSTFormSubmission=False)
        self.limits = limits or HttpLimits()
        self.origins = origins or Origins(())
        self.draining = False
        self.counters = counters or Counters()
        self.crowd = Crowd[Channel]()
        self._when_empty: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:  # type: ignore[override]
        """Make a channel, unless there are too many, and all of them are being answered."""
        if len(self.crowd) >= self.limits.connections:
            self.counters.dropped_http_connections += 1
            channel = self.crowd.first_to_go()
            if channel is None:
                return None
            channel.evict()
            self.forget(channel)
        made: Channel = super().buildProtocol(addr)
        return made

    def close_all(self) -> Deferred[None]:
        """Close idle connections now and the others after their answer; fires when all ended."""
        self.draining = True
        for channel in list(self.crowd):
            channel.drain()
        done: Deferred[None] = Deferred()
        if self.crowd:
            self._when_empty.append(done)
        else:
            done.callback(None)
        return done

    def forget(self, channel: Channel) -> None:
        """A connection has ended, or is HTTP no more."""
        self.crowd.forget(channel)
        if not self.crowd:
            waiting, self._when_empty = self._when_empty, []
            for done in waiting:
                done.callback(None)

    def getContentFile(self, length: int | None) -> BytesIO:
        """Where a body is kept: in memory, as it is small."""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Start nothing: there is no access log."""

    def stopFactory(self) -> None:
        """Stop nothing."""

    def log(self, request: Any) -> None:
        """Write nothing: query strings may hold tokens."""
