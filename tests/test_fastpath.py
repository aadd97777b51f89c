"""Tests for `realtime.fastpath`: that it cannot be told from the public path, and what is its own.

What the two connection classes have in common is tested on both in `test_websocket`.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from realtime import fastpath
from realtime.errors import CloseCode
from realtime.fastpath import FastConnection, connection_class
from realtime.peer import Client
from realtime.websocket import Connection
from tests.support import strategies  # noqa: F401 - its profile
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Rig,
    close_frame,
    command,
    frame,
    request_head,
)
from tests.support.without import Without

LIMIT = 65536

# -- streams of frames -------------------------------------------------------------------------


class Said(NamedTuple):
    """Bytes that a client sends, and what a server makes of them."""

    data: bytes
    messages: tuple[bytes, ...] = ()
    pongs: tuple[bytes, ...] = ()
    # Where the server closes.
    code: int | None = None


keys = st.binary(min_size=4, max_size=4) | st.just(bytes(4))
sizes = st.sampled_from([0, 1, 60, 124, 125, 126, 127, 128, 300, 65535, 65536]) | st.integers(
    0, 400
)


def _sized(text: bytes, size: int) -> bytes:
    """JSON text made so long with white space, where it is shorter."""
    return text + b" " * (size - len(text))


texts = st.one_of(
    st.builds(
        lambda id, size: _sized(json.dumps({"type": "Ping", "id": id}).encode(), size),
        st.integers(0, 99) | st.text(st.sampled_from("aé€𝄞"), max_size=5),
        sizes,
    ),
    st.builds(
        lambda payload, id: json.dumps(
            {"type": "Broadcast", "id": id, "data": {"topic": "news", "payload": payload}},
            ensure_ascii=False,
        ).encode(),
        st.text(max_size=30) | st.integers(),
        st.none() | st.integers(0, 99),
    ),
    st.just(b'{"type":"Subscribe","data":{"topics":["news"]}}'),
    st.text(max_size=150).map(str.encode),
    st.just(b""),
)
whole_messages = st.builds(lambda text, key: Said(frame(text, key=key), (text,)), texts, keys)
pings = st.builds(
    lambda payload, key: Said(frame(payload, PING, key=key), (), (payload,)),
    st.binary(max_size=125),
    keys,
)
pongs = st.builds(lambda payload: Said(frame(payload, PONG)), st.binary(max_size=125))


@st.composite
def fragmented_messages(draw: st.DrawFn) -> Said:
    """A message in fragments, cut anywhere, with control frames between them."""
    text = draw(texts)
    ends = sorted({0, *draw(st.lists(st.integers(0, min(len(text), 300)), max_size=4))})
    parts = [text[a:b] for a, b in pairwise([*ends, len(text)])]
    data, answered = b"", []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        data += frame(part, CONTINUATION if number else TEXT, final=last, key=draw(keys))
        if not last and draw(st.booleans()):
            between = draw(pings | pongs)
            data += between.data
            answered += between.pongs
    return Said(data, (text,), tuple(answered))


_not_utf8 = st.sampled_from(
    [b"\xff", b"ab\x80", b"\xc3", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"]
)
good = whole_messages | whole_messages | fragmented_messages() | pings | pongs
bad = st.one_of(
    st.builds(
        lambda text, size: Said(frame(b"x" * size + text), code=1007),
        _not_utf8,
        st.integers(0, 300),
    ),
    st.builds(
        lambda text: Said(frame(b"a", final=False) + frame(text, CONTINUATION), code=1007),
        _not_utf8,
    ),
    st.sampled_from(
        [
            Said(frame(b"{}", masked=False), code=1002),
            Said(frame(b"", masked=False), code=1002),
            Said(frame(b"{}", CONTINUATION), code=1002),
            Said(frame(b"a", final=False) + frame(b"{}", TEXT), code=1002),
            Said(frame(b"", PING, final=False), code=1002),
            Said(frame(b"x" * 126, PING), code=1002),
            Said(frame(b"x" * 125, form=16), code=1002),
            Said(frame(b"", form=16), code=1002),
            Said(frame(b"x" * 65535, form=64), code=1002),
            Said(frame(b"{}", BINARY), code=1003),
            Said(frame(b"", BINARY, final=False), code=1003),
            Said(frame(b" " * (LIMIT + 1)), code=1009),
            Said(frame(b"", length=LIMIT + 1), code=1009),
            Said(frame(b"", length=1 << 62), code=1009),
            Said(frame(b" " * LIMIT, final=False) + frame(b" ", CONTINUATION), code=1009),
            Said(close_frame(1000), code=1000),
            Said(close_frame(4321, b"bye"), code=4321),
            Said(close_frame(1005), code=1002),
            Said(frame(b"\x03", CLOSE), code=1002),
            Said(close_frame(1000, b"\xff"), code=1007),
        ]
    ),
    st.builds(
        lambda opcode: Said(frame(b"{}", opcode), code=1002),
        st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]),
    ),
    st.builds(
        lambda reserved, opcode: Said(frame(b"{}", opcode, reserved=reserved), code=1002),
        st.integers(1, 7),
        st.sampled_from([TEXT, PING, CLOSE]),
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Said, list[bytes]]:
    """Good frames, perhaps a bad one and what follows it, all together in pieces."""
    said = draw(st.lists(good, max_size=8))
    if draw(st.booleans()):
        said.append(draw(bad))
    meant = Said(
        b"".join(each.data for each in said),
        tuple(text for each in said for text in each.messages),
        tuple(payload for each in said for payload in each.pongs),
        said[-1].code if said else None,
    )
    data = meant.data
    if meant.code is not None:
        data += b"".join(each.data for each in draw(st.lists(good | bad, max_size=2)))
    return meant, draw(pieces_of(data))


def boundaries(data: bytes) -> list[int]:
    """Where masked frames end."""
    ends = [0]
    while len(data) - ends[-1] >= 14:
        start = ends[-1]
        size = data[start + 1] & 127
        if size == 126:
            size = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        elif size == 127:
            size = 8 + int.from_bytes(data[start + 2 : start + 10], "big")
        ends.append(start + 6 + size)
    return [end for end in ends if end <= len(data)]


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes in pieces: cut between frames or anywhere, now and then byte by byte."""
    positions = st.integers(0, len(data))
    cuts = set(draw(st.lists(st.sampled_from(boundaries(data)) | positions, max_size=8)))
    if draw(st.booleans()):
        start = draw(positions)
        cuts |= set(range(start, min(start + 20, len(data))))
    return [data[a:b] for a, b in pairwise(sorted({0, len(data), *cuts})) if a < b]


