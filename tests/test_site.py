"""Tests for `realtime.site`: one port, on real sockets, in front of both protocols."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site as TwistedSite

from realtime.errors import CloseCode
from realtime.http import HttpSite
from realtime.http_request import HttpLimits
from realtime.site import Site
from tests.support.http import make_api
from tests.support.websocket import (
    PING,
    PONG,
    Frame,
    Rig,
    close_frame,
    command,
    frame,
    on_every_path,
    request_head,
)

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: server\r\n\r\n"
ADDRESS = IPv4Address("TCP", "192.0.2.1", 40000)


class Ports:
    """The product's one port: front door, WebSockets and HTTP."""

    def port(self, *, limits: HttpLimits | None = None, **options: Any) -> Rig:
        """Serve everything."""

        def make(rig: Rig) -> Site:
            api = make_api(self, rig.node, ws_resource=WebSocketResource(rig.factory))
            self.http = HttpSite(api.resource, rig.reactor, limits=limits)
            self.site = Site(rig.node, rig.factory, self.http)
            return self.site

        return self.rig(site=make, **options)


class FrontDoor(Ports):
    """The first bytes choose the protocol."""

    def test_both(self) -> None:
        """One port serves WebSockets and HTTP."""
        rig = self.port()
        alice = rig.connect()
        alice.send(command("Ping", id=1))
        self.assertEqual(alice.message()["id"], 1)
        self.assertEqual(rig.client().ask(HEALTH).status, 200)

    def test_websocket_in_any_two_pieces(self) -> None:
        """The request for a WebSocket may be cut anywhere."""
        rig = self.port()
        head = request_head()
        for end in range(1, 60):
            client = rig.client()
            client.send(head[:end], head[end:])
            self.assertEqual(client.open(b"")["data"]["status"], "connected")
            client.abandon()

    def test_http_in_any_two_pieces(self) -> None:
        """So may any other request."""
        rig = self.port()
        for end in range(1, len(HEALTH)):
            client = rig.client()
            self.assertEqual(client.ask(HEALTH[:end], HEALTH[end:]).status, 200)
            client.abandon()

    def test_byte_by_byte(self) -> None:
        """Either may come byte by byte."""
        rig = self.port()
        client = rig.client()
        client.send(*(bytes([byte]) for byte in request_head()))
        client.open(b"")
        client = rig.client()
        self.assertEqual(client.ask(*(bytes([byte]) for byte in HEALTH)).status, 200)

    def test_paths_that_only_look_alike(self) -> None:
        """What is not `GET /ws`, to the letter, is HTTP's to answer."""
        rig = self.port()
        for line, status in (
            ("GET /wsx HTTP/1.1", 404),
            ("GET /ws/ HTTP/1.1", 404),
            ("GET /WS HTTP/1.1", 404),
            ("GET /w HTTP/1.1", 404),
            ("POST /ws HTTP/1.1", 405),
            ("get /ws?token=alice HTTP/1.1", 400),
            ("OPTIONS /ws HTTP/1.1", 204),
            ("GET /health HTTP/1.1", 200),
        ):
            headers = {"Upgrade": None, "Connection": None}
            answer = rig.client().ask(request_head(first=line, headers=headers))
            self.assertEqual(answer.status, status, line)
            if status >= 400:
                answer.error()
        self.assertEqual(rig.counters.refused_connections, 0)

    def test_no_http(self) -> None:
        """What is no HTTP at all is 400."""
        for nonsense in (b"\r\n\x00\xff\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"):
            rig = self.port()
            self.assertEqual(rig.client().ask(nonsense).status, 400)

    def test_upgrade_is_needed(self) -> None:
        """GET /ws without an upgrade is 426, whichever of the two answers."""
        rig = self.port()
        plain = {"Upgrade": None, "Connection": None, "Sec-WebSocket-Key": None}
        for client in (rig.client(), rig.client()):
            if client is rig.clients[1]:
                client.ask(HEALTH)
            answer = client.ask(request_head("/ws", plain))
            self.assertEqual((answer.status, answer.error()["code"]), (426, "INVALID_REQUEST"))
            self.assertEqual(answer.header("Upgrade"), "websocket")

    def test_silence(self) -> None:
        """A connection that says nothing, or not enough, is dropped after 10 seconds."""
        rig = self.port()
        clients = [rig.client() for _ in range(3)]
        for client, start in zip(clients, (b"", b"GET", b"GET /ws"), strict=True):
            client.send(start)
        rig.pass_seconds(9)
        self.assertEqual([client.ended for client in clients], [None] * 3)
        rig.pass_seconds(1)
        rig.wait(lambda: all(client.ended for client in clients))
        self.assertEqual([client.data for client in clients], [b""] * 3)

    def test_deadline_ends_with_the_choice(self) -> None:
        """Once a protocol is chosen its own deadlines count."""
        rig = self.port(heartbeat_interval=1000, client_timeout=1000)
        alice, http = rig.connect(), rig.client()
        http.ask(HEALTH)
        rig.pass_seconds(30)
        self.assertEqual(http.ask(HEALTH).status, 200)
        alice.send(command("Ping", id=1))
        self.assertEqual(alice.message()["id"], 1)

    def test_leaving_at_the_door(self) -> None:
        """One who leaves before choosing leaves nothing behind."""
        rig = self.port()
        for start in (b"", b"GET /w"):
            for reset in (False, True):
                client = rig.client()
                client.send(start)
                client.reset() if reset else client.abandon()
        rig.wait(lambda: not len(rig.node.deadlines))

    def test_no_room_for_http(self) -> None:
        """Where HTTP takes no connection more, one is dropped; WebSockets are still served."""
        rig = self.port(limits=HttpLimits(connections=0))
        other = rig.client()
        other.send(HEALTH)
        rig.wait(lambda: other.ended)
        self.assertEqual(other.data, b"")
        rig.connect()

    def test_no_room_and_no_answer(self) -> None:
        """One who is dropped for want of room cannot stay by not reading."""
        rig = self.port(limits=HttpLimits(connections=0))
        before = rig.streams()
        other = rig.client()
        other.reading = False
        other.send(HEALTH)
        rig.wait(lambda: rig.streams() == before)

    def test_whole_capacity(self) -> None:
        """At capacity the other endpoints keep working."""
        rig = self.port(max_connections=1)
        rig.connect()
        self.assertEqual(rig.client().ask(request_head()).status, 503)
        answer = rig.client().ask(HEALTH.replace(b"/live", b""))
        self.assertEqual((answer.status, answer.json()["reason"]), (503, "At capacity"))
        self.assertEqual(rig.client().ask(HEALTH).status, 200)


