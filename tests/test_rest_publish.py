"""Tests of realtime.rest_publish."""

from __future__ import annotations

import gc
import json
from typing import Any

from twisted.internet.defer import Deferred

from realtime.envelope import MAX_KEY
from realtime.errors import Unavailable
from realtime.model import Namespace, Position
from realtime.rest_publish import MAX_AT_ONCE
from tests.support.backend import BackendTestCase
from tests.support.http import Wire, make_site
from tests.support.peers import ScriptedBroker

RULES = (
    Namespace("kept.>", history_size=9, publish=frozenset(), rate=1),
    Namespace("small", max_payload=5),
)


class AccessTests(BackendTestCase):
    """Who may use the server API."""

    def test_roles(self) -> None:
        """A service and an admin may; others may not; nobody without a token."""
        self.make()
        body = {"topic": "a", "payload": 1}
        for roles, status in (
            (("service",), 200),
            (("admin",), 200),
            (("user", "subscriber"), 403),
            ((), 403),
        ):
            self.assertEqual(self.ask("POST", "/publish", body, roles).status, status)
        for path in (
            "POST /publish",
            "POST /batch",
            "POST /users/u/messages",
            "GET /topics",
            "GET /topics/t/presence",
            "GET /topics/t/history",
            "DELETE /topics/t/history",
            "GET /connections",
            "DELETE /connections/x",
            "DELETE /users/u/connections",
        ):
            method, _, target = path.partition(" ")
            answer = self._ask(method, target, {"Content-Type": "application/json"}, b"{}")
            self.assertEqual((answer.status, answer.error()["code"]), (401, "INVALID_TOKEN"))
            answer = self._ask(method, target, {"Authorization": "Bearer rk_nobodys"}, b"{}")
            self.assertEqual((answer.status, answer.error()["code"]), (401, "INVALID_TOKEN"))
            answer = self.ask(method, target, roles=("user",))
            self.assertEqual((answer.status, answer.error()["code"]), (403, "FORBIDDEN"))

    def test_methods(self) -> None:
        """Other methods are 405, and preflights name the right ones."""
        self.make()
        for path, allowed in (
            ("/publish", "OPTIONS, POST"),
            ("/topics", "GET, HEAD, OPTIONS"),
            ("/topics/a.b/history", "DELETE, GET, HEAD, OPTIONS"),
            ("/connections/x", "DELETE, OPTIONS"),
        ):
            answer = self.ask("PUT", path, {})
            self.assertEqual((answer.status, answer.header("Allow")), (405, allowed))
            self.assertEqual(self.ask("OPTIONS", path).header("Allow"), allowed)


