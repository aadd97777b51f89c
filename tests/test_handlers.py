"""Tests of realtime.handlers: what commands about topics do, through a client in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from realtime.handlers import MAX_PAGE, MAX_STATE
from realtime.model import Namespace, Permissions
from tests.support.peers import START, Wire, World, error, outline

KEPT = Namespace("kept.>", history_size=5, presence=True, join_leave=True)
WATCHED = Namespace("watched.>", presence=True)
STAFF = Namespace(
    "staff.>",
    subscribe=frozenset({"staff"}),
    publish=frozenset({"staff"}),
    history_size=5,
    presence=True,
)
INBOX = Namespace("inbox.$user", subscribe=frozenset({"$user"}), publish=frozenset())
SLOW = Namespace("slow", rate=2, max_payload=10)
RULES = (KEPT, WATCHED, STAFF, INBOX, SLOW)


class HandlerTestCase(SynchronousTestCase):
    """A world with rules of every kind."""

    def setUp(self) -> None:
        """Connect a user."""
        self.make_world()

    def make_world(self, **options: Any) -> None:
        """Make the world anew."""
        self.world = World(**({"topics": RULES} | options))
        self.wire = self.world.connect("u1", username="Ann")

    def publish(self, topic: str, *payloads: Any, wire: Wire | None = None) -> None:
        """Publish, by another user."""
        wire = wire or self.world.connect("u9")
        for payload in payloads:
            wire.ask("Broadcast", {"topic": topic, "payload": payload})

    def assert_refused(self, reply: list[dict[str, Any]], code: str, **details: Any) -> None:
        """The one answer is this Error."""
        self.assertEqual([outline(message) for message in reply], [error(code, details, 1)])


def subscribed(*topics: dict[str, Any] | str) -> dict[str, Any]:
    """The data of a `Status`."""
    entries = [{"topic": topic} if isinstance(topic, str) else topic for topic in topics]
    return {"status": "subscribed", "topics": entries}


class RuleTests(HandlerTestCase):
    """Rights of namespaces."""

    def test_denied(self) -> None:
        """A right that is missing is FORBIDDEN for that topic alone; so is a `$user` of others."""
        reply = self.wire.ask("Subscribe", {"topics": ["staff.a", "inbox.u2", "inbox.u1"]}, id=1)
        self.assertEqual(
            [outline(message) for message in reply[:2]],
            [error("FORBIDDEN", {"topic": topic}) for topic in ("staff.a", "inbox.u2")],
        )
        self.assertEqual(reply[2]["data"], subscribed("inbox.u1"))
        for topic in ("staff.a", "inbox.u1"):
            reply = self.wire.ask("Broadcast", {"topic": topic, "payload": 1}, id=1)
            self.assert_refused(reply, "FORBIDDEN", topic=topic)
        for type in ("History", "Presence"):
            reply = self.wire.ask(type, {"topic": "staff.a"}, id=1)
            self.assert_refused(reply, "FORBIDDEN", topic="staff.a")

    def test_token_widens(self) -> None:
        """A token's own permission stands for the roles of a rule."""
        wire = self.world.connect(permissions=Permissions(("staff.a",), ("staff.a",)))
        self.assertEqual(wire.ask("Broadcast", {"topic": "staff.a", "payload": 1}), [])
        (status,) = wire.ask("Subscribe", {"topics": ["staff.a"]})
        self.assertEqual(status["data"]["topics"][0]["offset"], 1)

    def test_strict(self) -> None:
        """In strict mode nobody may use what no rule names, not even with a token's permission."""
        self.make_world(strict=True)
        wire = self.world.connect(permissions=Permissions((">",), (">",)))
        for each in (self.wire, wire):
            for type, data in (
                ("Subscribe", {"topics": ["other"]}),
                ("Broadcast", {"topic": "other", "payload": 1}),
                ("History", {"topic": "other"}),
            ):
                self.assert_refused(each.ask(type, data, id=1), "FORBIDDEN", topic="other")

    def test_rate(self) -> None:
        """A namespace's rate is each connection's, and of its topics together."""
        other = self.world.connect("u2")
        for wire in (self.wire, other):
            for _ in range(2):
                self.assertEqual(wire.ask("Broadcast", {"topic": "slow", "payload": 1}), [])
            reply = wire.ask("Broadcast", {"topic": "slow", "payload": 1}, id=1)
            self.assert_refused(reply, "RATE_LIMITED", retry_after_ms=500)
        self.world.clock.advance(0.5)
        self.assertEqual(other.ask("Broadcast", {"topic": "slow", "payload": 1}), [])

    def test_max_payload(self) -> None:
        """A payload may have as many bytes as its namespace allows, as they were sent."""
        for payload in (b'"12345678"', b"[1,     2]"):
            message = b'{"type":"Broadcast","id":1,"data":{"topic":"slow","payload":%b}}'
            self.wire.client.receive(message % payload)
            self.assertEqual(self.wire.read()[0]["type"], "Ack")
            self.wire.client.receive(message % (payload[:-1] + b" " + payload[-1:]))
            self.assert_refused(
                self.wire.read(), "INVALID_REQUEST", field="data.payload", max_payload=10
            )

    def test_renewal(self) -> None:
        """A renewed token that lacks a right loses its topics and patterns, each with a Status."""
        wire = self.world.connect(permissions=Permissions(("staff.>", "a.*", "b"), None))
        wire.ask("Subscribe", {"topics": ["staff.*", "a.*", "b"]})
        self.world.tokens["new"] = wire.client.identity.__class__(
            "user_1", None, frozenset({"user"}), None, START + 9999, Permissions(("a.>",), None)
        )
        reply = wire.ask("Authenticate", {"token": "new"})
        lost = [m["data"]["topics"] for m in reply if m["data"]["status"] == "unsubscribed"]
        self.assertEqual(sorted(lost), [["b"], ["staff.*"]])
        self.assertEqual(list(wire.client.topics), ["a.*"])


