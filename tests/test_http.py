"""Tests for `realtime.http`: the channel in memory on a clock, and over real sockets."""

from __future__ import annotations

import socket
import time
from typing import Any
from weakref import ref

from autobahn.twisted.resource import WebSocketResource
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from realtime.admission import Admission
from realtime.http import HttpSite
from realtime.http_request import HttpLimits
from realtime.metrics import Counters
from realtime.origins import Origins
from realtime.policy import ClientPolicy, WebSocketOptions
from realtime.websocket import Factory
from tests.support.http import Answer, OnSocket, Wire, make_api, make_site
from tests.support.identity import make_access, make_clock, make_tokens
from tests.support.node import make_node

GET = b"GET /health/live HTTP/1.1\r\nHost: server\r\n\r\n"
POST = b"POST /sessions HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LIMITS = HttpLimits()


class HttpTestCase(TestCase):
    """Speaks to the real application over a channel in memory."""

    def setUp(self) -> None:
        """Make a site on a clock, and one connection to it."""
        self.clock = Clock()
        self.site = make_site(make_api(self).resource, self.clock)
        self.wire = Wire(self.site)

    def assert_refused(self, status: int, wire: Wire | None = None) -> Answer:
        """The one answer is this error in the envelope, and the connection is closed."""
        wire = wire or self.wire
        answer = wire.answer()
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.error()["code"], "INVALID_REQUEST")
        self.assertEqual(answer.header("Connection"), "close")
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertTrue(wire.closing)
        return answer


