"""WebSockets for tests: a real server on loopback, and a raw client that may break every rule.

Server and clients share a thread and a reactor of their own, which the test turns by hand; the
node's time is a `Clock`. So nothing sleeps, and what is on its way arrives in a few turns.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from tempfile import NamedTemporaryFile
from time import monotonic
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.http_headers import Headers

from realtime.addresses import Proxies
from realtime.admission import Admission
from realtime.errors import InvalidToken
from realtime.fastpath import FastConnection
from realtime.interfaces import Events
from realtime.model import Identity, Namespace
from realtime.origins import Origins
from realtime.policy import ClientPolicy, WebSocketOptions
from realtime.turns import call_soon_of
from realtime.websocket import Connection, Factory
from tests.support.http import Answer
from tests.support.node import make_node
from tests.support.peers import START, identity_of

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# Seconds of real time after which a test has waited too long.
PATIENCE = 30.0

Text = str | bytes | dict[str, Any]


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes


def frame(
    payload: Text = b"",
    opcode: int = TEXT,
    *,
    final: bool = True,
    masked: bool = True,
    reserved: int = 0,
    key: bytes = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    form: int | None = None,
) -> bytes:
    """A client's frame (RFC 6455 section 5.2), or what is none.

    `length` is the one announced; `form` the length's form: 7, 16 or 64 bits.
    """
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload) if length is None else length
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    small = {7: size, 16: 126, 64: 127}[form]
    head = bytes([final << 7 | reserved << 4 | opcode, masked << 7 | small])
    head += {7: b"", 16: struct.pack("!H", size & 0xFFFF), 64: struct.pack("!Q", size)}[form]
    if not masked:
        return head + payload
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + key + both.to_bytes(len(payload), "big")


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    """A client's Close frame."""
    return frame((b"" if code is None else struct.pack("!H", code)) + reason, CLOSE)


def command(type: str, data: Any = None, **more: Any) -> bytes:
    """A frame with a command."""
    return frame({"type": type, "data": data, **more})


