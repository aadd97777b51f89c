"""Tests for `realtime.rest`: the application in memory, row by row of the reference."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from realtime import __version__
from realtime.metrics import Counters
from realtime.model import Health
from realtime.node import Node
from realtime.origins import Origins
from tests.support.http import Answer, InMemory, OnSocket, Wire, make_api, make_site
from tests.support.identity import make_clock
from tests.support.node import make_node

ROUTES = {
    "/": "GET, HEAD, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
    "/info": "GET, HEAD, OPTIONS",
    "/ws": "GET, HEAD, OPTIONS",
    "/sessions": "OPTIONS, POST",
    # It is a session's path as well.
    "/sessions/refresh": "DELETE, OPTIONS, POST",
    "/sessions/abc": "DELETE, OPTIONS",
}
READABLE = [path for path, methods in ROUTES.items() if methods.startswith("GET")]


class _Broken(Node):
    """A node whose health cannot be told."""

    def health(self) -> Health:
        raise RuntimeError("secret detail")


class RestTestCase(TestCase):
    """Asks the application in memory."""

    def setUp(self) -> None:
        """Make a node for 3 connections, up for 12 seconds, and its application."""
        self.clock = make_clock()
        self.node = make_node(self.clock, max_connections=3)
        self.clock.advance(12.5)
        self.ask = InMemory(self, make_api(self, self.node).resource)

    def assert_error(self, answer: Answer, status: int, code: str) -> dict[str, Any]:
        """The answer is this error, in the envelope and uncached; gives back its details."""
        self.assertEqual(answer.status, status)
        error = answer.error()
        self.assertEqual(error["code"], code)
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")
        details: dict[str, Any] = error["details"]
        return details


class HealthTests(RestTestCase):
    """`GET /health`, `/health/ready` and `/health/live`."""

    def test_healthy(self) -> None:
        """Healthy is 200 with the reference's four fields."""
        self.node.counters.active_connections = 2
        for path in ("/health", "/health/ready"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 200)
            self.assertEqual(
                answer.json(),
                {
                    "status": "healthy",
                    "active_connections": 2,
                    "max_connections": 3,
                    "uptime_seconds": 12,
                },
            )

    def test_at_capacity(self) -> None:
        """At capacity is 503 with the reason, as the reference shows it."""
        self.node.counters.active_connections = 3
        for path in ("/health", "/health/ready"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 503)
            self.assertEqual(
                answer.json(),
                {
                    "status": "unhealthy",
                    "reason": "At capacity",
                    "active_connections": 3,
                    "max_connections": 3,
                },
            )
        self.assertEqual(self.node.counters.errors, 0)

    def test_draining(self) -> None:
        """A server that shuts down is unhealthy, yet alive."""
        self.node.draining = True
        self.assertEqual(self.ask("GET", "/health").json()["reason"], "Draining")
        self.assertEqual(self.ask("GET", "/health/live").status, 200)

    def test_others_work_at_capacity(self) -> None:
        """At capacity every other endpoint keeps answering."""
        self.node.counters.active_connections = 3
        for path in ("/", "/info", "/metrics", "/health/live"):
            self.assertEqual(self.ask("GET", path).status, 200, path)


class MetricsTests(RestTestCase):
    """`GET /metrics`."""

    def test_json(self) -> None:
        """Curl gets the reference's JSON: five numbers."""
        self.node.counters.messages_sent = 5
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            answer = self.ask("GET", "/metrics", accept)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.json(), self.node.counters.as_reference())
            self.assertIn("Accept", answer.header("Vary") or "")

    def test_scraper(self) -> None:
        """A scraper gets the format that it likes best, with the same numbers."""
        self.node.counters.total_connections = 77
        for accept, content_type in {
            "text/plain": "text/plain; version=0.0.4; charset=utf-8",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1": (
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            ),
        }.items():
            answer = self.ask("GET", "/metrics", {"Accept": accept})
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.header("Content-Type"), content_type)
            self.assertIn(b"\nrealtime_connections_total 77.0\n", answer.body)


