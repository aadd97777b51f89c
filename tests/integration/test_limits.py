"""Each limit on a real server: reached, answered as documented, and counted by its name."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from realtime.metrics import LIMITS
from tests.support.server import Server, free_port, wait_until

CONFIG = """
[[topic]]
pattern = "kept.>"
history_size = 1000
"""
OPTIONS = (
    *("--max-connections=4", "--max-connections-per-user=3", "--max-connections-per-address=4"),
    *("--head-timeout=2", "--body-timeout=2", "--max-head-size=4096", "--max-body-size=1024"),
    *("--max-frame-size=65536", "--max-queue-bytes=65536", "--max-subscriptions=2"),
    *("--max-topics=3", "--message-rate=20", "--message-burst=20", "--byte-rate=0"),
    *("--login-rate=0.01", "--login-burst=2"),
    *("--history-bytes=65536", "--webhook-queue-size=1"),
)
# What some are reached with beside these, in which others would come first.
MORE = {
    "max-connections": ("--max-connections-per-user=0", "--max-connections-per-address=0"),
    "max-connections-per-address": ("--max-connections-per-user=0", "--max-connections=10"),
    "max-queue-bytes": ("--message-rate=10000", "--message-burst=10000"),
    "byte-rate": ("--byte-rate=1000",),
    "client-timeout": ("--heartbeat-interval=1", "--client-timeout=2"),
    "history-bytes": ("--message-rate=10000", "--message-burst=10000"),
}


class LimitTests(SynchronousTestCase):
    """What happens above them."""

    def setUp(self) -> None:
        """Have a webhook that nobody takes."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        config, secret = Path(folder.name, "config.toml"), Path(folder.name, "secret")
        config.write_text(CONFIG)
        secret.write_text("s" * 40)
        secret.chmod(0o600)
        self.options = (
            *("--config", str(config), *OPTIONS, f"--webhook-url=http://127.0.0.1:{free_port()}/"),
            *(f"--webhook-secret-file={secret}", "--webhook-event=disconnect"),
        )

    def serve(self, *options: str) -> None:
        """Serve with some options more; the later of two counts."""
        self.server = Server(*self.options, *options).start()
        self.addCleanup(self.server.stop)
        self.token = self.server.login("admin", self.server.admin_password)["access_token"]

    def reached(self, limit: str) -> float:
        """How often the server says that a limit was reached."""
        _, _, text = self.server.request("GET", "/metrics", Accept="text/plain")
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                if sample.name == "realtime_limited_total" and sample.labels["limit"] == limit:
                    return sample.value
        raise AssertionError(f"no metric of {limit}")

    def client(self, **options: Any) -> ClientConnection:
        """Connect, and read the welcome."""
        url = self.server.token_url(self.token)
        client = connect(url, ping_interval=None, compression=None, **options)
        client.recv()
        return client

    def ask(self, client: ClientConnection, type: str, **data: Any) -> dict[str, Any]:
        """Send a command; answer its reply."""
        client.send(json.dumps({"type": type, "data": data, "id": 1}))
        while (reply := json.loads(client.recv(timeout=10))).get("id") != 1:
            pass
        found: dict[str, Any] = reply
        return found

    def raw(self, data: bytes) -> bytes:
        """What is answered to bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as sock:
            sock.sendall(data)
            found = b""
            # A client that does not answer a Close frame is dropped.
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(65536):
                    found += piece
            return found

    def refused(self) -> int:
        """The status with which a connection is refused."""
        with self.assertRaises(InvalidStatus) as caught:
            self.client()
        return caught.exception.response.status_code

    def closed(self, client: ClientConnection) -> int | None:
        """The code that a connection is closed with."""
        with self.assertRaises(ConnectionClosed) as caught:
            while True:
                client.recv(timeout=20)
        return caught.exception.rcvd.code if caught.exception.rcvd else None

    # -- the limits --------------------------------------------------------------------------

    def max_connections(self) -> None:
        """More get 503."""
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(self.client())
            self.assertEqual(self.refused(), 503)

    def max_connections_per_user(self) -> None:
        """More get 429."""
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(self.client())
            self.assertEqual(self.refused(), 429)

    def max_connections_per_address(self) -> None:
        """More get 429."""
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(self.client())
            self.assertEqual(self.refused(), 429)

    def head_timeout(self) -> None:
        """Then 408, on `/ws` and elsewhere."""
        for path in (b"/ws", b"/health"):
            self.assertIn(b" 408 ", self.raw(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX-Y: "))

    def body_timeout(self) -> None:
        """Then 408."""
        head = b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        self.assertIn(b" 408 ", self.raw(head))

    def max_head_size(self) -> None:
        """Then 431, on `/ws` and elsewhere."""
        for path in (b"/ws", b"/health"):
            head = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX-Y: " + b"y" * 5000 + b"\r\n\r\n"
            self.assertIn(b" 431 ", self.raw(head))

    def max_body_size(self) -> None:
        """Then 413."""
        body = {"username": "x" * 2000, "password": "y"}
        self.assertEqual(self.server.request("POST", "/sessions", body)[0], 413)

    def max_frame_size(self) -> None:
        """Then 1009."""
        client = self.client()
        client.send("x" * 70_000)
        self.assertEqual(self.closed(client), 1009)

    def max_queue_bytes(self) -> None:
        """Then 4002."""
        with self.client(max_queue=1) as reader, self.client() as publisher:
            self.ask(reader, "Subscribe", topics=["busy"])
            before = self.reached("max-queue-bytes")
            for _ in range(2000):
                self.ask(publisher, "Broadcast", topic="busy", payload="x" * 30_000)
                if self.reached("max-queue-bytes") > before:
                    break
            # On a busy machine it may not have read that far when it is dropped.
            self.assertIn(self.closed(reader), (4002, None))

    def max_subscriptions(self) -> None:
        """Those above it are denied."""
        with self.client() as client:
            self.ask(client, "Subscribe", topics=["a", "b"])
            self.assertEqual(
                self.ask(client, "Subscribe", topics=["c"])["data"]["code"], "FORBIDDEN"
            )

    def max_topics(self) -> None:
        """The command is refused."""
        with self.client() as client:
            reply = self.ask(client, "Subscribe", topics=["a", "b", "c", "d"])
            self.assertEqual(reply["data"]["code"], "INVALID_REQUEST")

    def message_rate(self) -> None:
        """Those above it are refused, with the time to wait."""
        with self.client() as client:
            for _ in range(60):
                client.send(json.dumps({"type": "Ping"}))
            replies = [json.loads(client.recv(timeout=10)) for _ in range(60)]
            codes = {reply["data"].get("code") for reply in replies if reply["type"] == "Error"}
            self.assertEqual(codes, {"RATE_LIMITED"})

    def byte_rate(self) -> None:
        """What is more waits, and comes."""
        with self.client() as client:
            reply = self.ask(client, "Broadcast", topic="t", payload="x" * 30_000)
            self.assertEqual(reply["type"], "Ack")

    def client_timeout(self) -> None:
        """Then 4003: this client answers no Ping."""
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        head = (
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        )
        self.assertIn((4003).to_bytes(2, "big"), self.raw(head.encode()))

    def login_rate(self) -> None:
        """Then 429."""
        body = {"username": "nobody", "password": "wrong"}
        statuses = [self.server.request("POST", "/sessions", body)[0] for _ in range(4)]
        self.assertEqual(statuses, [401, 401, 429, 429])

    def history_bytes(self) -> None:
        """The oldest publications are forgotten."""
        with self.client() as client:
            for _ in range(15):
                self.ask(client, "Broadcast", topic="kept.a", payload="x" * 8000)
            page = self.ask(client, "History", topic="kept.a")["data"]
            self.assertLess(len(page["publications"]), 10)

    def webhook_queue_size(self) -> None:
        """The newest events are dropped."""
        for _ in range(4):
            self.client().close()
        wait_until(lambda: self.reached("webhook-queue-size") > 0)

    def test_all(self) -> None:
        """Every limit that there is."""
        for options in dict.fromkeys(MORE.get(limit, ()) for limit in LIMITS):
            self.serve(*options)
            for limit in LIMITS:
                if MORE.get(limit, ()) == options:
                    self.reach(limit)
            self.server.stop()

    def reach(self, limit: str) -> None:
        """Reach one; leave nothing behind."""
        before = self.reached(limit)
        try:
            getattr(self, limit.replace("-", "_"))()
            wait_until(lambda: self.reached(limit) > before)
        except BaseException as error:
            error.add_note(f"the limit was {limit}")
            raise
        wait_until(lambda: self.server.request("GET", "/metrics")[2]["active_connections"] == 0)