class PatternTests(HandlerTestCase):
    """Wildcard subscriptions."""

    def test_one_copy(self) -> None:
        """However many patterns match, and the name too, there is one copy."""
        self.make_world(topics=())
        (status,) = self.wire.ask("Subscribe", {"topics": ["a.*", "a.>", "a.b", ">"]}, id=1)
        self.assertEqual(status["data"], subscribed("a.*", "a.>", "a.b", ">"))
        self.publish("a.b", 1)
        self.assertEqual([m["data"]["payload"] for m in self.wire.read()], [1])
        self.assertEqual(self.world.counters.messages_sent, 1)
        self.wire.ask("Unsubscribe", {"topics": ["a.>", ">", "a.b"]})
        self.publish("a.b", 2)
        self.publish("a.b.c", 3)
        self.assertEqual([m["data"]["payload"] for m in self.wire.read()], [2])

    def test_permission_is_of_all_that_it_matches(self) -> None:
        """A pattern that could match a topic that is denied is denied."""
        for pattern in (">", "*.a", "staff.*", "inbox.*"):
            reply = self.wire.ask("Subscribe", {"topics": [pattern]}, id=1)
            self.assert_refused(reply, "FORBIDDEN", topic=pattern)
        (status,) = self.wire.ask("Subscribe", {"topics": ["kept.*", "other.>"]})
        self.assertEqual(status["data"], subscribed("kept.*", "other.>"))

    def test_not_the_servers_topics(self) -> None:
        """A wildcard in the first part does not match the server's own topics."""
        self.make_world(topics=())
        self.wire.ask("Subscribe", {"topics": [">", "*"]})
        self.world.hub.announce("$own", b"{}")
        self.assertEqual(self.wire.read(), [])
        reply = self.wire.ask("Subscribe", {"topics": ["$own.*"]}, id=1)
        self.assert_refused(reply, "FORBIDDEN", topic="$own.*")

    def test_nothing_is_kept_of_a_pattern(self) -> None:
        """A pattern has no position to recover from, no history and no presence."""
        recover = {"kept.*": {"offset": 0, "epoch": "e"}}
        (status,) = self.wire.ask("Subscribe", {"topics": ["kept.*"], "recover": recover})
        self.assertEqual(status["data"], subscribed({"topic": "kept.*", "recovered": False}))
        for type in ("History", "Presence"):
            reply = self.wire.ask(type, {"topic": "kept.*"}, id=1)
            self.assert_refused(reply, "INVALID_REQUEST", field="data.topic")