class InfoTests(RestTestCase):
    """`GET /info`."""

    def test_shape(self) -> None:
        """The answer has the reference's members, in its order."""
        answer = self.ask("GET", "/info")
        self.assertEqual(answer.status, 200)
        body = answer.json()
        self.assertEqual(
            body,
            {
                "server": {
                    "name": "WebSocket Real-time Communication Server",
                    "version": __version__,
                    "config": {
                        "host": "0.0.0.0",
                        "port": 8081,
                        "max_connections": 3,
                        "heartbeat_interval_secs": 30,
                        "client_timeout_secs": 60,
                        "max_frame_size": 65536,
                    },
                },
                "stats": Counters().as_reference(),
                "features": [
                    "websocket",
                    "heartbeat",
                    "topic_subscription",
                    "broadcast_messaging",
                    "direct_messaging",
                    "connection_management",
                    "metrics",
                ],
            },
        )
        self.assertEqual(list(body), ["server", "stats", "features"])


class WebSocketTests(RestTestCase):
    """`/ws` as seen on a connection that has already spoken HTTP."""

    def test_upgrade_is_handed_over(self) -> None:
        """A GET that asks for a WebSocket reaches the WebSocket resource."""
        for upgrade in ("websocket", "WebSocket", "h2c, websocket"):
            headers = {"Upgrade": upgrade, "Connection": "Upgrade"}
            self.assertEqual(self.ask("GET", "/ws?token=abc", headers).status, 299)

    def test_no_upgrade(self) -> None:
        """A GET that asks for no WebSocket is 426 and says what to upgrade to."""
        wire = Wire(make_site(make_api(self).resource))
        for method, upgrade in (("GET", "X: y"), ("GET", "Upgrade: h2c"), ("HEAD", "X: y")):
            wire.send(f"{method} /ws HTTP/1.1\r\nHost: server\r\n{upgrade}\r\n\r\n".encode())
            answer = wire.answer()
            self.assertEqual(answer.status, 426)
            self.assertEqual(answer.header("Upgrade"), "websocket")
            self.assertEqual(answer.header("Connection"), "Upgrade")
            self.assertEqual(answer.header("Sec-WebSocket-Version"), "13")
            if method == "GET":
                self.assertEqual(answer.error()["code"], "INVALID_REQUEST")
        self.assertEqual(self.ask("HEAD", "/ws", {"Upgrade": "websocket"}).status, 426)


class RefusalTests(RestTestCase):
    """What is refused, whichever part refuses it."""

    def test_unknown_paths(self) -> None:
        """Unknown paths are 404, those with a slash too many among them."""
        paths = ["/nothing", "/health/", "//health", "/sessions/", "/sessions/a/b", "/ws/"]
        paths += ["/info/../health", "/static/", "/static/page.html", "/static/..%2fpage.py"]
        paths += ["/%2fhealth", "///", "/%00", "/HEALTH", "/sessions/a%2Fb", "/%0d%0aSet-Cookie:x"]
        for path in paths:
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                self.assert_error(self.ask(method, path), 404, "NOT_FOUND")

    def test_wrong_methods(self) -> None:
        """A method that the path does not take is 405 and told which it takes."""
        for path, methods in ROUTES.items():
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "BREW", "TRACE"):
                if method not in methods.split(", "):
                    answer = self.ask(method, path)
                    self.assert_error(answer, 405, "METHOD_NOT_ALLOWED")
                    self.assertEqual(answer.header("Allow"), methods, path)

    def test_undecodable(self) -> None:
        """A path that is not UTF-8, or is badly escaped, is 400."""
        for path in ("/%ff", "/health%", "/%zz", "/a/%e4/b", "/sessions/%C3%28", "/%ED%A0%80"):
            self.assert_error(self.ask("GET", path), 400, "INVALID_REQUEST")

    def test_escapes_are_understood(self) -> None:
        """An escaped spelling of a path is that path."""
        self.assertEqual(self.ask("GET", "/%68ealth").status, 200)

    def test_bad_host(self) -> None:
        """A Host header that is no host is 400, never a failure of ours."""
        for host in ("a..b", "x" * 70, "\u00e4", ""):
            answer = self.ask("GET", "/health", {"Host": host})
            self.assertIn(answer.status, (200, 400), host)
        self.assertEqual(self.node.counters.errors, 0)

    def test_internal_error(self) -> None:
        """A failure of ours is 500, counted and logged, and tells nothing."""
        broken = make_node(self.clock, kind=_Broken)
        ask = InMemory(self, make_api(self, broken).resource)
        answer = ask("GET", "/health")
        self.assert_error(answer, 500, "INTERNAL_ERROR")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(broken.counters.errors, 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @given(st.binary(max_size=20).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)))
    def test_any_path(self, path: str) -> None:
        """Any bytes as a path are answered, never with a failure of ours."""
        self.assertIn(self.ask("GET", f"/x{path}").status, (400, 404))