def request_head(
    target: str = "/ws?token=alice",
    headers: dict[str, str | None] | None = None,
    *,
    first: str | None = None,
) -> bytes:
    """A good opening handshake, with headers added, changed or (None) left out."""
    lines: dict[str, str | None] = {
        "Host": "server:8081",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    head = [first or f"GET {target} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return "\r\n".join([*head, "", ""]).encode("latin-1")


def take_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The complete frames in what a server has sent, and what follows them; it breaks no rule."""
    frames = []
    while len(data) >= 2:
        first, length = data[0], data[1]
        start = 2
        if first & 0x70 or not first & 0x80 or length & 0x80:
            raise AssertionError(f"fragment, extension or mask from the server: {data[:2]!r}")
        if length > 125:
            size = 2 if length == 126 else 8
            start += size
            length = int.from_bytes(data[2:start], "big")
            if len(data) < start:
                break
            if length <= (125 if size == 2 else 65535):
                raise AssertionError("the length has not its shortest form")
        if len(data) < start + length:
            break
        if first & 0x0F not in (TEXT, CLOSE, PING, PONG):
            raise AssertionError(f"opcode {first & 0x0F} from the server")
        frames.append(Frame(first & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return frames, data


class RawClient:
    """The other end of one connection: any bytes in any pieces, and a strict reader."""

    def __init__(self, rig: Rig, *, receive_buffer: int | None = None) -> None:
        self.rig = rig
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(rig.address)
        sock.setblocking(False)
        self.port: int = sock.getsockname()[1]
        if rig.tls:
            sock = _client_context().wrap_socket(sock, do_handshake_on_connect=False)
        self._socket = sock
        self.reading = True
        # What is not yet taken; frames once `framed`.
        self.data = b""
        self.framed = False
        self._frames: list[Frame] = []
        # None while connected, else "end" or "reset".
        self.ended: str | None = None
        rig.clients.append(self)
        if rig.tls:
            rig.wait(self._shake_hands)

    def _shake_hands(self) -> bool:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    # -- bytes -------------------------------------------------------------------------------

    def send(self, *pieces: bytes) -> None:
        """Send pieces, each of them served before the next, unless the server has gone."""
        for piece in pieces:
            view = memoryview(piece)
            while view and self.ended is None:
                try:
                    view = view[self._socket.send(view) :]
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except OSError:
                    self.poll()
                    self.ended = self.ended or "reset"
                self.rig.turn()

    def poll(self) -> bool:
        """Read what is there; answer whether that was anything."""
        some = False
        while self.reading and self.ended is None:
            try:
                data = self._socket.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            except ssl.SSLError:  # ended without TLS saying so
                self.ended = "end"
            except OSError:
                self.ended = "reset"
            else:
                if not data:
                    self.ended = "end"
                self.data += data
            some = True
        if self.ended == "end":
            self._socket.close()
        if some and self.framed:
            frames, self.data = take_frames(self.data)
            self._frames += frames
        return some

    def reset(self) -> None:
        """Vanish with a reset, as a dying machine's socket does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abandon()

    def abandon(self) -> None:
        """Close the socket without a word."""
        self.ended = self.ended or "left"
        self._socket.close()

    def finish_writing(self) -> None:
        """Close our half, and read on."""
        socket.socket.shutdown(self._socket, socket.SHUT_WR)

    # -- HTTP --------------------------------------------------------------------------------

    def ask(self, *pieces: bytes) -> Answer:
        """Send a request, and take the answer."""
        self.send(*pieces)
        return self.answer()

    def answer(self) -> Answer:
        """Take one HTTP answer."""
        self.rig.wait(lambda: b"\r\n\r\n" in self.data)
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(": ")
            headers.addRawHeader(name, value)
        status = int(first.split(" ")[1])
        size = int(headers.getRawHeaders("Content-Length", ["0"])[0])
        self.rig.wait(lambda: len(self.data) >= size)
        body, self.data = self.data[:size], self.data[size:]
        if status == 101:
            self.framed = True
            self._frames, self.data = take_frames(self.data)
        return Answer(status, headers, body)

    # -- frames ------------------------------------------------------------------------------

    def open(self, head: bytes | None = None) -> dict[str, Any]:
        """Open the WebSocket, and take the welcome."""
        answer = self.ask(request_head() if head is None else head)
        if answer.status != 101:
            raise AssertionError(f"refused: {answer}")
        welcome: dict[str, Any] = self.message()
        return welcome

    def frames(self, number: int = 1) -> list[Frame]:
        """Take so many frames."""
        self.rig.wait(lambda: len(self._frames) >= number or self.ended is not None)
        taken, self._frames = self._frames[:number], self._frames[number:]
        if len(taken) < number:
            raise AssertionError(f"{self.ended} after {taken}")
        return taken

    def message(self) -> Any:
        """Take a message."""
        (taken,) = self.frames()
        if taken.opcode != TEXT:
            raise AssertionError(f"no message: {taken}")
        return json.loads(taken.payload)

    def messages(self, number: int) -> list[Any]:
        """Take so many messages."""
        return [self.message() for _ in range(number)]

    def close_code(self) -> int | None:
        """Take a Close frame and answer its code, or None where it has none."""
        (taken,) = self.frames()
        if taken.opcode != CLOSE:
            raise AssertionError(f"no Close frame: {taken}")
        return struct.unpack("!H", taken.payload[:2])[0] if taken.payload else None

    def until_close(self) -> tuple[list[Frame], int]:
        """Take all frames up to a Close frame; answer them and its code."""
        self.rig.wait(lambda: self._frames and self._frames[-1].opcode == CLOSE)
        (*taken, last), self._frames = self._frames, []
        return taken, int.from_bytes(last.payload[:2], "big")

    def rest(self) -> list[Frame]:
        """Take all frames to the connection's end."""
        self.rig.wait(lambda: self.ended is not None)
        taken, self._frames = self._frames, []
        return taken

    def pending(self) -> list[Frame]:
        """Take all frames that are here or on their way."""
        self.rig.settle()
        taken, self._frames = self._frames, []
        return taken


class Rig:
    """A server of real parts: node, hub and WebSocket factory, on a loopback port."""

    def __init__(
        self,
        case: SynchronousTestCase | TestCase,
        connection: type[Connection] = FastConnection,
        *,
        tls: bool = False,
        site: Callable[[Rig], Any] | None = None,
        origins: Iterable[str] = ("*",),
        connect_roles: Iterable[str] = (),
        trusted: Iterable[str] = (),
        per_user: int = 0,
        per_address: int = 0,
        token_in_url: bool = True,
        max_connections: int = 1000,
        max_frame_size: int = 65536,
        max_queue_bytes: int = 256 * 1024,
        send_buffer: int | None = None,
        topics: Sequence[Namespace] = (),
        events: Events | None = None,
        **policy: Any,
    ) -> None:
        self.case = case
        self.tls = tls
        self.reactor = EPollReactor()
        self.clock = Clock()
        self.clock.rightNow = START
        quick = issubclass(connection, FastConnection)
        self.node = make_node(
            self.clock,
            call_soon=call_soon_of(self.reactor, quick),
            max_connections=max_connections,
            topics=topics,
            events=events,
        )
        self.counters = self.node.counters
        self.hub = self.node.hub
        self.identities: dict[str, Identity | Exception] = {
            name: identity_of(name) for name in ("alice", "bob", "carol")
        }
        options: dict[str, Any] = {
            "message_rate": 1e6,
            "message_burst": 1e6,
            "byte_rate": 1 << 40,
            "max_subscriptions": 100,
            "max_topics": 1000,
            "heartbeat_interval": 30,
            "client_timeout": 60,
            "max_frame_size": max_frame_size,
            "max_reply": 1 << 19,
            "on_token_expiry": "close",
        }
        admission = Admission(
            self.node,
            ClientPolicy(authenticate=self._authenticate, **(options | policy)),
            Origins(origins),
            frozenset(connect_roles),
            proxies=Proxies(trusted),
            per_user=per_user,
            per_address=per_address,
            token_in_url=token_in_url,
        )
        self.factory = Factory(
            admission, WebSocketOptions(max_frame_size, max_queue_bytes), self.reactor, connection
        )
        self.clients: list[RawClient] = []
        served = self.factory if site is None else site(self)
        if tls:
            served = TLSMemoryBIOFactory(_server_context(), False, served, clock=self.reactor)
        self._port = self.reactor.listenTCP(0, served, interface="127.0.0.1")
        if send_buffer is not None:
            self._port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.address = ("127.0.0.1", self._port.getHost().port)
        case.addCleanup(self.end)

    def _authenticate(self, token: str) -> Identity:
        found = self.identities.get(token) or InvalidToken()
        if isinstance(found, Exception):
            raise found
        return found

    # -- clients -----------------------------------------------------------------------------

    def client(self, **options: Any) -> RawClient:
        """Connect without a word."""
        return RawClient(self, **options)

    def connect(self, user: str = "alice", **options: Any) -> RawClient:
        """Open a WebSocket of a user, and take the welcome."""
        client = self.client(**options)
        client.open(request_head(f"/ws?token={user}"))
        return client

    def subscriber(self, user: str, topic: str = "news", **options: Any) -> RawClient:
        """Open a WebSocket of a user that has subscribed to a topic."""
        client = self.connect(user, **options)
        client.send(command("Subscribe", {"topics": [topic]}))
        client.message()
        return client

    def served(self, user: str) -> Connection:
        """The server's end of a user's only connection."""
        (peer,) = self.hub.connections_of(user)
        connection: Connection = peer.transport  # type: ignore[attr-defined]
        return connection

    def held(self, connection: Connection) -> int:
        """Bytes that wait in the server for a client to read."""
        transport: Any = connection.transport
        held = 0
        if self.tls:
            held = sum(map(len, transport._appSendBuffer))
            transport = transport.transport
        held += len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return held + (connection._queue.size if connection._queue is not None else 0)

    # -- turns and time ----------------------------------------------------------------------

    def turn(self, wait: float = 0.0) -> bool:
        """One turn of the server and of the clients; answer whether a client has read."""
        self.reactor.iterate(wait)
        return sum(client.poll() for client in self.clients) > 0

    def wait(self, condition: Callable[[], object]) -> None:
        """Turn until `condition` holds."""
        end = monotonic() + PATIENCE
        while not condition():
            if not self.turn() and not condition():
                self.turn(0.001)
            if monotonic() > end:
                raise AssertionError("waited too long")

    def settle(self) -> None:
        """Turn until nothing is on its way."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self.turn(0.001 if quiet else 0) else quiet + 1

    def pass_seconds(self, seconds: int) -> None:
        """Let time pass, with a tick a second as the service has."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.node.advance()
            self.settle()

    # -- the end -----------------------------------------------------------------------------

    def end(self) -> None:
        """Let every client go; then nothing may be left of any, nor of any timer."""
        for client in self.clients:
            client.abandon()
        self._port.stopListening()
        try:
            self.wait(lambda: not self.streams())
            self.settle()
            left = {
                "connections": self.counters.active_connections,
                "in the hub": len(self.hub),
                "subscriptions": self.counters.subscriptions,
                "topics": len(self.hub.topics()),
                "deadlines": len(self.node.deadlines),
                "timers": len(self.reactor.getDelayedCalls()),
            }
            self.case.assertEqual(left, dict.fromkeys(left, 0))
        finally:
            dispose(self.reactor)

    def streams(self) -> int:
        """How many sockets the server has, its port included."""
        everything = {*self.reactor.getReaders(), *self.reactor.getWriters()}
        return len(everything - self.reactor._internalReaders)


def dispose(reactor: Any) -> None:
    """Close what a reactor keeps open for itself; collecting it would not."""
    reactor.fireSystemEvent("shutdown")
    for reader in list(reactor._internalReaders):
        reactor._internalReaders.discard(reader)
        reactor.removeReader(reader)
        with suppress(Exception):
            reader.connectionLost(None)
    if isinstance(reactor, EPollReactor):
        reactor._poller.close()


@cache
def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


@cache
def _server_context() -> CertificateOptions:
    certificate, key = _certificate()
    return CertificateOptions(
        privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, key),
        certificate=crypto.load_certificate(crypto.FILETYPE_PEM, certificate),
    )


@cache
def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with NamedTemporaryFile() as file:
        file.write(_certificate()[0])
        file.flush()
        context.load_verify_locations(file.name)
    return context


# -- running a behaviour on every path ---------------------------------------------------------


class OnPath(TestCase):
    """A behaviour on one of the two connection classes, over plain TCP or TLS."""

    connection: type[Connection]
    tls: bool

    def rig(self, **options: Any) -> Rig:
        """Make a server."""
        return Rig(self, self.connection, tls=self.tls, **options)


def on_every_path(*behaviours: type, tls: bool = True) -> dict[str, type[OnPath]]:
    """Test cases of behaviours on both connection classes, over TCP and (`tls`) TLS."""
    return dict(_on_every_path(behaviours, (False, True) if tls else (False,)))


def _on_every_path(
    behaviours: Iterable[type], layers: Iterable[bool]
) -> Iterator[tuple[str, type[OnPath]]]:
    for behaviour in behaviours:
        for connection in (Connection, FastConnection):
            for tls in layers:
                path = "Fast" if connection is FastConnection else "Public"
                name = f"{behaviour.__name__}{path}{'Tls' if tls else 'Tcp'}Tests"
                attributes = {
                    "__module__": behaviour.__module__,
                    "__doc__": behaviour.__doc__,
                    "connection": connection,
                    "tls": tls,
                }
                yield name, type(name, (behaviour, OnPath), attributes)