class DeadlineTests(HttpTestCase):
    """Absolute deadlines: a trickle of bytes does not extend them."""

    def test_silent_connection(self) -> None:
        """A connection that never says anything is closed after the time for a head."""
        self.clock.advance(9.9)
        self.assertFalse(self.wire.closing)
        self.clock.advance(0.2)
        self.assertTrue(self.wire.closing)
        self.assertEqual(self.wire.answers(), [])

    def test_slow_head(self) -> None:
        """A head that is not complete in 10 seconds is 408, though bytes keep coming."""
        for byte in GET[:10]:
            self.wire.send(bytes([byte]))
            self.clock.advance(1)
        self.assert_refused(408)

    def test_slow_headers(self) -> None:
        """Complete header lines, one a second, are no way around that."""
        self.wire.send(b"GET /health/live HTTP/1.1\r\n")
        for number in range(10):
            self.wire.send(b"X-%d: y\r\n" % number)
            self.clock.advance(1)
        self.assert_refused(408)

    def test_slow_body(self) -> None:
        """A body that is not complete 30 seconds after the request's start is 408."""
        self.wire.send(POST)
        self.clock.advance(9)
        self.wire.send(b"Content-Length: 100\r\n\r\n")
        for _ in range(20):
            self.assertFalse(self.wire.closing)
            self.wire.send(b" ")
            self.clock.advance(1)
        self.clock.advance(1)
        self.assert_refused(408)

    def test_slow_chunks(self) -> None:
        """The same holds for a chunked body, whose end may never come."""
        self.wire.send(CHUNKED)
        for _ in range(30):
            self.wire.send(b"1\r\n \r\n")
            self.clock.advance(1)
        self.assert_refused(408)

    def test_idle(self) -> None:
        """A kept connection waits 60 seconds for the next request, then closes silently."""
        self.wire.send(GET)
        self.assertEqual(self.wire.answer().status, 200)
        self.clock.advance(59.9)
        self.wire.send(GET)
        self.assertEqual(self.wire.answer().status, 200)
        self.clock.advance(60)
        self.assertEqual(self.wire.answers(), [])
        self.assertTrue(self.wire.closing)

    def test_second_request_has_its_own_deadline(self) -> None:
        """The time for the next head counts from its first byte."""
        self.wire.send(GET)
        self.wire.answer()
        self.clock.advance(50)
        self.wire.send(b"GET ")
        self.clock.advance(9.9)
        self.assertFalse(self.wire.closing)
        self.clock.advance(0.2)
        self.assert_refused(408)

    def test_answer_takes_its_time(self) -> None:
        """No deadline runs while the server itself is at work."""

        class Slow(Resource):
            isLeaf = True

            def render(self, request: object) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        waiting: list[object] = []
        wire = Wire(make_site(Slow(), self.clock))
        wire.send(GET)
        self.clock.advance(1000)
        self.assertFalse(wire.closing)
        waiting[0].write(b"")
        waiting[0].finish()
        self.assertEqual(wire.answer().status, 200)
        self.clock.advance(61)
        self.assertTrue(wire.closing)

    def test_closing_ends(self) -> None:
        """A client that never reads its last answer is cut off."""
        self.wire.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(self.wire.closing)
        self.clock.advance(LIMITS.close)
        self.assertTrue(self.wire.transport.disconnected)

    def test_no_timer_survives(self) -> None:
        """Once a connection has ended no timer of it is left."""
        for sent in (b"", b"GET", GET, POST + b"Content-Length: 5\r\n\r\n", b"bad\r\n\r\n"):
            wire = Wire(self.site)
            wire.send(sent) if sent else None
            wire.end()
        self.wire.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SizeTests(HttpTestCase):
    """Limits of heads and bodies."""

    def test_declared_too_large(self) -> None:
        """A body declared larger than 64 KiB is 413 before any of it is read."""
        for length in (65537, 99 * 10**9):
            wire = Wire(self.site)
            wire.send(POST + b"Origin: https://a.example\r\nContent-Length: %d\r\n\r\n" % length)
            answer = self.assert_refused(413, wire)
            self.assertEqual(answer.error()["details"], {"max_body_size": 65536})
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")

    def test_expectation(self) -> None:
        """Who asks before sending is told 413, not to continue; a small body may come."""
        expect = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        self.wire.send(POST + expect % 10**6)
        self.assert_refused(413)
        wire = Wire(self.site)
        wire.send(POST + expect % 2)
        self.assertEqual(wire.answer().status, 100)

    def test_largest(self) -> None:
        """A body of exactly 64 KiB is read."""
        body = b"x" * 65536
        self.wire.send(POST + b"Content-Length: 65536\r\n\r\n", body)
        self.assertEqual(self.wire.answer().status, 400)
        self.assertFalse(self.wire.closing)

    def test_chunked_too_large(self) -> None:
        """A chunked body is 413 as soon as it has become larger than 64 KiB."""
        self.wire.send(CHUNKED)
        for _ in range(64):
            self.wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(self.wire.answers(), [])
        self.wire.send(b"1\r\nx\r\n")
        self.assert_refused(413)
        self.wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n" + GET)
        self.assertEqual(self.wire.answers(), [])

    def test_one_huge_chunk(self) -> None:
        """One chunk of any declared size is no way around that."""
        self.wire.send(CHUNKED + b"7fffffffff\r\n", *[b"x" * 16384] * 5)
        self.assert_refused(413)

    def test_large_heads(self) -> None:
        """A head above 16 KiB is 431, in one line or in many, and so are heads without end."""
        for head in (
            b"GET /" + b"x" * 17000,
            b"GET / HTTP/1.1\r\nX: " + b"y" * 17000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000,
        ):
            wire = Wire(self.site)
            wire.send(*[head[i : i + 1000] for i in range(0, len(head), 1000)])
            self.assertIn(wire.answers()[0].status, (400, 431))
            self.assertTrue(wire.closing)

    def test_many_headers(self) -> None:
        """A hundred headers are read; more are 431, wherever in the head."""
        head = b"GET /health/live HTTP/1.1\r\nHost: server\r\n"
        self.wire.send((head + b"X: y\r\n" * 99 + b"\r\n") * 2)
        self.assertEqual([answer.status for answer in self.wire.answers()], [200, 200])
        for more in (100, 1000):
            wire = Wire(self.site)
            wire.send(head + b"X: y\r\n" * more + b"\r\n")
            self.assert_refused(431, wire)


