"""The AsyncAPI document against the running server: every message is what the document says."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect

from realtime.asyncapi import SENT
from realtime.envelope import COMMANDS
from tests.support.schemas import closed
from tests.support.server import Server

CONFIG = """
presence-grace = 0

[[topic]]
pattern = "kept.>"
history_size = 10
presence = true
join_leave = true
"""
KEPT: dict[str, Any] = {"topic": "kept.a"}
# Each command at least once, with and without what may be left out.
COMMANDS_SENT: list[dict[str, Any]] = [
    {"type": "Subscribe", "data": {"topics": ["kept.a", "plain", "x.*"]}, "id": 1},
    {"type": "Subscribe", "data": {"topics": ["$own"]}},
    {"type": "Broadcast", "data": KEPT | {"payload": {"n": 1.5}, "key": "k"}, "id": "two"},
    {"type": "Broadcast", "data": {"topic": "plain", "payload": None, "echo": True}},
    {"type": "DirectMessage", "data": {"target_user": "bob", "payload": [1]}, "id": 3},
    {"type": "Ping", "data": {"timestamp": 1.5}, "id": 4},
    {"type": "Ping"},
    {"type": "History", "data": KEPT | {"limit": 5, "reverse": True}, "id": 5},
    {"type": "Presence", "data": KEPT | {"limit": 5}, "id": 6},
    {"type": "Presence", "data": KEPT | {"state": {"typing": True}}, "id": 7},
    {"type": "Unsubscribe", "data": {"topics": ["kept.a"]}, "id": 8},
    {
        "type": "Subscribe",
        "data": {"topics": ["kept.a"], "recover": {"kept.a": {"offset": 0, "epoch": "?"}}},
        "id": 9,
    },
    {"type": "Authenticate", "data": {"token": "bad"}, "id": 10},
]
# What the document does not allow.
WRONG: list[dict[str, Any]] = [
    {"type": "Nothing"},
    {"type": "Subscribe"},
    {"type": "Subscribe", "data": {"topics": "a"}},
    {"type": "Broadcast", "data": {"topic": "a"}},
    {"type": "History", "data": {"topic": "a", "limit": -1}},
    {"type": "Ping", "id": []},
]


class AsyncApiTests(SynchronousTestCase):
    """What the document says of the WebSocket's messages."""

    def setUp(self) -> None:
        """Start a server, and get its document."""
        config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        self.addCleanup(Path(config.name).unlink)
        with config:
            config.write(CONFIG)
        self.server = Server("--config", config.name).start()
        self.addCleanup(self.server.stop)
        with urlopen(f"{self.server.http_url}/asyncapi.json", timeout=10) as answer:
            self.document: dict[str, Any] = json.load(answer)

    def validator(self, operation: str) -> Draft202012Validator:
        """Judges the messages that are received, or sent, by the server.

        Sent ones are to have no member besides those that the document has.
        """
        found = self.document["operations"][operation]["messages"]
        payloads = [self.resolve(self.resolve(message))["payload"] for message in found]
        schema = {"anyOf": payloads, "components": self.document["components"]}
        return Draft202012Validator(closed(schema) if operation == "send" else schema)

    def resolve(self, value: Any) -> Any:
        """What a reference within the document refers to."""
        while "$ref" in value:
            where = value["$ref"].removeprefix("#/").split("/")
            value = self.document
            for step in where:
                value = value[step]
        return value

    def open(self, *credentials: str) -> ClientConnection:
        """Connect."""
        socket = connect(self.server.token_url(self.server.login(*credentials)["access_token"]))
        self.addCleanup(socket.close)
        return socket

    def until(self, socket: ClientConnection, type: str, id: Any = None) -> list[dict[str, Any]]:
        """All messages up to one of this type and id."""
        heard: list[dict[str, Any]] = [{"type": ""}]
        while (heard[-1]["type"], heard[-1].get("id")) != (type, id):
            heard.append(json.loads(socket.recv(timeout=10)))
        return heard[1:]

    def test_complete(self) -> None:
        """It has every command and every message of the server, and all references resolve."""
        messages = self.document["components"]["messages"]
        self.assertEqual({each["name"] for each in messages.values()}, {*COMMANDS, *SENT})
        for each in messages.values():
            Draft202012Validator.check_schema(each["payload"])
        for operation in ("receive", "send"):
            for message in self.document["operations"][operation]["messages"]:
                self.assertIn("payload", self.resolve(message))

    def test_messages(self) -> None:
        """Commands that it allows are obeyed, and every message of the server is one it has."""
        taken, sent = self.validator("receive"), self.validator("send")
        self.server.add_user("bob")
        watcher, actor = self.open("admin", self.server.admin_password), self.open("bob")
        watcher.send(json.dumps(COMMANDS_SENT[0]))
        for command in COMMANDS_SENT:
            taken.validate(command)
            actor.send(json.dumps(command))
        actor.send(json.dumps({"type": "Ping", "id": "last"}))
        heard = self.until(actor, "Pong", "last")
        actor.close()
        heard += self.until(watcher, "Leave")
        for message in heard:
            sent.validate(message)
        self.assertEqual({message["type"] for message in heard}, set(SENT))
        answered = [m["id"] for m in heard if m.get("id") not in (None, "last")]
        asked = {command["id"] for command in COMMANDS_SENT if "id" in command}
        self.assertEqual(set(answered), asked)

    def test_what_it_does_not_allow(self) -> None:
        """Commands that it does not allow are refused."""
        taken = self.validator("receive")
        socket = self.open("admin", self.server.admin_password)
        socket.recv(timeout=10)
        for command in WRONG:
            self.assertFalse(taken.is_valid(command), command)
            socket.send(json.dumps(command))
            reply = json.loads(socket.recv(timeout=10))
            self.assertEqual(reply["data"]["code"], "INVALID_REQUEST")
