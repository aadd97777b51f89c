"""The quick twin of `websocket.Connection`. It and `turns.py` touch private names.

It changes nothing that a client can see. What it saves, and how, is DESIGN section 7: frames
are read and written here where that is plain, and handed to Autobahn where it is not; an open
connection keeps a handful of attributes. `connection_class` looks whether Twisted and Autobahn
are as this module expects, and answers the public twin with a warning where they are not.
"""

from __future__ import annotations

import dis
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet import abstract, tcp, unix
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.frames import skip_to_close
from realtime.model import Piece
from realtime.peer import Client
from realtime.send_queue import SendQueue
from realtime.websocket import Connection

try:
    from websockets.speedups import apply_mask
except ImportError:  # the C masker could not be built
    apply_mask = None  # type: ignore[assignment]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_CLOSING = WebSocketProtocol.STATE_CLOSING
_CLOSED = WebSocketProtocol.STATE_CLOSED
_FINAL_TEXT = 0x81
_MASKED = 0x80
# Payload lengths up to 125 stand in the second byte; 126 there announces sixteen bits.
_SMALL = 125
_MEDIUM = 126
_PING = b"\x89\x00"
# What is kept of a handshake that has agreed on it.
_COMPRESSION = ("_perMessageCompress", "websocket_extensions_in_use")


class _Ignored:
    """Stands for Autobahn's two Deferreds a connection, on which nobody waits."""

    def callback(self, value: object) -> None:
        """Ignore the value."""


class _SlowQueue(SendQueue):
    """The queue of a plain socket."""

    __slots__ = ()