class RecoveryTests(HandlerTestCase):
    """Subscribing from where one left."""

    def subscribe(self, topic: str, since: dict[str, Any] | None = None, **more: Any) -> Any:
        """Subscribe; answer what was sent before the Status, and the topic's entry in it."""
        recover = {} if since is None else {topic: since}
        *missed, status = self.wire.ask("Subscribe", {"topics": [topic], "recover": recover})
        self.assertEqual(status["type"], "Status")
        return [m["data"] for m in missed if m["type"] == "Broadcast"], status["data"]["topics"][0]

    def position(self, topic: str = "kept.a") -> dict[str, Any]:
        """The position of a topic now."""
        _, entry = self.subscribe(topic)
        self.wire.ask("Unsubscribe", {"topics": [topic]})
        return {"offset": entry["offset"], "epoch": entry["epoch"]}

    def test_position(self) -> None:
        """Subscribing tells the position; publications carry theirs, and so do Acks."""
        _, entry = self.subscribe("kept.a")
        self.assertEqual((entry["topic"], entry["offset"]), ("kept.a", 0))
        reply = self.wire.ask("Broadcast", {"topic": "kept.a", "payload": 1}, id=1)
        ack, sent = sorted(reply, key=lambda message: message["type"])
        self.assertEqual(ack["data"], {"topic": "kept.a", "offset": 1, "epoch": entry["epoch"]})
        self.assertEqual((sent["data"]["offset"], sent["data"]["epoch"]), (1, entry["epoch"]))

    def test_without_history(self) -> None:
        """A topic without history has no position, and nothing of it can be recovered."""
        missed, entry = self.subscribe("watched.a", {"offset": 0, "epoch": "e"})
        self.assertEqual((missed, entry), ([], {"topic": "watched.a", "recovered": False}))

    def test_exactly_what_was_missed(self) -> None:
        """What was published since comes before the Status, in order; then what is new."""
        since = self.position()
        self.publish("kept.a", 1, 2, 3)
        missed, entry = self.subscribe("kept.a", since)
        self.assertEqual([(m["payload"], m["offset"]) for m in missed], [(1, 1), (2, 2), (3, 3)])
        self.assertEqual({m["epoch"] for m in missed}, {since["epoch"]})
        self.assertEqual((entry["recovered"], entry["offset"]), (True, 3))
        self.publish("kept.a", 4)
        self.assertEqual([m["data"]["offset"] for m in self.wire.read()], [4])

    def test_nothing_missed(self) -> None:
        """Who is up to date recovers nothing."""
        self.publish("kept.a", 1)
        missed, entry = self.subscribe("kept.a", self.position())
        self.assertEqual((missed, entry["recovered"]), ([], True))

    def test_seam(self) -> None:
        """What is published in the same turn comes once, before or after."""
        since = self.position()
        other = self.world.connect("u2")
        other.say("Broadcast", {"topic": "kept.a", "payload": 1})
        self.wire.say("Subscribe", {"topics": ["kept.a"], "recover": {"kept.a": since}})
        other.say("Broadcast", {"topic": "kept.a", "payload": 2})
        data = [m["data"] for m in self.wire.read() if m["type"] == "Broadcast"]
        self.assertEqual([d["offset"] for d in data], [1, 2])

    def test_no_longer_there(self) -> None:
        """Where something is missing nothing is sent, and `recovered` is false."""
        since = self.position()
        self.publish("kept.a", *range(6))
        for position in (
            since,
            {"offset": 3, "epoch": "other"},
            {"offset": 7, "epoch": since["epoch"]},
        ):
            missed, entry = self.subscribe("kept.a", position)
            self.assertEqual((missed, entry["recovered"], entry["offset"]), ([], False, 6))
            self.wire.ask("Unsubscribe", {"topics": ["kept.a"]})

    def test_one_bound_for_a_command(self) -> None:
        """Of the topics of a command those are recovered that fit together, the others not."""
        topics = [f"kept.{number}" for number in range(4)]
        since = {topic: self.position(topic) for topic in topics}
        for topic in topics[:3]:
            self.publish(topic, "x" * 200_000)
        self.publish(topics[3], "small")
        *missed, status = self.wire.ask("Subscribe", {"topics": topics, "recover": since})
        entries = status["data"]["topics"]
        self.assertEqual([entry["recovered"] for entry in entries], [True, True, False, False])
        self.assertEqual([entry["offset"] for entry in entries], [1] * 4)
        self.assertEqual([m["data"]["topic"] for m in missed], topics[:2])

    def test_too_much(self) -> None:
        """What would be more than one answer holds is not recovered, not even in part."""
        self.make_world(max_reply=1000)
        since = self.position()
        self.publish("kept.a", "x" * 500, "x" * 500)
        missed, entry = self.subscribe("kept.a", since)
        self.assertEqual((missed, entry["recovered"]), ([], False))
        self.wire.ask("Unsubscribe", {"topics": ["kept.a"]})
        missed, entry = self.subscribe("kept.a", since | {"offset": 1})
        self.assertEqual((len(missed), entry["recovered"]), (1, True))

    def test_already_subscribed(self) -> None:
        """Who has subscribed already misses nothing, and is sent nothing twice."""
        since = self.position()
        self.subscribe("kept.a")
        self.publish("kept.a", 1)
        self.wire.read()
        missed, entry = self.subscribe("kept.a", since)
        self.assertEqual(missed, [])
        self.assertNotIn("recovered", entry)

    def test_denied(self) -> None:
        """A topic that is denied is not recovered."""
        self.world.node.publish("staff.a", STAFF, b"1", "boss", START)
        since = {"offset": 0, "epoch": "e"}
        data = {"topics": ["staff.a"], "recover": {"staff.a": since}}
        self.assert_refused(self.wire.ask("Subscribe", data, id=1), "FORBIDDEN", topic="staff.a")