class PublishTests(BackendTestCase):
    """`POST /publish`."""

    def setUp(self) -> None:
        """Make the world, with a subscriber to everything."""
        self.make(topics=RULES)
        self.wire = self.world.connect("u1")
        self.wire.ask("Subscribe", {"topics": ["a", "b", "kept.a", "small"]})
        self.wire.read()

    def heard(self) -> list[dict[str, Any]]:
        """The data of what the subscriber has got."""
        return [message["data"] for message in self.wire.read()]

    def test_one(self) -> None:
        """A publication reaches subscribers, from the backend, whatever roles the rule names."""
        self.assertEqual(
            self.ok("POST", "/publish", {"topic": "a", "payload": None}), {"topic": "a"}
        )
        self.assertEqual(self.heard(), [{"topic": "a", "payload": None, "from_user": "user_x"}])
        for offset in (1, 2, 3):
            answer = self.ok("POST", "/publish", {"topic": "kept.a", "payload": offset})
            (data,) = self.heard()
            self.assertEqual((answer["offset"], answer["epoch"]), (offset, data["epoch"]))

    def test_payload_keeps_its_precision(self) -> None:
        """The payload reaches subscribers as the bytes that came."""
        body = b'{"topic":"a","payload":{"n": 1.10e400,"m":12345678901234567890123}}'
        self.assertEqual(self.ask("POST", "/publish", body).status, 200)
        self.world.settle()
        self.assertIn(
            b'"payload":{"n": 1.10e400,"m":12345678901234567890123},', self.wire.transport.written
        )
        self.wire.transport.written = b""

    def test_in_the_name_of_a_user(self) -> None:
        """A backend may publish for a user, and leave a connection out."""
        body = {"topic": "a", "payload": 1, "from_user": "u7"}
        self.ok("POST", "/publish", body)
        self.assertEqual(self.heard()[0]["from_user"], "u7")
        self.ok("POST", "/publish", body | {"exclude": self.wire.client.connection_id})
        self.assertEqual(self.heard(), [])
        for nobody in ("", "x", "node-", "-1", "\ud7ff"):
            self.ok("POST", "/publish", body | {"exclude": nobody})
            self.assertEqual(len(self.heard()), 1)

    def test_many(self) -> None:
        """Each of many topics has its own result, errors included."""
        body = {"topics": ["a", "small", "$own", "a b", "kept.a"], "payload": "12345"}
        results = self.ok("POST", "/publish", body)["results"]
        self.assertEqual(
            [
                each["error"]["code"] if "error" in each else each.get("offset", 0)
                for each in results
            ],
            [0, "INVALID_REQUEST", "FORBIDDEN", "INVALID_REQUEST", 1],
        )
        self.assertEqual([each["topic"] for each in results], body["topics"])
        self.assertEqual([data["topic"] for data in self.heard()], ["a", "kept.a"])

    def test_key(self) -> None:
        """The same key publishes once, and answers the same."""
        body = {"topic": "kept.a", "payload": 1, "key": "k"}
        first, second = (self.ok("POST", "/publish", body) for _ in range(2))
        self.assertEqual(first, second)
        self.assertEqual(len(self.heard()), 1)

    def test_keys_of_clients(self) -> None:
        """A key is a backend's own: a user's of the same text, or as it is kept, is another."""
        names = {"topic": "kept.a", "from_user": "u1"}
        client = self.world.connect("u1")
        for key in ("k", "1 k", " k", "k ", "1 k".ljust(MAX_KEY)):
            client.ask("Broadcast", {"topic": "a", "payload": 1, "key": key})
            self.ok("POST", "/publish", names | {"topic": "a", "payload": 2, "key": key})
            self.ok("POST", "/publish", names | {"topic": "a", "payload": 3, "key": key})
            self.assertEqual([data["payload"] for data in self.heard()], [1, 2])
        self.ok("POST", "/publish", names | {"topic": "a", "payload": 4, "key": "k" * MAX_KEY})
        self.assertEqual([data["payload"] for data in self.heard()], [4])

    def test_refused(self) -> None:
        """What is refused is told with the field."""
        for body, details in (
            ({"topic": "a"}, {}),
            ({"payload": 1}, {"field": "topic"}),
            ({"topic": "a", "topics": ["b"], "payload": 1}, {"field": "topic"}),
            ({"topic": "", "payload": 1}, {"field": "topic"}),
            ({"topic": "a.*", "payload": 1}, {"field": "topic"}),
            ({"topics": [], "payload": 1}, {"field": "topics"}),
            ({"topics": ["a"] * (MAX_AT_ONCE + 1), "payload": 1}, {"field": "topics"}),
            ({"topic": 1, "payload": 1}, {"field": "topic"}),
            ({"topic": "a", "payload": 1, "key": ""}, {"field": "key"}),
            ({"topic": "a", "payload": 1, "from_user": ""}, {"field": "from_user"}),
            ({"topic": "small", "payload": "1234567"}, {"field": "payload", "max_payload": 5}),
        ):
            self.assert_error(self.ask("POST", "/publish", body), 400, "INVALID_REQUEST", **details)
        self.assert_error(
            self.ask("POST", "/publish", {"topic": "$a", "payload": 1}),
            *(403, "FORBIDDEN"),
            topic="$a",
        )
        for body in (b"", b"[]", b"{", b'{"topic":"a","payload":\xff}', b"[" * 60_000):
            self.assertEqual(self.ask("POST", "/publish", body).status, 400)
        self.assertEqual(self.heard(), [])

    def test_strict(self) -> None:
        """In strict mode a topic without a rule is refused to backends too."""
        self.make(strict=True)
        self.assert_error(
            self.ask("POST", "/publish", {"topic": "a", "payload": 1}),
            *(403, "FORBIDDEN"),
            topic="a",
        )