class FastConnection(Connection):
    """One WebSocket that reads and writes plain text frames itself.

    Autobahn sets some fifty attributes on each connection; here they are defaults of the
    class, and those that the handshake leaves behind are dropped when it is done.
    """

    __slots__ = (
        "_deadline",
        "_queue",
        "_response",
        "client",
        "connected",
        "data",
        "state",
        "transport",
    )

    is_open = is_closed = _Ignored()
    trafficStats = TrafficStats()
    _valid_events = ("message",)
    _perMessageCompress = None
    websocket_extensions_in_use = ()
    trackedTimings = None
    websocket_version = 13
    send_state = WebSocketProtocol.SEND_STATE_GROUND
    send_queue = ()
    triggered = False
    wasMaxFramePayloadSizeExceeded = wasMaxMessagePayloadSizeExceeded = False
    closedByMe = failedByMe = droppedByMe = wasClean = False
    wasNotCleanReason = None
    wasServerConnectionDropTimeout = wasOpenHandshakeTimeout = wasCloseHandshakeTimeout = False
    wasServingFlashSocketPolicyFile = False
    localCloseCode = localCloseReason = remoteCloseCode = remoteCloseReason = None
    openHandshakeTimeoutCall = closeHandshakeTimeoutCall = None
    autoPingTimeoutCall = autoPingPending = autoPingPendingCall = None
    autoPingPendingSeq = 0
    autoPingPendingSent = None
    serverConnectionDropTimeoutCall = None
    inside_message = False
    current_frame = None

    def __init__(self) -> None:
        # Autobahn's would make Deferreds and transport details.
        self.client: Client | None = None
        self.connected = 0
        self.data = b""
        self.state = _CONNECTING
        self._deadline = 0
        self._queue = None
        # The handshake's answer, until it goes out with the first message.
        self._response: bytes | None = None

    @cached_property
    def utf8validator(self) -> Any:
        """Made when Autobahn reads a text message, which it rarely does."""
        return Utf8Validator()

    def connectionMade(self) -> None:
        """Start the handshake, without Autobahn's copying and describing of options."""
        self._begin()
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # a unix socket
            pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the node, without Autobahn's describing of the reason."""
        self.state = _CLOSED
        self._end()

    def _onOpen(self) -> None:
        self.onOpen()
        # What the handshake has left goes: the request, its headers, the token.
        left = self.__dict__
        self.__dict__ = {name: left[name] for name in _COMPRESSION if left.get(name)}

    # -- reading -----------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Obey plain text frames; leave all from the first other one to Autobahn.

        Plain is what is final, masked, complete, in its shortest encoding, not too large, and
        comes while nothing is pending.
        """
        client = self.client
        if client is None:
            super().dataReceived(data)
            return
        node = self.factory.node
        # As `took`, whose call every read would pay for.
        if client.heard == node.tick:
            client.received += len(data)
        else:
            client.heard = node.tick
            client.received = len(data)
        if client.received > client.policy.byte_rate and client.took(0):
            node.hub.rest(self)
        if self.current_frame is None:
            if self.data:
                data = self.data + data
                self.data = b""
            if self.state == _OPEN and not self.inside_message:
                data = self._obey(client, data)
            if self.state == _CLOSING:
                self.data, data = skip_to_close(data)
        if data:
            self._feed(data)
        if node.hub.congested:
            node.hub.hold(self)

    def _obey(self, client: Client, data: bytes) -> bytes:
        """Obey the plain frames that `data` begins with; answer what is for Autobahn."""
        start = 0
        end = len(data)
        while end - start >= 6 and data[start] == _FINAL_TEXT:
            size = data[start + 1] - _MASKED
            payload = start + 6
            if size == _MEDIUM and end - start >= 8:
                size = data[start + 2] << 8 | data[start + 3]
                payload = start + 8
                if size <= _SMALL:
                    break
            elif not 0 <= size <= _SMALL:
                break
            stop = payload + size
            if size > self.maxMessagePayloadSize:
                break
            if stop > end:
                # Its rest will come. A frame that comes alone in pieces is Autobahn's, which
                # fails it at the first byte that is no UTF-8.
                if start and apply_mask(data[payload:], data[payload - 4 : payload]).isascii():
                    self.data = data[start:]
                    return b""
                break
            message = apply_mask(data[payload:stop], data[payload - 4 : payload])
            if not message.isascii() and not _is_utf8(message):
                break
            start = stop
            client.receive(message)
            if self.state != _OPEN:
                break
        return data[start:] if start else data

    def _feed(self, data: bytes) -> None:
        """Let Autobahn read, without its describing of what came."""
        if self.state != _CLOSED:
            self._dataReceived(data)

    # -- writing -----------------------------------------------------------------------------

    def _watch_queue(self) -> None:
        """Have the producer interface tell where the transport's own buffers do not."""
        transport = self.transport
        plain = (
            isinstance(transport, tcp.Server)
            and not isinstance(transport, unix.Server)
            and not transport.TLS
        )
        # An HTTP answer may still be on its way.
        if not plain or transport.dataBuffer or transport._tempDataLen:
            response, self._response = self._response, None
            transport.write(response)
        if not plain:
            super()._watch_queue()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write for Autobahn; what it answers to an accepted handshake waits for `send`."""
        if self.client is None and self._refusal is None:
            self._response = data
        else:
            super().sendData(data, sync, chopsize)

    def send(self, data: bytes) -> int:
        """Write to the socket, or after what the transport holds back already.

        While nothing is held back the client writes to the socket itself, which costs one
        system call where the transport's `write` would cost four.
        """
        transport, queue = self.transport, self._queue
        if type(queue) is SendQueue:
            return queue.send(data)
        size = len(data)
        if len(transport.dataBuffer) == transport.offset and not transport._tempDataLen:
            if queue is not None:
                transport.unregisterProducer()
                self._queue = None
            if self._response is not None:
                data = self._response + data
                self._response = None
            try:
                sent = transport.socket.send(data)
            except OSError:  # would block, or the connection is lost: the transport will tell
                sent = 0
            if sent == len(data):
                self.client.send = transport.socket.send  # type: ignore[union-attr]
                return size
            data = data[sent:]
        return size if self._slow_queue().send(data) else 0

    def ping(self) -> None:
        """Send an empty Ping."""
        self.sendData(_PING)

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """Let wait what the socket did not take."""
        if self.client is not None and self.state == _OPEN:
            self._slow_queue()
            if not self.websocket_extensions_in_use:
                self.client.send = self.send
            super().unsent(data, sent, pieces)

    def _slow_queue(self) -> SendQueue:
        """The queue, which a plain socket has only while its client reads slowly."""
        queue = self._queue
        if queue is None:
            counters, limit = self.factory.node.counters, self.factory.options.max_queue_bytes
            queue = self._queue = _SlowQueue(self.transport.write, limit, counters)
            self.transport.registerProducer(queue, True)
        return queue


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def connection_class(allow: bool = True) -> type[Connection]:
    """The class of connections to serve with: the quick one where all is as it expects.

    With `allow` false it is the one on the public interface.
    """
    if not allow:
        return Connection
    problems = [
        f"{owner.__name__}.{name}"
        for owner, names in _EXPECTED.items()
        for name in names
        if not hasattr(owner, name)
    ]
    problems += sorted({"_tempDataLen"} - _set_by(abstract.FileDescriptor.__init__))
    problems += sorted({"socket"} - _set_by(tcp.Connection.__init__))
    problems += sorted(_set_by(WebSocketProtocol._connectionMade) - set(dir(FastConnection)))
    if apply_mask is None:
        problems.append("websockets.speedups")
    if problems:
        _log.warn(
            "The fast path is off: this installation differs in {problems}",
            problems=", ".join(problems),
        )
        return Connection
    return FastConnection


_EXPECTED: dict[Any, tuple[str, ...]] = {
    abstract.FileDescriptor: ("dataBuffer", "offset", "startWriting", "writeSomeData"),
    tcp.Server: ("TLS", "getHandle"),
    WebSocketProtocol: ("_dataReceived", "processData", "sendData", "consumeData"),
    WebSocketAdapterProtocol: ("_onOpen",),
}


def _set_by(method: Any) -> set[str]:
    """The attributes that a method sets, for which there has to be a default here."""
    return {step.argval for step in dis.get_instructions(method) if step.opname == "STORE_ATTR"}