class HistoryTests(HandlerTestCase):
    """The `History` command."""

    def history(self, topic: str = "kept.a", **more: Any) -> Any:
        """The data of the answer."""
        (reply,) = self.wire.ask("History", {"topic": topic, **more}, id=1)
        self.assertEqual((reply["type"], reply["id"]), ("History", 1))
        return reply["data"]

    def offsets(self, **more: Any) -> list[int]:
        """The offsets of the answer."""
        return [entry["offset"] for entry in self.history(**more)["publications"]]

    def test_pages(self) -> None:
        """Pages go on from a position, oldest first, or newest first from the end."""
        self.publish("kept.a", "a", {"b": 1.50}, "c", "d")
        whole = self.history()
        self.assertEqual(
            [(e["offset"], e["payload"], e["from_user"]) for e in whole["publications"]],
            [(1, "a", "u9"), (2, {"b": 1.5}, "u9"), (3, "c", "u9"), (4, "d", "u9")],
        )
        self.assertEqual((whole["topic"], whole["offset"]), ("kept.a", 4))
        since = {"offset": 1, "epoch": whole["epoch"]}
        self.assertEqual(self.offsets(since=since, limit=2), [2, 3])
        self.assertEqual(self.offsets(limit=2, reverse=True), [4, 3])
        self.assertEqual(self.offsets(limit=0), [])

    def test_lost(self) -> None:
        """A position of which something is missing is a CONFLICT."""
        since = {"offset": 3, "epoch": "other"}
        for position in (since, since | {"offset": 2**70}):
            reply = self.wire.ask("History", {"topic": "kept.a", "since": position}, id=1)
            self.assert_refused(reply, "CONFLICT", topic="kept.a")

    def test_none_is_kept(self) -> None:
        """Without a history there is none to be read."""
        reply = self.wire.ask("History", {"topic": "other"}, id=1)
        self.assert_refused(reply, "NOT_FOUND", topic="other")

    def test_size_of_an_answer(self) -> None:
        """An answer has as much as fits, and one publication at least."""
        self.make_world(max_reply=1000)
        self.publish("kept.a", "x" * 250, "x" * 250, "x" * 2000)
        self.assertEqual(self.offsets(), [1, 2])
        since = {"offset": 2, "epoch": self.history()["epoch"]}
        self.assertEqual(self.offsets(since=since), [3])

    def test_pages_cost(self) -> None:
        """Who reads long pages waits for it."""
        self.make_world(message_rate=1, message_burst=3, topics=(Namespace(">", history_size=99),))
        now = self.world.clock.seconds()
        namespace = self.world.node.lookup("t")
        assert isinstance(namespace, Namespace)
        for _ in range(60):
            self.world.node.publish("t", namespace, b"1", "u", now)
        self.assertEqual(len(self.offsets(topic="t")), 60)
        reply = self.wire.ask("Ping", id=1)
        self.assert_refused(reply, "RATE_LIMITED", retry_after_ms=2000)

    def test_limit(self) -> None:
        """A page has at most so many, whatever is asked for."""
        self.make_world(topics=(Namespace(">", history_size=2000),), message_burst=5000)
        now = self.world.clock.seconds()
        namespace = self.world.node.lookup("t")
        assert isinstance(namespace, Namespace)
        for _ in range(MAX_PAGE + 1):
            self.world.node.publish("t", namespace, b"1", "u", now)
        self.assertEqual(len(self.offsets(topic="t", limit=10**9)), MAX_PAGE)
        self.assertEqual(len(self.offsets(topic="t")), 100)


