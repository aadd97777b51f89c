"""The server's hot paths in one process, without sockets: every run executes the same code.

Everything between a socket's bytes in and its bytes out is the product's own. In the sockets'
place is `Wire`, which takes all that is written to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import task, tcp
from twisted.internet.protocol import Factory as PlainFactory
from twisted.python.failure import Failure

from realtime.admission import Admission
from realtime.broker_memory import MemoryBroker
from realtime.fastpath import connection_class
from realtime.frames import text_frame
from realtime.hub import Hub
from realtime.metrics import Counters
from realtime.model import User
from realtime.node import Node
from realtime.origins import Origins
from realtime.policy import ClientPolicy, WebSocketOptions
from realtime.presence_memory import MemoryPresence
from realtime.rules import Rules
from realtime.site import Site
from realtime.token_keys import Keys
from realtime.tokens import Tokens
from realtime.websocket import Factory
from realtime.wheel import TimerWheel

NOW = 1_760_000_000.0
SUBSCRIBERS = 50
PAYLOAD = "x" * 128
_MASK = bytes((0x12, 0x34, 0x56, 0x78))
_GONE: Any = Failure(ConnectionError("gone"))  # type: ignore[no-untyped-call]


class Wire(tcp.Server):
    """A transport like the reactor's, whose socket is always ready to take everything."""

    def __init__(self) -> None:
        self.dataBuffer = b""
        self.offset = 0
        self._tempDataLen = 0
        self._tempDataBuffer = []
        self.connected = 1
        self.disconnecting = False
        self.socket: Any = self
        self.send = len
        self.protocol: Any = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no socket to set it on."""

    def write(self, data: bytes) -> None:
        """Take it."""

    def receive(self, data: bytes) -> None:
        """Have the protocol read `data`."""
        self.protocol.dataReceived(data)

    def lose(self) -> None:
        """End the connection from the other side."""
        self.protocol.connectionLost(_GONE)
        self.protocol = None

    def getPeer(self) -> None:
        """Nobody is there."""

    def __repr__(self) -> str:
        return "<Wire>"


def masked(command: str) -> bytes:
    """A client's text frame."""
    frame = text_frame(command.encode())
    size = len(command.encode())
    head = frame[: len(frame) - size]
    body = bytes(byte ^ _MASK[i & 3] for i, byte in enumerate(frame[len(head) :]))
    return bytes((head[0], head[1] | 0x80)) + head[2:] + _MASK + body


def broadcast(topic: str, payload: str = PAYLOAD) -> bytes:
    """A client's Broadcast, framed."""
    return masked(f'{{"type":"Broadcast","data":{{"topic":"{topic}","payload":"{payload}"}}}}')


def subscribe(*topics: str) -> bytes:
    """A client's Subscribe, framed."""
    names = ",".join(f'"{topic}"' for topic in topics)
    return masked(f'{{"type":"Subscribe","data":{{"topics":[{names}]}}}}')


def unsubscribe(*topics: str) -> bytes:
    """A client's Unsubscribe, framed."""
    names = ",".join(f'"{topic}"' for topic in topics)
    return masked(f'{{"type":"Unsubscribe","data":{{"topics":[{names}]}}}}')


class Rig:
    """A server, assembled as `service.py` does it, less stores and HTTP."""

    def __init__(self, *, max_subscriptions: int = 2000) -> None:
        self._soon: list[Callable[[], None]] = []
        clock = task.Clock()
        clock.advance(NOW)
        counters = Counters()
        hub = Hub[Any](counters, self._soon.append)
        deadlines: TimerWheel[Any] = TimerWheel(int(NOW))
        presence = MemoryPresence(deadlines, clock.seconds, grace=5)
        broker = MemoryBroker(clock.seconds)
        self.node = Node(
            broker, presence, hub, Rules(), counters, clock, deadlines, max_connections=1_000_000
        )
        self.tokens = Tokens(Keys(b"k" * 32), now=clock.seconds)
        topics = max_subscriptions
        policy = ClientPolicy(
            *(1e9, 1e9, 1 << 40, topics, topics, 30, 60, 65536, 1 << 19), "close", self._who
        )
        admission = Admission(self.node, policy, Origins(["*"]))
        protocol = connection_class()
        websocket = Factory(admission, WebSocketOptions(65536, 1 << 20), clock, protocol)
        self.protocol = protocol.__name__
        self._site = Site(self.node, websocket, PlainFactory())

    def _who(self, token: str) -> Any:
        return self.tokens.verify_access(token)

    def turn(self) -> None:
        """Do what a turn of the reactor does at its end."""
        while self._soon:
            soon, self._soon[:] = self._soon[:], []
            for function in soon:
                function()

    def request(self, user: str) -> bytes:
        """A handshake with a token of that user."""
        token = self.tokens.issue_access(User(user, f"name-{user}", ("user",), NOW), "session")
        return (
            b"GET /ws HTTP/1.1\r\nHost: localhost:8081\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n"
        )

    def connect(self, request: bytes) -> Wire:
        """Open a connection."""
        wire = Wire()
        wire.protocol = self._site.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        wire.receive(request)
        self.turn()
        return wire


Work = Callable[[int], None]


def fan_out() -> Work:
    """One publication to 50 subscribers, a turn each."""
    rig = Rig()
    for number in range(SUBSCRIBERS):
        rig.connect(rig.request(f"u{number}")).receive(subscribe("topic"))
    rig.turn()
    publisher = rig.connect(rig.request("publisher"))
    frame = broadcast("topic")

    def work(times: int) -> None:
        for _ in range(times):
            publisher.receive(frame)
            rig.turn()

    work(1)
    sent = rig.node.counters.messages_sent
    if sent != SUBSCRIBERS:
        raise RuntimeError(f"{sent} of {SUBSCRIBERS} were sent to")
    return work


def receive() -> Work:
    """Eight Broadcasts in one read, to a topic that the publisher alone subscribes to."""
    rig = Rig()
    peer = rig.connect(rig.request("publisher"))
    peer.receive(subscribe("topic"))
    rig.turn()
    frames = broadcast("topic") * 8

    def work(times: int) -> None:
        for _ in range(times):
            peer.receive(frames)
            rig.turn()

    work(1)
    if rig.node.counters.messages_received != 8:
        raise RuntimeError("not all was received")
    return work


def echo() -> Work:
    """A Ping and its Pong, a turn each."""
    rig = Rig()
    peer = rig.connect(rig.request("user"))
    frame = masked('{"type":"Ping","data":{"timestamp":1760000000000}}')

    def work(times: int) -> None:
        for _ in range(times):
            peer.receive(frame)
            rig.turn()

    work(1)
    return work


def handshake() -> Work:
    """Connect with a token, subscribe, and go."""
    rig = Rig()
    request = rig.request("user")
    frame = subscribe("topic")

    def work(times: int) -> None:
        for _ in range(times):
            wire = rig.connect(request)
            wire.receive(frame)
            rig.turn()
            wire.lose()

    work(1)
    counters = rig.node.counters
    if (counters.total_connections, counters.active_connections) != (1, 0):
        raise RuntimeError("the connection was not taken, or not let go")
    return work


# What is counted, and how often it runs to be counted.
WORKLOADS: dict[str, tuple[Callable[[], Work], int]] = {
    "fan-out": (fan_out, 100),
    "receive": (receive, 50),
    "ping": (echo, 200),
    "handshake": (handshake, 50),
}
