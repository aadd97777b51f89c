"""The WebSocket edge: Autobahn's protocol and factory, on its public interface only.

Bytes and frames belong to Autobahn, handshake policy and the refusals' bodies are here, and
what messages mean is `peer.py`'s. `fastpath.py` has the quicker twin of `Connection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.admission import Admission
from realtime.answers import cors_headers, whole_answer
from realtime.compression import Deflater, accept_deflate
from realtime.errors import CloseCode, InternalError, InvalidRequest, RealtimeError
from realtime.handshake import check_head, find_token
from realtime.model import Identity, Piece
from realtime.peer import Client
from realtime.policy import WebSocketOptions
from realtime.send_queue import SendQueue

_CONTINUATION = 0
# The code of a connection that ended without a Close frame (RFC 6455 section 7.1.5).
_NO_CLOSE_FRAME = 1006


class _Silence:
    """Autobahn's `log`: it would write tokens and, for every hostile frame, a line."""

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    trace = debug = info = warn = error = critical = failure = _ignore


class Connection(WebSocketServerProtocol):  # type: ignore[misc]
    """One WebSocket. Its `client` is there from the accepted handshake to the end."""

    log: ClassVar[_Silence] = _Silence()
    _log = Logger()

    factory: Factory
    client: Client | None = None
    _identity: Identity | None = None
    _network = ""
    _refusal: RealtimeError | None = None
    _deadline = 0
    _holds = 0
    _queue: SendQueue | None = None

    # -- handshake ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Start the handshake and its deadline."""
        self._begin()
        super().connectionMade()

    def _begin(self) -> None:
        # A transport that an HTTP connection hands over still has that one's producer.
        self.transport.unregisterProducer()
        self._expect_end_within(self.factory.options.head_timeout)

    def on_deadline(self, tick: int) -> None:
        """Drop a connection that finishes neither opening nor closing in time."""
        if self.state == self.STATE_CONNECTING and self._refusal is None:
            self.factory.node.counters.limit("head-timeout")
            self._refuse(InvalidRequest("The request took too long to arrive", status=408))
        else:
            self.transport.abortConnection()

    def _expect_end_within(self, seconds: int) -> None:
        node = self.factory.node
        node.deadlines.cancel(self, self._deadline)
        self._deadline = node.deadlines.schedule(self, node.tick + seconds)

    def dataReceived(self, data: bytes) -> None:
        """Check the request's head, which Autobahn does not bound; then let Autobahn read."""
        client = self.client
        if client is not None:
            node = self.factory.node
            if client.took(len(data)):
                node.hub.rest(self)
            self._feed(data)
            if node.hub.congested:
                node.hub.hold(self)
        elif self.state == self.STATE_CONNECTING:
            problem = check_head(self.data + data, self.factory.options.max_head_size)
            if problem is None:
                self._feed(data)
            else:
                if problem.status == 431:
                    self.factory.node.counters.limit("max-head-size")
                self._refuse(problem)

    def _feed(self, data: bytes) -> None:
        """Let Autobahn read, which after the end would only collect."""
        if self.state != self.STATE_CLOSED:
            super().dataReceived(data)

    def onConnect(self, request: ConnectionRequest) -> Any:
        """Admit or refuse, in the order 401, 403, 503 (DESIGN section 4)."""
        admission = self.factory.admission
        token, selected = find_token(request, in_url=admission.token_in_url)
        forwarded = _forwarded(request)
        try:
            host = request.headers.get("host")
            self._network = admission.network(self.transport, forwarded)
            self._identity = admission.admit(token, request.origin or None, host, self._network)
        except RealtimeError as error:
            admission.refused(error, self.transport, forwarded)
            self._refusal = error.bare()
        except Exception:
            self._log.failure("A WebSocket handshake failed")
            self._refusal = InternalError()
        if self._refusal is not None:
            raise ConnectionDeny(self._refusal.status, "refused")
        if admission.asks:
            return Deferred.fromCoroutine(self._ask(token, selected, forwarded))
        return selected

    async def _ask(
        self, token: str | None, selected: str | None, forwarded: list[str]
    ) -> str | None:
        """Admit whom the gatekeeper admits; meanwhile nothing is read."""
        self.hold()
        try:
            assert self._identity is not None  # noqa: S101
            admission = self.factory.admission
            self._identity = await admission.ask(self._identity, token, self._network)
        except RealtimeError as error:
            self.factory.admission.refused(error, self.transport, forwarded)
            self._refusal = error.bare()
        except Exception:
            self._log.failure("A WebSocket handshake failed")
            self._refusal = InternalError()
        self.release()
        if self._refusal is not None or self.state != self.STATE_CONNECTING:
            raise ConnectionDeny(403, "refused")
        return selected

    def failHandshake(
        self, reason: str, code: int = 400, responseHeaders: list[tuple[str, str]] | None = None
    ) -> None:
        """Refuse with the error envelope, where Autobahn would send a bare status line."""
        if self._refusal is None:
            headers = dict(responseHeaders or ())
            # A version of WebSocket other than ours, or an upgrade to something else.
            if "Sec-WebSocket-Version" in headers or reason.startswith("HTTP Upgrade header"):
                code = 426
            if code == 426:
                headers |= {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            self._refuse(InvalidRequest(reason.partition(' "')[0], status=code, headers=headers))
        else:
            self._refuse(self._refusal)

    def _refuse(self, error: RealtimeError) -> None:
        self._refusal = error
        if self.state == self.STATE_CLOSED:  # while the gatekeeper was asked
            return
        counters = self.factory.node.counters
        counters.errors += 1
        counters.refused_connections += 1
        headers = getattr(self, "http_headers", None) or {}
        # Time to take the answer, which what is left of the handshake's may not be.
        self._expect_end_within(self.factory.options.close_timeout)
        self.sendData(
            whole_answer(error, cors_headers(self.factory.admission.origins, headers.get("origin")))
        )
        self.dropConnection(abort=False)

    def onOpen(self) -> None:
        """Hand over to the client."""
        assert self._identity is not None  # noqa: S101
        node = self.factory.node
        node.deadlines.cancel(self, self._deadline)
        self._watch_queue()
        self.client = self.factory.admission.client(self, self._identity, self._network)
        if self.websocket_extensions_in_use:
            self.client.send = self._send_compressed
        self.client.open()

    # -- messages in -------------------------------------------------------------------------

    def onMessageBegin(self, isBinary: bool) -> None:
        """Close at the first frame of a binary message, before it is all here."""
        super().onMessageBegin(isBinary)
        if isBinary:
            self.close(CloseCode.UNSUPPORTED_DATA)

    def onFrameData(self, payload: bytes) -> bool | None:
        """Keep nothing of empty fragments, nor of control frames too long, which are violations.

        Autobahn would collect either without end.
        """
        frame = self.current_frame
        if not payload or (frame.opcode > 7 and frame.length > 125):
            return None
        kept: bool | None = super().onFrameData(payload)
        return kept

    def onMessageFrameBegin(self, length: int) -> None:
        """Count the fragments of a message as messages, of whatever length they are."""
        super().onMessageFrameBegin(length)
        if self.client is not None and self.current_frame.opcode == _CONTINUATION:
            self.client.charge()

    def onPing(self, payload: bytes) -> None:
        """Answer a Ping, while they come within the message rate."""
        client = self.client
        if client is not None and self.state == self.STATE_OPEN and client.charge():
            self.sendPong(payload)

    def onPong(self, payload: bytes) -> None:
        """Count a Pong, which nobody may send without end either."""
        client = self.client
        if client is not None and self.state == self.STATE_OPEN:
            client.charge()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand a text message to the client."""
        client = self.client
        if client is not None and not isBinary and self.state == self.STATE_OPEN:
            client.receive(payload)

    # -- messages out (interfaces.Transport) -------------------------------------------------

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write for Autobahn: after the handshake, frames that count as all others do."""
        client = self.client
        if client is None:
            self.transport.write(data)
            return
        try:
            sent = client.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.unsent(data, sent)

    def send(self, data: bytes) -> int:
        """Write frames; take nothing while others wait."""
        assert self._queue is not None  # noqa: S101
        return self._queue.send(data)

    def _deflate(self, data: bytes) -> bytes:
        window: int = self.websocket_extensions_in_use[0].server_max_window_bits
        return self.factory.deflater.deflate(data, window)

    def _send_compressed(self, data: bytes) -> int:
        """Write frames, compressed as the client accepts it."""
        deflated = self._deflate(data)
        sent = self.send(deflated)
        client = self.client
        # `send` may have found something faster, which does not compress.
        if client is not None and client.is_open:
            client.send = self._send_compressed
        return len(data) if sent == len(deflated) else 0

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """Let it wait; close with 4002 where there is no room for what may not be dropped."""
        queue = self._queue
        if self.client is None or self.state != self.STATE_OPEN or queue is None:
            return
        if self.websocket_extensions_in_use:
            pieces = [
                piece.carried_as(self._deflate(piece.frames)) for piece in pieces or [Piece(data)]
            ]
        if not queue.add(data, sent, pieces):
            self.factory.node.counters.closed_slow_consumers += 1
            self.factory.node.counters.limit("max-queue-bytes")
            self.close(CloseCode.SLOW_CONSUMER)

    def ping(self) -> None:
        """Send a protocol Ping, whose Pong shows that the client is alive."""
        self.sendPing()

    def close(self, code: CloseCode) -> None:
        """Start the closing handshake; without an answer the connection is dropped."""
        self.sendCloseFrame(code=int(code), reasonUtf8=code.meaning.encode()[:123])

    def hold(self) -> None:
        """See `Transport.hold`."""
        self._holds += 1
        if self._holds == 1:
            self.transport.pauseProducing()

    def release(self) -> None:
        """See `Transport.release`."""
        self._holds -= 1
        if self._holds == 0:
            self.transport.resumeProducing()

    def _watch_queue(self) -> None:
        self._queue = SendQueue(
            self.transport.write, self.factory.options.max_queue_bytes, self.factory.node.counters
        )
        self.transport.registerProducer(self._queue, True)

    # -- the end -----------------------------------------------------------------------------

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Send a Close frame, and no message after it; the rest has to happen soon."""
        client = self.client
        if client is None or self.state != self.STATE_OPEN:
            return
        # A slow consumer's queue is full, and the hub may be at work on it.
        keep = code != CloseCode.SLOW_CONSUMER
        if keep:
            self.factory.node.hub.finish(client)
        if self._queue is not None:
            self._queue.end(keep)
        super().sendCloseFrame(code=code, reasonUtf8=reasonUtf8, isReply=isReply)
        client.mute()
        self._expect_end_within(self.factory.options.close_timeout)

    def dropConnection(self, abort: bool = False) -> None:
        """End the TCP connection, and write nothing more to it."""
        if self.client is not None:
            self.client.mute()
        # After a closing handshake a reset would only look like a failure.
        super().dropConnection(abort=abort and not self.wasClean)

    def connectionLost(self, reason: Failure) -> None:
        """Leave the node."""
        super().connectionLost(reason)
        self._end()

    def _end(self) -> None:
        self.factory.node.deadlines.cancel(self, self._deadline)
        client = self.client
        if client is not None:
            self.client = None
            self.factory.admission.leave(client)
            if self.localCloseCode == CloseCode.MESSAGE_TOO_BIG:
                self.factory.node.counters.limit("max-frame-size")
            client.closed(self.localCloseCode or self.remoteCloseCode or _NO_CLOSE_FRAME)


def _forwarded(request: ConnectionRequest) -> list[str]:
    value = request.headers.get("x-forwarded-for")
    return [value] if value else []


class Factory(WebSocketServerFactory):  # type: ignore[misc]
    """Makes connections, and holds what they share."""

    log: ClassVar[_Silence] = _Silence()
    noisy = False

    def __init__(
        self,
        admission: Admission,
        options: WebSocketOptions,
        reactor: object,
        protocol: type[Connection] = Connection,
    ) -> None:
        super().__init__(server="realtime-server", reactor=reactor)
        self.admission = admission
        self.node = admission.node
        self.options = options
        self.deflater = Deflater()
        if options.compression:
            accept = partial(accept_deflate, max_message=options.max_frame_size)
            self.setProtocolOptions(perMessageCompressionAccept=accept)
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            maxFramePayloadSize=options.max_frame_size,
            maxMessagePayloadSize=options.max_frame_size,
            failByDrop=False,
            echoCloseCodeReason=True,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            tcpNoDelay=True,
            # Origins are judged by `Admission.admit`.
            allowNullOrigin=True,
        )
        # All connections of a factory share its options, so they are the class's.
        namespace: dict[str, Any] = {"__slots__": (), "factory": self}
        for name in protocol.CONFIG_ATTRS:
            option = getattr(self, name)
            namespace[name] = staticmethod(option) if callable(option) else option
        self._connection = type(protocol.__name__, (protocol,), namespace)

    def buildProtocol(self, addr: object) -> Connection:
        """Make a connection."""
        connection: Connection = self._connection()
        return connection
