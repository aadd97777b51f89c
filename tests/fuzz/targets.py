"""What is fuzzed: each target raises where something is not as it has to be."""

from __future__ import annotations

import json
import math
import struct
import sys
from types import SimpleNamespace
from typing import Any

import atheris
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from realtime.envelope import BadCommand, Broadcast, decode_command, encode_broadcast, read_id
from realtime.fastpath import FastConnection
from realtime.model import Publication
from realtime.origins import Origins
from realtime.policy import WebSocketOptions
from realtime.websocket import Connection, Factory
from tests.support.node import make_node

MAX_SIZE = 2048
_HANDSHAKE = (
    b"GET /ws?token=t HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
_DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class _Transport(StringTransport):
    def unregisterProducer(self) -> None:
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class _Recorder:
    """Stands where `peer.Client` does, and keeps what it receives."""

    is_open = True
    heard = received = 0
    policy = SimpleNamespace(byte_rate=sys.maxsize)

    def __init__(self, transport: Connection) -> None:
        self.send = transport.send
        self.messages: list[bytes] = []

    def open(self) -> None:
        self.send(b"")

    def receive(self, message: bytes) -> None:
        message.decode("utf-8")
        self.messages.append(bytes(message))

    def took(self, size: int) -> bool:
        return False

    def charge(self) -> bool:
        return True

    def mute(self) -> None:
        self.is_open = False
        self.send = len

    def closed(self, code: int) -> None:
        self.mute()


class _Admission:
    asks = False
    token_in_url = True
    origins = Origins(["*"])

    def __init__(self) -> None:
        self.node = make_node(Clock())
        self.node.hub.finish = lambda client: None  # type: ignore[method-assign]
        self.client_of: _Recorder

    def admit(self, *_: Any) -> Any:
        return object()

    def network(self, *_: Any) -> str:
        return ""

    def leave(self, client: _Recorder) -> None:
        pass

    def client(self, transport: Connection, *_: object) -> _Recorder:
        self.client_of = _Recorder(transport)
        return self.client_of


def _factory(connection: type[Connection]) -> tuple[Factory, _Admission]:
    admission: Any = _Admission()
    options = WebSocketOptions(MAX_SIZE, 1 << 20, compression=True)
    return Factory(admission, options, Clock(), connection), admission


_FACTORIES = [_factory(connection) for connection in (Connection, FastConnection)]


def receive(data: bytes) -> None:
    """The quick path and Autobahn's own parser receive the same messages, and answer alike."""
    provider = atheris.FuzzedDataProvider(data)
    compressed = provider.ConsumeBool()
    stream = b"".join(_frames(provider))
    cuts = sorted(provider.ConsumeIntListInRange(4, 0, max(1, len(stream))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    public, quick = (_talk(factory, pieces, compressed) for factory in _FACTORIES)
    assert public == quick, (pieces, public, quick)


def _frames(provider: Any) -> list[bytes]:
    """Frames that are nearly good, and bytes that are none."""
    frames = []
    for _ in range(provider.ConsumeIntInRange(1, 6)):
        kind = provider.ConsumeIntInRange(0, 9)
        if kind == 0:
            frames.append(provider.ConsumeBytes(20))
            continue
        first = 0x81 if kind < 6 else provider.ConsumeIntInRange(0, 255)
        payload = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 300))
        if kind == 9:
            payload = payload * 12
        mask = provider.ConsumeBytes(4).ljust(4, b"\0")
        size = len(payload)
        if size < 126 and kind != 5:
            head = struct.pack("!BB", first, 0x80 | size)
        elif kind != 8:
            head = struct.pack("!BBH", first, 0xFE, size)
        else:
            head = struct.pack("!BBQ", first, 0xFF, size)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        frames.append(head + mask + masked)
    return frames


def _talk(made: tuple[Factory, _Admission], pieces: list[bytes], compressed: bool) -> Any:
    """What a connection receives and answers."""
    factory, admission = made
    transport = _Transport()
    connection = factory.buildProtocol(None)
    connection.makeConnection(transport)
    connection.dataReceived(_HANDSHAKE % (_DEFLATE if compressed else b""))
    client = admission.client_of
    assert b" 101 " in transport.value()
    transport.clear()
    for piece in pieces:
        if piece and not transport.disconnected:
            connection.dataReceived(piece)
    # How soon after its Close frame the connection ends, bad bytes still coming, may differ.
    answer = transport.value()
    connection.connectionLost(Failure(ConnectionDone()))
    return client.messages, answer


def envelope(data: bytes) -> None:
    """What is taken for a command is JSON, and its payload reaches subscribers unchanged."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:  # which the edges let not through
        return
    try:
        command = decode_command(data)
    except BadCommand:
        read_id(data)
        return
    value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    assert value["type"] == type(command).__name__
    if isinstance(command, Broadcast):
        publication = Publication("a", bytes(command.data.payload), "u", 1)
        sent = json.loads(encode_broadcast(publication), parse_constant=_refuse)
        given, got = value["data"]["payload"], sent["data"]["payload"]
        assert given == got or (_has_nan(given) and _has_nan(got)), (given, got)


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON, and was taken")


def _has_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