class HeadersTests(RestTestCase):
    """What every answer carries."""

    def test_head(self) -> None:
        """HEAD answers as GET does, without the body."""
        for path in [*READABLE, "/nothing"]:
            if path in ("/metrics", "/ws"):
                continue
            got = self.ask("GET", path)
            head = self.ask("HEAD", path)
            self.assertEqual(head.body, b"")
            self.assertEqual(head.status, got.status)
            for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control"):
                self.assertEqual(head.header(name), got.header(name), (path, name))
        self.assertEqual(self.ask("HEAD", "/metrics").status, 200)

    def test_security_headers(self) -> None:
        """Answers are not sniffed, framed, cached or given away as referrers."""
        for path in ("/health", "/metrics", "/nothing"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.header("X-Content-Type-Options"), "nosniff")
            self.assertEqual(answer.header("Referrer-Policy"), "no-referrer")
            self.assertEqual(answer.header("Cache-Control"), "no-store")
            self.assertIn("default-src 'none'", answer.header("Content-Security-Policy") or "")
            self.assertEqual(answer.header("Server"), "realtime-server")


class CorsTests(RestTestCase):
    """Which pages may read the answers."""

    def test_any_origin(self) -> None:
        """By default every page may, without credentials."""
        for path in ("/health", "/nothing", "/sessions"):
            answer = self.ask("GET", path, {"Origin": "https://a.example"})
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "*")
            self.assertIsNone(answer.header("Access-Control-Allow-Credentials"))
            self.assertIn("Retry-After", answer.header("Access-Control-Expose-Headers") or "")

    def test_preflights(self) -> None:
        """Every route answers a preflight with its methods and the headers it needs."""
        for path, methods in ROUTES.items():
            answer = self.ask(
                "OPTIONS",
                path,
                {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"},
            )
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.header("Allow"), methods)
            self.assertEqual(answer.header("Access-Control-Allow-Methods"), methods)
            self.assertEqual(
                answer.header("Access-Control-Allow-Headers"),
                "Authorization, Content-Type, Last-Event-ID",
            )
            self.assertIsNotNone(answer.header("Access-Control-Max-Age"))

    def test_allow_list(self) -> None:
        """With an allow-list the listed origin is echoed and no other; caches are told."""
        origins = Origins(["https://a.example"])
        ask = InMemory(self, make_api(self, self.node, origins=origins).resource)
        for path in ("/health", "/nothing", "/metrics"):
            answer = ask("GET", path, {"Origin": "https://a.example"})
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), "https://a.example")
            self.assertIn("Origin", answer.header("Vary") or "")
            for headers in ({}, {"Origin": "https://b.example"}):
                answer = ask("GET", path, headers)
                self.assertIsNone(answer.header("Access-Control-Allow-Origin"))
                self.assertIn("Origin", answer.header("Vary") or "")
        refused = ask("OPTIONS", "/sessions", {"Origin": "https://b.example"})
        self.assertIsNone(refused.header("Access-Control-Allow-Methods"))


class SocketTests(RestTestCase):
    """The same over a real socket."""

    async def test_each_readable_route(self) -> None:
        """Each route answers over TCP, one after the other on a kept connection."""
        ask = OnSocket(self, make_api(self, self.node).resource)
        for path in READABLE:
            answer = await ask("GET", path)
            self.assertEqual(answer.status, 426 if path == "/ws" else 200, path)
        self.assertEqual((await ask("GET", "/nothing")).error()["code"], "NOT_FOUND")
        self.assertEqual((await ask("HEAD", "/health")).body, b"")