class KeyTests(HandlerTestCase):
    """Publishing once, however often."""

    def test_same_key(self) -> None:
        """The same key publishes once for 5 minutes, and gives back the first position."""
        self.wire.ask("Subscribe", {"topics": ["kept.a", "plain"]})
        for topic, position in (("kept.a", True), ("plain", False)):
            acks = []
            for _ in range(2):
                data = {"topic": topic, "payload": 1, "key": "k"}
                reply = self.wire.ask("Broadcast", data, id=1)
                acks += [m["data"] for m in reply if m["type"] == "Ack"]
                sent = [m for m in reply if m["type"] == "Broadcast"]
                self.assertEqual(len(sent), 2 - len(acks))
            self.assertEqual(acks[0], acks[1])
            self.assertEqual("offset" in acks[0], position)
        self.world.clock.advance(301)
        reply = self.wire.ask("Broadcast", {"topic": "plain", "payload": 1, "key": "k"})
        self.assertEqual([m["type"] for m in reply], ["Broadcast"])

    def test_keys_of_others(self) -> None:
        """Another user's key, another topic's and another key are others."""
        self.wire.ask("Subscribe", {"topics": ["a", "b"]})
        other = self.world.connect("u2")
        for wire, topic, key in (
            (self.wire, "a", "k"),
            (self.wire, "b", "k"),
            (self.wire, "a", "l"),
            (other, "a", "k"),
        ):
            wire.ask("Broadcast", {"topic": topic, "payload": 1, "key": key})
        other.ask("Ping")
        self.assertEqual(self.world.counters.messages_received, 4)
        self.assertEqual(self.world.counters.messages_sent, 4)

    def test_direct_messages(self) -> None:
        """A direct message with the same key is sent once, and acknowledged alike."""
        other = self.world.connect("u2")
        for _ in range(2):
            data = {"target_user": "u2", "payload": 1, "key": "k"}
            (ack,) = self.wire.ask("DirectMessage", data, id=1)
            self.assertEqual(ack["data"], {"delivered": 1})
        self.assertEqual(len(other.read()), 1)

    def test_bad_keys(self) -> None:
        """A key has 1 to 128 characters."""
        for key in ("", "x" * 129, 5):
            data = {"topic": "a", "payload": 1, "key": key}
            (reply,) = self.wire.ask("Broadcast", data, id=1)
            self.assertEqual(outline(reply), error("INVALID_REQUEST", {"field": "data.key"}, 1))


