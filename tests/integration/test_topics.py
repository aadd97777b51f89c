"""Topics with rules, over real sockets: rights, wildcards, echo, renewal."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect

from tests.support.server import Server

CONFIG = """
{strict}

[[topic]]
pattern = "inbox.$user"
publish = ["admin"]

[[topic]]
pattern = "staff.>"
subscribe = ["admin"]
publish = ["admin"]

[[topic]]
pattern = "chat.>"
"""


class TopicTests(SynchronousTestCase):
    """A real server with rules, and people."""

    def start(self, strict: bool = False) -> None:
        """Start a server."""
        config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        self.addCleanup(Path(config.name).unlink)
        with config:
            config.write(CONFIG.format(strict="strict-topics = true" if strict else ""))
        self.server = Server("--config", config.name).start()
        self.addCleanup(self.server.stop)
        self.server.add_user("bob")

    def token(self, name: str) -> str:
        """Log in."""
        password = (self.server.admin_password,) if name == "admin" else ()
        token: str = self.server.login(name, *password)["access_token"]
        return token

    def open(self, token: str) -> ClientConnection:
        """Connect, and read the welcome."""
        socket = connect(self.server.token_url(token))
        self.addCleanup(socket.close)
        self.welcome = json.loads(socket.recv(timeout=10))["data"]
        return socket

    def ask(self, socket: ClientConnection, type: str, data: Any) -> list[dict[str, Any]]:
        """Send a command, and read up to its answer."""
        socket.send(json.dumps({"type": type, "data": data, "id": "ask"}))
        heard: list[dict[str, Any]] = []
        while not heard or heard[-1].get("id") != "ask":
            heard.append(json.loads(socket.recv(timeout=10)))
        return heard

    def code(self, socket: ClientConnection, type: str, data: Any) -> str | None:
        """The error code of the answer, or None."""
        code: str | None = self.ask(socket, type, data)[-1]["data"].get("code")
        return code

    def signed(self, token: str, **claims: Any) -> str:
        """The same token with other claims, signed by the server's own key."""
        key = Path(self.server.state, "secret.key").read_bytes().strip()
        options: Any = {"verify_signature": False}
        return jwt.encode(jwt.decode(token, options=options) | claims, key, algorithm="HS256")

    def test_rights(self) -> None:
        """Rights are those of the first rule that matches; other topics are open."""
        self.start()
        bob, admin = self.open(self.token("bob")), self.open(self.token("admin"))
        bob_id = self.server.login("bob")["user"]["id"]
        for socket, type, topic, code in (
            (bob, "Subscribe", f"inbox.{bob_id}", None),
            (bob, "Subscribe", "inbox.somebody", "FORBIDDEN"),
            (bob, "Broadcast", f"inbox.{bob_id}", "FORBIDDEN"),
            (bob, "Subscribe", "staff.a", "FORBIDDEN"),
            (bob, "Subscribe", "staff.*", "FORBIDDEN"),
            (bob, "Subscribe", ">", "FORBIDDEN"),
            (bob, "Subscribe", "chat.*", None),
            (bob, "Broadcast", "other", None),
            (bob, "Subscribe", "$own", "FORBIDDEN"),
            (admin, "Subscribe", "staff.*", None),
            (admin, "Broadcast", f"inbox.{bob_id}", None),
        ):
            data = {"topics": [topic]} if type == "Subscribe" else {"topic": topic, "payload": 1}
            self.assertEqual(self.code(socket, type, data), code, (type, topic))
        heard = json.loads(bob.recv(timeout=10))["data"]
        self.assertEqual((heard["topic"], heard["payload"]), (f"inbox.{bob_id}", 1))

    def test_strict(self) -> None:
        """Strictly, what no rule names is closed."""
        self.start(strict=True)
        bob = self.open(self.token("bob"))
        self.assertEqual(self.code(bob, "Subscribe", {"topics": ["other"]}), "FORBIDDEN")
        self.assertEqual(self.code(bob, "Broadcast", {"topic": "x", "payload": 1}), "FORBIDDEN")
        self.assertIsNone(self.code(bob, "Subscribe", {"topics": ["chat.a"]}))

    def test_one_copy_and_no_echo(self) -> None:
        """However many patterns match there is one copy, and none for who asks for no echo."""
        self.start()
        bob, admin = self.open(self.token("bob")), self.open(self.token("admin"))
        for socket in (bob, admin):
            self.ask(socket, "Subscribe", {"topics": ["chat.*", "chat.>", "chat.a"]})
        data = {"topic": "chat.a", "payload": 1, "echo": False}
        self.assertEqual([m["type"] for m in self.ask(bob, "Broadcast", data)], ["Ack"])
        heard = self.ask(admin, "Ping", {})
        self.assertEqual([m["type"] for m in heard], ["Broadcast", "Pong"])
        heard = self.ask(bob, "Broadcast", {"topic": "chat.a", "payload": 2})
        self.assertEqual([m["type"] for m in heard], ["Broadcast", "Ack"])

    def test_renewal(self) -> None:
        """A renewed token's permissions hold at once; lost topics are left with a Status."""
        self.start()
        token = self.token("bob")
        bob = self.open(self.signed(token, permissions={"subscribe": ["staff.>", "chat.>"]}))
        self.assertIsNone(self.code(bob, "Subscribe", {"topics": ["staff.a", "chat.a"]}))
        renewed = self.signed(token, permissions={"subscribe": ["chat.a"]})
        lost, status = self.ask(bob, "Authenticate", {"token": renewed})
        self.assertEqual(
            (lost["data"]["status"], lost["data"]["topics"]), ("unsubscribed", ["staff.a"])
        )
        self.assertEqual(status["data"]["status"], "authenticated")
        self.assertEqual(self.code(bob, "Subscribe", {"topics": ["chat.b"]}), "FORBIDDEN")