class BatchTests(BackendTestCase):
    """`POST /batch`, and `POST /users/{id}/messages`."""

    def setUp(self) -> None:
        """Make the world, with one to hear."""
        self.make(topics=RULES)
        self.wire = self.world.connect("u1", username="Ann é/b")
        self.wire.ask("Subscribe", {"topics": ["a", "kept.a"]})

    def test_in_order(self) -> None:
        """Commands are obeyed in order, and one that fails holds up no other."""
        commands = [
            {"publish": {"topic": "a", "payload": 1}},
            {"direct": {"user": "u1", "payload": 2}},
            {"publish": {"topic": "$x", "payload": 0}},
            {"publish": {"topics": ["kept.a", "b"], "payload": 3}},
            {"direct": {"user": "", "payload": 0}},
            {"direct": {"user": "nobody", "payload": 0}},
            {},
            {"publish": {"payload": 0}},
        ]
        results = self.ok("POST", "/batch", {"commands": commands})["results"]
        self.assertEqual(results[0], {"topic": "a"})
        self.assertEqual(results[1], {"delivered": 1})
        self.assertEqual(results[2]["error"]["code"], "FORBIDDEN")
        self.assertEqual([each["topic"] for each in results[3]["results"]], ["kept.a", "b"])
        self.assertEqual(results[5], {"delivered": 0})
        for refused in (4, 6, 7):
            self.assertEqual(results[refused]["error"]["code"], "INVALID_REQUEST")
        self.assertEqual([m["data"]["payload"] for m in self.wire.read()], [1, 2, 3])

    def test_malformed(self) -> None:
        """A batch that is not well formed is refused whole."""
        for body, field in (
            ({"commands": [{"publish": {"topic": "a"}}]}, "commands[0].publish"),
            (
                {"commands": [{"publish": {"topic": 1, "payload": 1}}]},
                "commands[0].publish.topic",
            ),
            ({"commands": [{}] * (MAX_AT_ONCE + 1)}, "commands"),
            ({"commands": {}}, "commands"),
        ):
            self.assert_error(self.ask("POST", "/batch", body), 400, "INVALID_REQUEST", field=field)
        self.assertEqual(self.ok("POST", "/batch", {"commands": []}), {"results": []})

    def test_message(self) -> None:
        """A user is messaged by id or name, percent-encoded in the path."""
        for user in ("u1", "Ann%20%C3%A9%2Fb"):
            answer = self.ok("POST", f"/users/{user}/messages", {"payload": {"x": 1}})
            self.assertEqual(answer, {"delivered": 1})
            (message,) = self.wire.read()
            self.assertEqual(
                (message["type"], message["data"]),
                ("DirectMessage", {"from_user": "user_x", "payload": {"x": 1}}),
            )
        body = {"payload": 1, "key": "k", "from_user": "u9"}
        for _ in range(2):
            self.assertEqual(self.ok("POST", "/users/u1/messages", body), {"delivered": 1})
        (message,) = self.wire.read()
        self.assertEqual(message["data"]["from_user"], "u9")
        self.assert_error(self.ask("POST", "/users/u1/messages", {}), 400, "INVALID_REQUEST")


class GoneTests(BackendTestCase):
    """Backends that ask for much, and do not wait for it."""

    def setUp(self) -> None:
        """Make a world whose broker takes its time."""
        self.cancelled = 0
        self.pending: list[Deferred[Position | None]] = []
        broker = ScriptedBroker()
        broker.answer = lambda publication: self.begin()
        self.make(broker=broker)

    def begin(self) -> Deferred[Position | None]:
        """Begin a publication."""
        begun: Deferred[Position | None] = Deferred(self.cancel)
        self.pending.append(begun)
        return begun

    def cancel(self, begun: Deferred[Position | None]) -> None:
        """Count who gives up what it has begun."""
        self.cancelled += 1

    def post(self, path: str, body: Any) -> Wire:
        """Ask, on a connection that can end."""
        wire = Wire(make_site(self.api.resource))
        text = json.dumps(body).encode()
        wire.send(
            b"POST %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), self.token("service").encode(), len(text), text)
        )
        return wire

    def test_gone(self) -> None:
        """What was begun for one who is gone goes on, and failures of it are nobody's."""
        publish = {"topics": ["a", "b", "c"], "payload": 1}
        for path, body in (
            ("/publish", {"topic": "a", "payload": 1}),
            ("/publish", publish),
            ("/batch", {"commands": [{"publish": publish}, {"publish": publish}]}),
        ):
            wire = self.post(path, body)
            self.assertGreater(len(self.pending), 0)
            wire.end()
            first, *others = self.pending
            first.callback(None)
            for begun in others:
                begun.errback(Unavailable())
            self.pending = []
            del wire, first, others
            gc.collect()
            self.assertEqual((self.flushLoggedErrors(), self.cancelled), ([], 0))

    def test_failures_of_our_own(self) -> None:
        """What fails by our own fault is INTERNAL_ERROR for that command alone, and logged once."""
        publish = {"topic": "a", "payload": 1}
        wire = self.post("/batch", {"commands": [{"publish": publish}, {"publish": publish}]})
        self.pending[1].errback(ZeroDivisionError("ours"))
        self.pending[0].callback(None)
        good, bad = wire.answer().json()["results"]
        self.assertEqual((good, bad["error"]["code"]), ({"topic": "a"}, "INTERNAL_ERROR"))
        self.assertNotIn("ours", bad["error"]["message"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        wire.end()