noise = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda more: b"\x81" + more),
    st.builds(
        lambda said, at, byte: (
            said.data[: at % (len(said.data) or 1)]
            + bytes([byte])
            + said.data[at % (len(said.data) or 1) + 1 :]
        ),
        good,
        st.integers(0, 200),
        st.integers(0, 255),
    ),
    good.map(lambda said: said.data),
    bad.map(lambda said: said.data),
)


# The messages obeyed, the answers, the end.
Heard: TypeAlias = tuple[list[bytes], list[Frame], str | None]


class Twin:
    """A server on one of the two classes, which notes what its clients get to obey."""

    def __init__(self, case: SynchronousTestCase, connection: type[Connection]) -> None:
        self.rig = Rig(case, connection)
        self.messages: list[bytes] = []

    def hear(self, pieces: list[bytes]) -> Heard:
        """What becomes of these pieces: the messages obeyed, the answers, the end."""
        self.messages.clear()
        rig = self.rig
        client = rig.connect()
        served = rig.served("alice")
        for piece in pieces:
            # What a closing transport would still read, it would not deliver.
            if not served.transport.disconnecting:
                served.dataReceived(piece)
            rig.turn()
            rig.turn()
        frames = client.pending()
        ended = client.ended
        client.abandon()
        rig.wait(lambda: not rig.counters.active_connections)
        rig.clients.clear()
        return list(self.messages), frames, ended