class MalformedTests(HttpTestCase):
    """What is no HTTP."""

    def test_malformed(self) -> None:
        """Malformed requests are 400 with the envelope, and the connection is closed."""
        for raw in (
            b"nonsense\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nNo colon here\r\n\r\n",
            b"GET / HTTP/1.1\r\nNo colon here\r\nHost: server\r\n\r\n",
            b"GET / HTTP/1.1\r\nBad name\x00: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
            POST + b"Content-Length: -1\r\n\r\n",
            POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
            POST + b"Content-Length: " + b"9" * 5000 + b"\r\nX: y\r\n\r\n",
            POST + b"Transfer-Encoding: gzip\r\n\r\n",
            POST + b"Transfer-Encoding: identity\r\n\r\n",
            POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
            POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            POST + b"X: y\r\n\tContent-Length: 5\r\n\r\n",
            b"GET /health/live HTTP/1.1\r\n Host: server\r\n\r\n",
            CHUNKED + b"zz\r\n",
            CHUNKED + b"1\r\nxx\r\n",
        ):
            wire = Wire(self.site)
            wire.send(raw)
            self.assert_refused(400, wire)
            wire.end()

    def test_questionable(self) -> None:
        """So are requests without a Host or with two, and methods that are not in capitals."""
        for raw in (
            b"GET /health/live HTTP/1.1\r\n\r\n",
            b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET /health/live HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            b"get /health/live HTTP/1.1\r\nHost: server\r\n\r\n",
            b"Post /sessions HTTP/1.1\r\nHost: server\r\nContent-Length: 0\r\n\r\n",
        ):
            wire = Wire(self.site)
            wire.send(raw)
            self.assertEqual(wire.answer().error()["code"], "INVALID_REQUEST", raw)
        self.wire.send(GET.replace(b"GET", b"BREW"))
        self.assertEqual(self.wire.answer().error()["code"], "METHOD_NOT_ALLOWED")
        self.wire.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        self.assertEqual(self.wire.answer().status, 200)

    def test_pages_may_read_refusals(self) -> None:
        """Refusals of what is no whole request let pages of the origins allowed read them."""
        resource = make_api(self).resource
        site = HttpSite(resource, self.clock, origins=Origins(["https://a.example"]))
        head = b"GET / HTTP/1.1\r\nOrigin: %b\r\nHost: server\r\nX: a\x00\r\n\r\n"
        for origin, allowed in (
            (b"https://a.example", "https://a.example"),
            (b"https://b.example", None),
            (b"\xff", None),
        ):
            wire = Wire(site)
            wire.send(head % origin)
            answer = self.assert_refused(400, wire)
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), allowed)
            self.assertEqual(answer.header("Vary"), "Origin")
        wire = Wire(HttpSite(resource, self.clock, origins=Origins(["*"])))
        wire.send(b"nonsense\r\n\r\n")
        self.assertEqual(wire.answer().header("Access-Control-Allow-Origin"), "*")

    def test_targets(self) -> None:
        """A target in absolute form is its path; one that is no path is 400."""
        head = b"%b HTTP/1.1\r\nHost: server\r\n\r\n"
        for target in (b"GET http://server/health/live", b"GET HTTPS://server/health/live?x=/"):
            self.wire.send(head % target)
            self.assertEqual(self.wire.answer().status, 200)
        for target in (b"GET http://server", b"OPTIONS *"):
            self.wire.send(head % target)
            self.assertIn(self.wire.answer().status, (200, 204))
        for target in (b"CONNECT server:443", b"GET *", b"GET health"):
            self.wire.send(head % target)
            self.assertEqual(self.wire.answer().error()["code"], "INVALID_REQUEST")

    def test_bad_hosts(self) -> None:
        """A Host header that is no host name is 400."""
        for host in (b"\xff\xfe", b"a..b", b"x" * 64, b"[::1"):
            self.wire.send(b"GET /health/live HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            answer = self.wire.answer()
            self.assertIn(answer.status, (200, 400), host)
            if answer.status == 400:
                self.assertEqual(answer.error()["code"], "INVALID_REQUEST")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_raw_bytes_in_path(self) -> None:
        """A path of raw bytes that are not UTF-8 is 400."""
        self.wire.send(b"GET /\xff HTTP/1.1\r\nHost: server\r\n\r\n")
        self.assertIn(b'"INVALID_REQUEST"', self.wire.transport.value())
        self.assertIn(b"400", self.wire.transport.value()[:15])

    def test_raw_bytes_in_headers(self) -> None:
        """A header that is not UTF-8 is 400, whoever would read it."""
        for name in (b"Origin", b"Accept", b"Authorization", b"Content-Type", b"Upgrade", b"X"):
            for request in (b"GET /metrics", b"POST /sessions", b"DELETE /sessions/x", b"GET /ws"):
                head = b"%b HTTP/1.1\r\nHost: server\r\n%b: \xff\r\n\r\n" % (request, name)
                self.wire.send(head)
                answer = self.wire.answer()
                self.assertEqual(answer.status, 400, head)
                self.assertEqual(answer.error()["code"], "INVALID_REQUEST")
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(st.lists(st.binary() | st.sampled_from([GET, POST, CHUNKED, b"\r\n", b"\r\n\r\n"])))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """Any bytes lead to answers with documented statuses, and to no failure."""
        wire = Wire(self.site)
        wire.send(*(piece for piece in pieces if piece))
        self.clock.advance(31)
        for answer in wire.answers():
            self.assertIn(answer.status, (200, 400, 401, 404, 405, 408, 413, 415, 431))
        wire.end()
        self.assertEqual(self.flushLoggedErrors(), [])


class ConnectionTests(HttpTestCase):
    """Keeping, sharing and ending connections."""

    def test_pipelining(self) -> None:
        """Requests sent at once are answered in order, then the connection waits."""
        self.wire.send(GET + GET.replace(b"/live", b"") + GET[:5], GET[5:])
        answers = self.wire.answers()
        self.assertEqual(
            [answer.json()["status"] for answer in answers], ["alive", "healthy", "alive"]
        )
        self.assertFalse(self.wire.closing)

    def test_bytewise(self) -> None:
        """How the bytes are cut makes no difference."""
        body = b'{"username": 1}'
        request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self.wire.send(*(bytes([byte]) for byte in request + GET))
        refused, alive = self.wire.answers()
        self.assertEqual(refused.error()["details"], {"field": "username"})
        self.assertEqual(alive.status, 200)

    def test_close(self) -> None:
        """Connection: close and HTTP/1.0 end the connection after the answer."""
        for request in (
            b"GET /info HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n",
            b"GET /info HTTP/1.0\r\n\r\n",
        ):
            wire = Wire(self.site)
            wire.send(request)
            self.assertEqual(wire.answer().status, 200)
            self.assertTrue(wire.closing)

    def test_bounded(self) -> None:
        """With too many connections the longest idle one gives way to a new one, gently."""
        counters = Counters()
        site = HttpSite(
            make_api(self).resource,
            self.clock,
            limits=HttpLimits(connections=3),
            counters=counters,
        )
        halfway, first, second = Wire(site), Wire(site), Wire(site)
        halfway.send(b"GET ")
        for wire in (first, second):
            wire.send(GET)
        third = Wire(site)
        self.assertTrue(first.closing)
        self.assertFalse(first.transport.disconnected)
        self.assertFalse(halfway.closing or second.closing)
        third.send(GET)
        self.assertEqual(third.answer().status, 200)
        self.assertEqual(counters.dropped_http_connections, 1)

    def test_unfinished_requests_give_way(self) -> None:
        """Requests that do not end, in head, body or after their refusal, shut nobody out."""
        for start in (b"GET /", POST + b"Content-Length: 9\r\n\r\n", b"nonsense\r\n\r\n"):
            site = make_site(make_api(self).resource, self.clock, connections=2)
            wires = [Wire(site) for _ in range(2)]
            for wire in wires:
                wire.send(start)
            other = Wire(site)
            other.send(GET)
            self.assertEqual(other.answer().status, 200, start)
            self.assertEqual([wire.transport.disconnected for wire in wires], [True, False])
            for wire in (*wires, other):
                wire.end()
        self.wire.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_client_has_too_many(self) -> None:
        """Who has the most connections loses one, though others have been idle for longer."""
        site = make_site(make_api(self).resource, self.clock, connections=4)
        alone = Wire(site, IPv4Address("TCP", "192.0.2.99", 1))
        alone.send(GET)
        alone.answer()
        many = [Wire(site, IPv6Address("TCP", f"2001:db8::{number}", 1)) for number in range(1, 10)]
        self.assertFalse(alone.closing)
        self.assertEqual([wire.closing for wire in many], [True] * 6 + [False] * 3)

    def test_answers_do_not_give_way(self) -> None:
        """A connection that is being answered is left alone; without room a new one is refused."""
        waiting: list[Any] = []

        class Slow(Resource):
            isLeaf = True

            def render(self, request: object) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        site = make_site(Slow(), self.clock, connections=1)
        busy = Wire(site)
        busy.send(GET)
        self.assertIsNone(Wire(site).channel)
        waiting[0].write(b"")
        waiting[0].finish()
        self.assertEqual(busy.answer().status, 200)
        Wire(site).send(GET)
        self.assertTrue(busy.closing)
        self.assertEqual(len(waiting), 2)

    def test_nothing_outlives_the_connection(self) -> None:
        """A request that does keeps nothing of what was never sent, which may be megabytes."""
        waiting: list[object] = []

        class Slow(Resource):
            isLeaf = True

            def render(self, request: object) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        wire = Wire(make_site(Slow(), self.clock))
        wire.send(GET)
        transport = ref(wire.transport)
        wire.end()
        del wire
        self.assertEqual(len(waiting), 1)
        self.assertIsNone(transport())

    def test_close_all(self) -> None:
        """Shutting down closes idle connections at once, busy ones after their answer."""
        waiting: list[object] = []

        class Slow(Resource):
            isLeaf = True

            def render(self, request: object) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        site = make_site(Slow(), self.clock)
        idle, busy = Wire(site), Wire(site)
        busy.send(GET)
        done = site.close_all()
        self.assertTrue(idle.closing)
        self.assertFalse(busy.closing)
        idle.end()
        self.assertNoResult(done)
        waiting[0].write(b"")
        waiting[0].finish()
        self.assertTrue(busy.closing)
        busy.end()
        self.successResultOf(done)
        late = Wire(site)
        late.send(GET)
        waiting[1].write(b"")
        waiting[1].finish()
        self.assertEqual(late.answer().header("Connection"), "close")

    def test_failures_are_not_told(self) -> None:
        """A failure outside of the application is 500 with the envelope, and logged."""

        class Broken(Resource):
            isLeaf = True

            def render(self, request: object) -> bytes:
                raise RuntimeError("secret detail")

        wire = Wire(make_site(Broken(), self.clock))
        wire.send(GET)
        answer = wire.answer()
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.error()["code"], "INTERNAL_ERROR")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_site_needs_no_reactor(self) -> None:
        """Starting the site leaves no timer and no access log behind."""
        self.wire.end()
        self.site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.site.doStop()