class LateUpgrades(Ports):
    """A WebSocket asked for on a kept-alive HTTP connection."""

    def test_late_upgrade(self) -> None:
        """It works as any other, and belongs to HTTP no more."""
        rig = self.port()
        client = rig.client()
        self.assertEqual(client.ask(HEALTH).status, 200)
        self.assertEqual(client.ask(HEALTH).status, 200)
        welcome = client.open(request_head(headers={"X-More": "1"}))
        self.assertEqual(welcome["data"]["user_id"], "alice")
        self.successResultOf(self.http.close_all())
        bob = rig.subscriber("bob")
        client.send(command("Subscribe", {"topics": ["news"]}))
        client.message()
        stream = b"".join(command("Broadcast", {"topic": "news", "payload": n}) for n in range(100))
        client.send(stream + frame(b"x", PING), stream[:30], stream[30:])
        for end in (client, bob):
            got = [taken for taken in end.frames(200 + (end is client)) if taken.opcode != PONG]
            self.assertEqual(len(got), 200)
        rig.node.revoke("user", "alice")
        self.assertEqual(client.close_code(), 4500)
        client.send(close_frame(4500))
        self.assertEqual(client.rest(), [])
        rig.wait(lambda: rig.counters.active_connections == 1)

    def test_late_refusal(self) -> None:
        """It is refused as any other, and the connection ends."""
        rig = self.port()
        for target, status in (("/ws?token=no", 401), ("/ws", 401)):
            client = rig.client()
            client.ask(HEALTH)
            answer = client.ask(request_head(target))
            self.assertEqual((answer.status, answer.error()["code"]), (status, "INVALID_TOKEN"))
            rig.wait(lambda client=client: client.ended)
        self.assertEqual(rig.counters.refused_connections, 2)

    def test_pipelined(self) -> None:
        """It may be asked for in one piece with the request before, and is answered after that."""
        rig = self.port()
        client = rig.client()
        client.send(HEALTH + request_head())
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(client.open(b"")["data"]["status"], "connected")
        client.send(command("Ping", id=1), command("Ping", id=2))
        self.assertEqual([message["id"] for message in client.messages(2)], [1, 2])

    def test_late_slow_consumer(self) -> None:
        """It is cut when it does not read, as any other."""
        rig = self.port(max_queue_bytes=100_000, send_buffer=4096)
        bob = rig.client(receive_buffer=4096)
        bob.ask(HEALTH)
        bob.open(request_head("/ws?token=bob"))
        bob.send(command("Subscribe", {"topics": ["news"]}))
        bob.message()
        bob.reading = False
        alice = rig.connect()
        served = rig.served("bob")
        for _ in range(1000):
            alice.send(command("Broadcast", {"topic": "news", "payload": "x" * 3000}))
            self.assertLess(rig.held(served), 100_000 + 65536 + 16384)
            if rig.counters.closed_slow_consumers:
                break
        self.assertEqual(rig.counters.closed_slow_consumers, 1)
        rig.pass_seconds(2)
        rig.wait(lambda: rig.counters.active_connections == 1)

    def test_in_twisted_web(self) -> None:
        """The factory serves a plain `twisted.web` site's resource too."""

        def make(rig: Rig) -> TwistedSite:
            root = Resource()
            root.putChild(b"ws", WebSocketResource(rig.factory))
            root.putChild(b"other", _Other())
            return TwistedSite(root, reactor=rig.reactor)

        rig = self.rig(site=make)
        client = rig.client()
        self.assertEqual(client.ask(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n").body, b"other")
        client.open()
        client.send(command("Ping", id=1), frame(b"y", PING))
        self.assertEqual(client.message()["id"], 1)
        self.assertEqual(client.frames(), [Frame(PONG, b"y")])
        rig.served("alice").close(CloseCode.FORCED)
        self.assertEqual(client.close_code(), 4501)
        client.send(close_frame())
        self.assertEqual(client.rest(), [])


class _Other(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        """Answer, and keep the connection."""
        return b"other"


globals().update(on_every_path(FrontDoor, LateUpgrades))


# -- in memory ---------------------------------------------------------------------------------


class _Recorder(Protocol):
    def dataReceived(self, data: bytes) -> None:
        """Keep what comes."""
        self.factory.received += data  # type: ignore[union-attr]


class _Recording(Factory):
    protocol = _Recorder
    noisy = False
    running = 0

    def __init__(self) -> None:
        self.received = b""

    def startFactory(self) -> None:
        """Count the starts."""
        self.running += 1

    def stopFactory(self) -> None:
        """Count the stops."""
        self.running -= 1


class DoorTests(SynchronousTestCase):
    """What the front door hands over, and to whom."""

    def setUp(self) -> None:
        """Make a door between two factories that keep what they get."""
        self.node = Rig(self).node
        self.websocket, self.http = _Recording(), _Recording()
        self.site = Site(self.node, self.websocket, self.http)

    def enter(self, pieces: list[bytes]) -> tuple[bytes, bytes]:
        """Let a connection say this; answer what each of the two has got."""
        self.websocket.received = self.http.received = b""
        transport = StringTransport(peerAddress=ADDRESS)
        transport.protocol = self.site.buildProtocol(ADDRESS)
        transport.protocol.makeConnection(transport)
        for piece in pieces:
            transport.protocol.dataReceived(piece)
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.node.deadlines), 0)
        return self.websocket.received, self.http.received

    @settings(max_examples=300)
    @given(
        st.sampled_from([b"GET /ws ", b"GET /ws?", b"GET /ws", b"GET /", b"", b"get /ws "]),
        st.binary(max_size=20),
        st.lists(st.integers(0, 28), max_size=6),
    )
    def test_every_byte_once(self, start: bytes, more: bytes, cuts: list[int]) -> None:
        """All bytes reach one of the two, in order, however they are cut; or none does yet."""
        said = start + more
        ends = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
        pieces = [said[a:b] for a, b in pairwise(ends)]
        websocket, http = self.enter(pieces)
        if said[:8] in (b"GET /ws ", b"GET /ws?"):
            self.assertEqual((websocket, http), (said, b""))
        elif b"GET /ws ".startswith(said[:8]):
            self.assertEqual((websocket, http), (b"", b""))
        else:
            self.assertEqual((websocket, http), (b"", said))

    def test_start_and_stop(self) -> None:
        """Both factories start and stop with the site."""
        self.site.doStart()
        self.assertEqual((self.websocket.running, self.http.running), (1, 1))
        self.site.doStop()
        self.assertEqual((self.websocket.running, self.http.running), (0, 0))