class EquivalenceTests(SynchronousTestCase):
    """The quick class and the public one, whose parser is Autobahn's own, side by side."""

    def setUp(self) -> None:
        """Make a server of each kind."""
        self.twins = [Twin(self, connection) for connection in (Connection, FastConnection)]
        heard = {id(twin.rig.node): twin.messages for twin in self.twins}
        receive = Client.receive

        def note(client: Client, message: bytes) -> None:
            heard[id(client.node)].append(bytes(message))
            receive(client, message)

        self.patch(Client, "receive", note)

    def assert_alike(self, pieces: list[bytes]) -> Heard:
        """Both make the same of these pieces; answer what the quick one makes of them."""
        public, quick = (twin.hear(pieces) for twin in self.twins)
        self.assertEqual(quick[:2], public[:2])
        # After its own Close the quick one reads over violations, until the other side's Close
        # or the deadline; Autobahn ends at once.
        closing = any(taken.opcode == CLOSE for taken in quick[1])
        self.assertIn(quick[2], {public[2], None} if closing else {public[2]})
        return quick

    @settings(max_examples=250)
    @given(conversations())
    def test_any_split(self, conversation: tuple[Said, list[bytes]]) -> None:
        """However a stream is cut, both obey what was said before a violation, and close alike."""
        meant, pieces = conversation
        messages, frames, ended = self.assert_alike(pieces)
        self.assertEqual(messages, list(meant.messages))
        self.assertEqual(
            [taken.payload for taken in frames if taken.opcode == PONG], list(meant.pongs)
        )
        closes = [taken.payload for taken in frames if taken.opcode == CLOSE]
        if meant.code is None:
            self.assertEqual((closes, ended), ([], None))
        else:
            self.assertEqual([struct.unpack("!H", close[:2])[0] for close in closes], [meant.code])
            self.assertEqual(frames[-1].opcode, CLOSE)

    @settings(max_examples=250)
    @given(st.lists(noise, max_size=5).map(b"".join).flatmap(pieces_of))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """Arbitrary bytes raise nothing, log nothing, and end in codes that are documented."""
        _, frames, ended = self.assert_alike(pieces)
        closes = [taken.payload for taken in frames if taken.opcode == CLOSE]
        self.assertLessEqual(len(closes), 1)
        if closes and closes[0]:
            (code,) = struct.unpack("!H", closes[0][:2])
            echoed = 3000 <= code < 5000 or code in (*range(1000, 1004), *range(1007, 1012), 1013)
            self.assertTrue(echoed or code in set(CloseCode), code)
        if ended is not None:
            self.assertTrue(closes)


class _MemoryTransport(StringTransport):
    def unregisterProducer(self) -> None:
        """Do nothing where there is none, as real transports."""
        self.producer = None


class HandshakeNoiseTests(SynchronousTestCase):
    """Opening handshakes that are none."""

    documented = {101, 400, 401, 403, 405, 426, 431, 503, 505}

    def setUp(self) -> None:
        """Make a server of each kind."""
        self.rigs = [Rig(self, connection) for connection in (Connection, FastConnection)]

    def answer(self, rig: Rig, pieces: list[bytes]) -> tuple[int | None, bytes]:
        """The status and the rest of what is answered, on a connection that then ends."""
        transport = _MemoryTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 40000))
        connection = rig.factory.buildProtocol(None)
        connection.makeConnection(transport)
        for piece in pieces:
            if not transport.disconnecting:
                connection.dataReceived(piece)
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(rig.node.deadlines), 0)
        self.assertEqual(rig.counters.active_connections, 0)
        first, _, rest = transport.value().partition(b"\r\n")
        return (int(first.split(b" ")[1]), rest) if first else (None, rest)

    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 220),
                st.integers(0, 12),
                st.binary(max_size=8) | st.sampled_from([b"\r\n", b": ", b",", b";", b'"', b"="]),
            ),
            max_size=4,
        ),
        st.sampled_from(
            ["permessage-deflate", "permessage-deflate; server_max_window_bits=x", "a"]
        ),
        st.data(),
    )
    def test_any_bytes(
        self, changes: list[tuple[int, int, bytes]], extension: str, data: st.DataObject
    ) -> None:
        """A head changed anywhere raises nothing, and is answered alike, with the envelope."""
        headers = {"Origin": "http://a.b", "Sec-WebSocket-Extensions": extension}
        head = request_head(headers=headers)
        for at, removed, added in changes:
            head = head[:at] + added + head[at + removed :]
        pieces = data.draw(pieces_of(head))
        public, quick = (self.answer(rig, pieces) for rig in self.rigs)
        self.assertEqual(quick[0], public[0])
        status, rest = quick
        if status is None:
            self.assertNotIn(b"\r\n\r\n", head)
            return
        self.assertIn(status, self.documented)
        if status != 101:
            self.assertEqual(rest, public[1])
            body = json.loads(rest.partition(b"\r\n\r\n")[2])
            self.assertEqual(list(body["error"]), ["code", "message", "details"])

    @settings(max_examples=100)
    @given(st.binary(max_size=200).flatmap(pieces_of))
    def test_no_head_at_all(self, pieces: list[bytes]) -> None:
        """Nor do bytes that have nothing to do with HTTP."""
        for rig in self.rigs:
            status, _ = self.answer(rig, pieces)
            self.assertIn(status, {None, 400, 405})