class SocketTests(TestCase):
    """Over TCP."""

    def setUp(self) -> None:
        """Serve the application on a port."""
        self.server = OnSocket(self, make_api(self).resource, close=1)

    def talk(self, *data: bytes) -> Deferred[bytes]:
        """Send all, then read until the server closes."""

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", self.server.port), 5) as connection:
                for piece in data:
                    connection.sendall(piece)
                received = b""
                while piece := connection.recv(65536):
                    received += piece
                return received

        return deferToThread(talk)

    async def test_answer_survives_what_is_unread(self) -> None:
        """Who sends a body that is too large reads the 413 after sending it all."""
        size = 2_000_000
        received = await self.talk(
            POST + b"Content-Length: %d\r\n\r\n" % size, *[b"x" * 100_000] * (size // 100_000)
        )
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received[:50])
        self.assertIn(b'"INVALID_REQUEST"', received)

    async def test_malformed(self) -> None:
        """Malformed requests get their answer and the end of the connection."""
        received = await self.talk(b"nonsense\r\n\r\n")
        self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
        self.assertIn(b'"INVALID_REQUEST"', received)

    async def test_unfinished_requests_shut_nobody_out(self) -> None:
        """While more half-sent requests are there than connections may be, others are answered."""
        server = OnSocket(self, make_api(self).resource, connections=20)

        def talk() -> bytes:
            halves = []
            for _ in range(50):
                halves.append(socket.create_connection(("127.0.0.1", server.port), 5))
                halves[-1].sendall(GET[:-2])
            with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
                connection.sendall(GET)
                received = connection.recv(65536)
            for half in halves:
                half.close()
            return received

        received = await deferToThread(talk)
        self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)

    async def test_late_upgrade(self) -> None:
        """A connection that has spoken HTTP can become a WebSocket, and is HTTP no more."""
        node = make_node(make_clock())
        tokens = make_tokens(time.time)
        policy = ClientPolicy(
            100, 100, 1 << 20, 10, 10, 30, 60, 65536, 65536, "close", tokens.verify_access
        )
        admission = Admission(node, policy, Origins("*"))
        factory = Factory(admission, WebSocketOptions(65536, 65536), reactor)
        resource = make_api(self, node, ws_resource=WebSocketResource(factory)).resource
        server = OnSocket(self, resource)
        token = make_access(time.time)

        def talk() -> list[bytes]:
            received = []
            with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
                for request in (
                    b"GET /health HTTP/1.1\r\nHost: server\r\n\r\n",
                    b"GET /ws HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    b"Authorization: Bearer " + token.encode() + b"\r\n\r\n",
                ):
                    connection.sendall(request)
                    received.append(connection.recv(65536))
                while b'"connected"' not in received[-1]:
                    received[-1] += connection.recv(65536)
                connection.sendall(b"\x88\x80\x00\x00\x00\x00")  # A Close frame.
                while piece := connection.recv(65536):
                    received.append(piece)
            return received

        health, upgraded, *_ = await deferToThread(talk)
        self.assertTrue(health.startswith(b"HTTP/1.1 200 "), health)
        self.assertTrue(upgraded.startswith(b"HTTP/1.1 101 "), upgraded)
        self.assertEqual(node.counters.total_connections, 1)
        self.successResultOf(server.site.close_all())