class EchoTests(HandlerTestCase):
    """Publishing to the others."""

    def test_without_echo(self) -> None:
        """The sender's connection is left out, the same user's other ones are not."""
        again, other = self.world.connect("u1"), self.world.connect("u2")
        for wire in (self.wire, again, other):
            wire.ask("Subscribe", {"topics": ["a", "kept.a"]})
        self.wire.read()
        for topic in ("a", "kept.a"):
            data = {"topic": topic, "payload": 1, "echo": False}
            self.assertEqual([m["type"] for m in self.wire.ask("Broadcast", data, id=1)], ["Ack"])
            for wire in (again, other):
                self.assertEqual(
                    [m["type"] for m in wire.read() if "payload" in m["data"]], ["Broadcast"]
                )
        self.assertEqual(self.world.counters.messages_sent, 4)


class PresenceTests(HandlerTestCase):
    """The `Presence` command, and who hears of whom."""

    def presence(self, topic: str = "kept.a", **more: Any) -> Any:
        """The data of the answer."""
        (reply,) = self.wire.ask("Presence", {"topic": topic, **more}, id=1)
        self.assertEqual((reply["type"], reply["id"]), ("Presence", 1))
        return reply["data"]

    def test_members(self) -> None:
        """Who has subscribed by name is present, by user, with a count of connections."""
        self.assertEqual(
            self.presence(), {"topic": "kept.a", "users": 0, "connections": 0, "members": []}
        )
        wires = [self.world.connect(user) for user in ("u2", "u2", "u3")]
        for wire in wires:
            wire.ask("Subscribe", {"topics": ["kept.a"]})
        self.wire.ask("Subscribe", {"topics": ["kept.*"]})
        self.assertEqual(
            self.presence(),
            {
                "topic": "kept.a",
                "users": 2,
                "connections": 3,
                "members": [
                    {"user_id": "u2", "connections": 2},
                    {"user_id": "u3", "connections": 1},
                ],
            },
        )
        page = self.presence(limit=1)
        self.assertEqual(page["after"], "u2")
        self.assertEqual(
            [m["user_id"] for m in self.presence(limit=1, after=page["after"])["members"]], ["u3"]
        )

    def test_join_and_leave(self) -> None:
        """Subscribers hear of the first connection, and of the last one's end after the grace."""
        self.wire.ask("Subscribe", {"topics": ["kept.a"]})
        self.wire.read()
        others = [self.world.connect("u2") for _ in range(2)]
        for wire in others:
            wire.ask("Subscribe", {"topics": ["kept.a"]})
        who = {"topic": "kept.a", "user_id": "u2"}
        self.assertEqual([(m["type"], m["data"]) for m in self.wire.read()], [("Join", who)])
        others[0].client.closed(1000)
        others[1].ask("Unsubscribe", {"topics": ["kept.a"]})
        self.world.pass_seconds(4)
        self.assertEqual(self.wire.read(), [])
        self.world.pass_seconds(2)
        self.assertEqual([(m["type"], m["data"]) for m in self.wire.read()], [("Leave", who)])

    def test_state(self) -> None:
        """One's own state is set where one has subscribed; subscribers are told, null clears it."""
        reply = self.wire.ask("Presence", {"topic": "kept.a", "state": 1}, id=1)
        self.assert_refused(reply, "CONFLICT", topic="kept.a")
        other = self.world.connect("u2")
        for wire in (self.wire, other):
            wire.ask("Subscribe", {"topics": ["kept.a"]})
        self.wire.read()
        other.read()
        for state in ({"typing": True}, None):
            reply = self.wire.ask("Presence", {"topic": "kept.a", "state": state}, id=1)
            answers = [m for m in reply if m["type"] == "Presence"]
            me = {"user_id": "u1", "username": "Ann", "connections": 1}
            if state is not None:
                me["state"] = state
            self.assertEqual(answers[0]["data"], {"topic": "kept.a", "members": [me]})
            (update,) = other.read()
            self.assertEqual(
                (update["type"], update["data"]),
                (
                    "Update",
                    {"topic": "kept.a", "user_id": "u1", "username": "Ann", "state": state},
                ),
            )

    def test_large_state(self) -> None:
        """A state has at most so many bytes."""
        self.wire.ask("Subscribe", {"topics": ["watched.a"]})
        for size, good in ((MAX_STATE - 2, True), (MAX_STATE - 1, False)):
            data = {"topic": "watched.a", "state": "x" * size}
            (reply,) = self.wire.ask("Presence", data, id=1)
            self.assertEqual(reply["type"], "Presence" if good else "Error")
        self.assert_refused([reply], "INVALID_REQUEST", field="data.state")

    def test_state_is_limited_as_publications_are(self) -> None:
        """A state, which all subscribers hear of, is held to the rate and size of its rule."""
        limited = Namespace(">", presence=True, join_leave=True, rate=1, max_payload=5)
        self.make_world(topics=(limited,))
        self.wire.ask("Subscribe", {"topics": ["a"]})
        reply = self.wire.ask("Presence", {"topic": "a", "state": "12345"}, id=1)
        self.assert_refused(reply, "INVALID_REQUEST", field="data.state", max_payload=5)
        self.wire.ask("Presence", {"topic": "a", "state": 1})
        reply = self.wire.ask("Presence", {"topic": "a", "state": 2}, id=1)
        self.assert_refused(reply, "RATE_LIMITED", retry_after_ms=1000)

    def test_none_is_kept(self) -> None:
        """Where the namespace does not ask for it nobody is present."""
        reply = self.wire.ask("Presence", {"topic": "other"}, id=1)
        self.assert_refused(reply, "NOT_FOUND", topic="other")

    def test_renewal_takes_off(self) -> None:
        """Who loses a topic is present there no more."""
        self.wire.ask("Subscribe", {"topics": ["kept.a"]})
        identity = self.wire.client.identity
        self.world.tokens["new"] = identity.__class__(
            "u1", "Ann", frozenset(), None, START + 9999, Permissions((), None)
        )
        self.wire.ask("Authenticate", {"token": "new"})
        self.world.pass_seconds(6)
        watcher = self.world.connect("u2")
        (reply,) = watcher.ask("Presence", {"topic": "kept.a"})
        self.assertEqual(reply["data"]["users"], 0)


class HostileTests(HandlerTestCase):
    """Data of the wrong kind."""

    def test_wrong_types(self) -> None:
        """Members of the wrong type are named."""
        for type, data, field in (
            ("Subscribe", {"topics": ["a"], "recover": []}, "data.recover"),
            ("Subscribe", {"topics": [], "recover": {"a": {"offset": -1, "epoch": ""}}}, None),
            ("Subscribe", {"topics": [], "recover": {"a": {"offset": 1}}}, None),
            ("History", {"topic": "a", "limit": -1}, "data.limit"),
            ("Presence", {"topic": "a", "after": 1}, "data.after"),
            ("Broadcast", {"topic": "a", "payload": 1, "echo": "no"}, "data.echo"),
        ):
            (reply,) = self.wire.ask(type, data, id=1)
            shown = outline(reply)
            self.assertEqual((shown["code"], shown["id"]), ("INVALID_REQUEST", 1), json.dumps(data))
            if field is not None:
                self.assertEqual(shown["details"], {"field": field})