# -- writing -----------------------------------------------------------------------------------


class WritingTests(SynchronousTestCase):
    """The quick class writes to the socket itself where it can."""

    def test_past_the_transport(self) -> None:
        """While nothing is held back, messages do not go through the transport at all."""
        rig = Rig(self)
        alice, bob = rig.subscriber("alice"), rig.subscriber("bob")
        for user in ("alice", "bob"):
            served: Any = rig.served(user)
            self.patch(served.transport, "write", lambda data: self.fail(f"written: {data!r}"))
        for n in range(3):
            alice.send(command("Broadcast", {"topic": "news", "payload": n}, id=n))
            alice.send(frame(b"x", PING))
            self.assertEqual(
                [taken.opcode for taken in alice.frames(3)], [TEXT, TEXT, PONG], "in this order"
            )
            self.assertEqual(bob.message()["data"]["payload"], n)

    def test_through_the_transport(self) -> None:
        """Over TLS everything does."""
        rig = Rig(self, tls=True)
        alice = rig.connect()
        served: Any = rig.served("alice")
        written = []
        self.patch(served._queue, "_write", written.append)
        alice.send(command("Ping", id=1))
        self.assertEqual(len(written), 1)
        self.assertEqual(alice.pending(), [])

    def test_back_to_the_socket(self) -> None:
        """After a queue has been read empty, the socket is written to again."""
        rig = Rig(self, send_buffer=4096, max_queue_bytes=1 << 20)
        bob = rig.subscriber("bob", receive_buffer=4096)
        alice = rig.connect()
        served: Any = rig.served("bob")
        direct = served.client.send
        bob.reading = False
        number = 0
        while not rig.held(served):
            alice.send(command("Broadcast", {"topic": "news", "payload": "x" * 3000}))
            number += 1
        self.assertNotEqual(served.client.send, direct)
        bob.reading = True
        bob.frames(number)
        alice.send(command("Broadcast", {"topic": "news", "payload": "last"}))
        self.assertEqual(bob.message()["data"]["payload"], "last")
        self.assertEqual(served.client.send, direct)

    def test_nothing_of_the_handshake_is_kept(self) -> None:
        """An open connection holds neither the request nor the token."""
        rig = Rig(self)
        rig.connect()
        served = rig.served("alice")
        self.assertEqual(vars(served), {})
        self.assertEqual(served.data, b"")
        self.assertIsNone(served._response)


# -- choosing ----------------------------------------------------------------------------------


class ChoiceTests(SynchronousTestCase):
    """What is served with, and when not."""

    def assert_fallback(self, named: str) -> None:
        """The public class is chosen, with one warning that names the reason."""
        with capturedLogs() as events:
            self.assertIs(connection_class(), Connection)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn(named, event["problems"])

    def test_quick_here(self) -> None:
        """Here all is as expected, and nothing is said of it."""
        with capturedLogs() as events:
            self.assertIs(connection_class(), FastConnection)
        self.assertEqual(events, [])

    def test_not_allowed(self) -> None:
        """Where it is not wanted the public class is chosen, in silence."""
        with capturedLogs() as events:
            self.assertIs(connection_class(False), Connection)
        self.assertEqual(events, [])

    def test_missing_name(self) -> None:
        """A private name that is gone turns the quick path off."""
        for owner, names in fastpath._EXPECTED.items():
            for name in names:
                with Without(owner, name):
                    self.assert_fallback(f"{owner.__name__}.{name}")

    def test_renamed_attribute(self) -> None:
        """So does an attribute of transports that has another name now."""

        def __init__(self: Any) -> None:
            self.renamed = 1

        for owner, name in ((FileDescriptor, "_tempDataLen"), (tcp.Connection, "socket")):
            patch = self.patch(owner, "__init__", __init__)
            self.assert_fallback(name)
            patch.restore()

    def test_new_attribute(self) -> None:
        """So does an attribute that Autobahn sets and the quick class has no default for."""

        def _connectionMade(self: Any) -> None:
            self.state = 1
            self.brandNew = 2

        self.patch(WebSocketProtocol, "_connectionMade", _connectionMade)
        self.assert_fallback("brandNew")

    def test_no_masker(self) -> None:
        """So does a missing C masker."""
        self.patch(fastpath, "apply_mask", None)
        self.assert_fallback("websockets.speedups")
