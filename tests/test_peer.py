"""Tests of realtime.peer: a client on a node, over a transport in memory."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from realtime import __version__, fanout
from realtime.errors import CloseCode, InvalidToken, TokenExpired, Unavailable
from realtime.model import Permissions, Position, Publication
from tests.support.peers import (
    START,
    MemoryTransport,
    ScriptedBroker,
    Wire,
    World,
    error,
    identity_of,
    outline,
    read_frames,
)
from tests.support.strategies import commands, hostile_bytes

NOW_MS = int(START * 1000)
# What the reference's Node client would take for events of its own (DESIGN section 3).
FORBIDDEN_TYPES = {"error", "connected", "disconnected", "pong", "message"}
SERVER_TYPES = {
    *("Status", "Broadcast", "DirectMessage", "Ack", "Pong", "Error"),
    *("History", "Presence", "Join", "Leave", "Update"),
}
BAD_TOPICS = ["", "a..b", "a b", "a.x*", "a.>.b", "x" * 256, "\x00"]


def status(name: str, **data: Any) -> dict[str, Any]:
    """A `Status` as sent at the start of the test."""
    return {"type": "Status", "data": {"status": name, **data}, "timestamp": NOW_MS}


def broadcast(topic: str, payload: Any, from_user: str = "user_1") -> dict[str, Any]:
    """A `Broadcast` as sent at the start of the test."""
    return {
        "type": "Broadcast",
        "data": {"topic": topic, "payload": payload, "from_user": from_user},
        "timestamp": NOW_MS,
    }


def ack(id: Any, **data: Any) -> dict[str, Any]:
    """An `Ack` as sent at the start of the test."""
    return {"type": "Ack", "id": id, "data": data, "timestamp": NOW_MS}


def subscribed(*topics: str) -> dict[str, Any]:
    """The answer to Subscribe."""
    return status("subscribed", topics=[{"topic": topic} for topic in topics])


class ClientTestCase(SynchronousTestCase):
    """One client, `wire`, in a small world."""

    def setUp(self) -> None:
        self.make_world()

    def make_world(self, **options: Any) -> None:
        """Begin anew with other options."""
        self.world = World(**options)
        self.wire = self.world.connect()

    def assertErrors(self, messages: list[dict[str, Any]], *expected: dict[str, Any]) -> None:
        """`messages` are the errors expected, made by `error`."""
        self.assertEqual([outline(message) for message in messages], list(expected))
        for message in messages:
            self.assertTrue(message["data"]["message"])
            self.assertEqual(set(message["data"]), {"code", "message", "details"})


class WelcomeTests(ClientTestCase):
    """What every connection hears first."""

    def test_welcome(self) -> None:
        """The welcome tells who and where the client is, and what it is held to."""
        wire = self.world.open(
            identity_of("u1", username="alice", session_id="s1", expires_at=START + 60.9)
        )
        self.assertEqual(
            wire.read_now(),
            [
                status(
                    "connected",
                    connection_id=wire.client.connection_id,
                    session_id="s1",
                    user_id="u1",
                    username="alice",
                    expires_at=int(START) + 60,
                    heartbeat_interval_secs=30,
                    client_timeout_secs=60,
                    max_frame_size=65536,
                    server={
                        "name": "WebSocket Real-time Communication Server",
                        "version": __version__,
                    },
                )
            ],
        )

    def test_without_session_and_username(self) -> None:
        """What the token does not name is absent, not null."""
        (welcome,) = self.world.open(identity_of("u1")).read()
        self.assertNotIn("session_id", welcome["data"])
        self.assertNotIn("username", welcome["data"])

    def test_is_first_in_a_busy_turn(self) -> None:
        """The welcome comes first, though the turn has messages for this very user already."""
        self.wire.ask("Subscribe", {"topics": ["a"]})
        self.wire.say("Broadcast", {"topic": "a", "payload": 1})
        other = self.world.open(identity_of("u2"))
        self.wire.say("DirectMessage", {"target_user": "u2", "payload": 2})
        self.assertEqual(
            [(m["type"], m["data"].get("status")) for m in other.read()],
            [("Status", "connected"), ("DirectMessage", None)],
        )

    def test_a_client_that_cannot_take_it(self) -> None:
        """A connection whose very welcome does not fit ends, and leaves nothing behind."""
        transport = MemoryTransport()
        transport.room = 10
        world = self.world
        client = transport.client = type(self.wire.client)(
            world.node, world.policy, transport, identity_of("u2")
        )
        before = len(world.node.deadlines)
        client.open()
        self.assertEqual(transport.close_code, CloseCode.SLOW_CONSUMER)
        client.closed(1000)
        self.assertEqual(len(world.node.deadlines), before)
        self.assertEqual(world.hub.connections(), [self.wire.client])


class SubscribeTests(ClientTestCase):
    """Subscribe and Unsubscribe."""

    def test_with_and_without_id(self) -> None:
        """The Status is sent with an id and without, the id in it where there was one."""
        self.assertEqual(
            self.wire.ask("Subscribe", {"topics": ["a", "b.c"]}), [subscribed("a", "b.c")]
        )
        for id in (0, "", "x", -5, 2**70):
            self.assertEqual(
                self.wire.ask("Subscribe", {"topics": ["a"]}, id=id), [subscribed("a") | {"id": id}]
            )

    def test_duplicates(self) -> None:
        """A topic named twice, or subscribed already, is subscribed once."""
        self.assertEqual(self.wire.ask("Subscribe", {"topics": ["a", "a"]}), [subscribed("a")])
        self.wire.ask("Subscribe", {"topics": ["a"]})
        self.assertEqual(self.world.counters.subscriptions, 1)
        self.assertEqual(
            self.wire.ask("Broadcast", {"topic": "a", "payload": 1}), [broadcast("a", 1)]
        )

    def test_empty(self) -> None:
        """No topics are no error."""
        self.assertEqual(
            self.wire.ask("Subscribe", {"topics": []}, id=1), [subscribed() | {"id": 1}]
        )
        self.assertEqual(
            self.wire.ask("Unsubscribe", {"topics": []}), [status("unsubscribed", topics=[])]
        )

    def test_bad_topic_refuses_the_whole(self) -> None:
        """A name that is no topic, a pattern included, refuses the command and all its topics."""
        self.wire.ask("Subscribe", {"topics": ["kept"]})
        for bad in BAD_TOPICS:
            for type in ("Subscribe", "Unsubscribe"):
                reply = self.wire.ask(type, {"topics": ["good", "kept", bad]}, id=7)
                self.assertErrors(
                    reply, error("INVALID_REQUEST", {"field": "data.topics", "topic": bad}, 7)
                )
        self.assertEqual(list(self.wire.client.topics), ["kept"])

    def test_denied_topics_are_refused_alone(self) -> None:
        """Each denied topic is one Error; the others are subscribed and answer the id."""
        reply = self.wire.ask("Subscribe", {"topics": ["$a", "b", "$c", "d"]}, id=1)
        self.assertErrors(
            reply[:2], error("FORBIDDEN", {"topic": "$a"}), error("FORBIDDEN", {"topic": "$c"})
        )
        self.assertEqual(reply[2:], [subscribed("b", "d") | {"id": 1}])

    def test_all_denied(self) -> None:
        """With nothing subscribed the first Error answers the id, and there is no Status."""
        reply = self.wire.ask("Subscribe", {"topics": ["$a", "$b"]}, id=1)
        self.assertErrors(
            reply, error("FORBIDDEN", {"topic": "$a"}, 1), error("FORBIDDEN", {"topic": "$b"})
        )
        reply = self.wire.ask("Subscribe", {"topics": ["$a"]})
        self.assertErrors(reply, error("FORBIDDEN", {"topic": "$a"}))
        self.assertEqual(self.world.counters.errors, 3)

    def test_token_permissions(self) -> None:
        """A token's permissions narrow what may be subscribed to."""
        wire = self.world.connect(permissions=Permissions(subscribe=("chat.*",), publish=()))
        reply = wire.ask("Subscribe", {"topics": ["chat.a", "chat", "chat.a.b", "other"]})
        self.assertErrors(
            reply[:3],
            *(error("FORBIDDEN", {"topic": topic}) for topic in ("chat", "chat.a.b", "other")),
        )
        self.assertEqual(reply[3:], [subscribed("chat.a")])

    def test_max_subscriptions(self) -> None:
        """Above the limit topics are refused; those there already, and freed places, are not."""
        self.make_world(max_subscriptions=2)
        reply = self.wire.ask("Subscribe", {"topics": ["a", "b", "c"]}, id=1)
        self.assertErrors(reply[:1], error("FORBIDDEN", {"topic": "c"}))
        self.assertEqual(reply[1:], [subscribed("a", "b") | {"id": 1}])
        self.assertEqual(self.wire.ask("Subscribe", {"topics": ["b"]}), [subscribed("b")])
        self.wire.ask("Unsubscribe", {"topics": ["a"]})
        self.assertEqual(self.wire.ask("Subscribe", {"topics": ["c"]}), [subscribed("c")])

    def test_too_many_topics_in_a_command(self) -> None:
        """A command that names more topics than it may is refused whole."""
        topics = [f"t{number}" for number in range(1001)]
        for type in ("Subscribe", "Unsubscribe"):
            (reply,) = self.wire.ask(type, {"topics": topics}, id=1)
            details = {"field": "data.topics", "max_topics": 1000}
            self.assertEqual(outline(reply), error("INVALID_REQUEST", details, 1))
        self.assertEqual(list(self.wire.client.topics), [])
        self.make_world(max_subscriptions=1001, max_topics=1001)
        self.assertEqual(self.wire.ask("Subscribe", {"topics": topics}), [subscribed(*topics)])

    def test_unsubscribe(self) -> None:
        """What is left is not delivered any more; leaving twice is no error."""
        self.wire.ask("Subscribe", {"topics": ["a", "b"]})
        for id in (1, 2):
            self.assertEqual(
                self.wire.ask("Unsubscribe", {"topics": ["a", "a", "never"]}, id=id),
                [status("unsubscribed", topics=["a", "never"]) | {"id": id}],
            )
        self.wire.say("Broadcast", {"topic": "a", "payload": 1})
        self.assertEqual(
            self.wire.ask("Broadcast", {"topic": "b", "payload": 2}), [broadcast("b", 2)]
        )

    def test_server_topics_may_be_left(self) -> None:
        """Leaving needs no permission."""
        self.assertEqual(
            self.wire.ask("Unsubscribe", {"topics": ["$a"]}),
            [status("unsubscribed", topics=["$a"])],
        )

    def test_order_in_one_turn(self) -> None:
        """A topic's messages come after `subscribed` and before `unsubscribed`, in one turn too."""
        self.wire.say("Broadcast", {"topic": "a", "payload": 0})
        self.wire.say("Subscribe", {"topics": ["a"]})
        self.wire.say("Broadcast", {"topic": "a", "payload": 1})
        self.wire.say("Broadcast", {"topic": "a", "payload": 2})
        self.wire.say("Unsubscribe", {"topics": ["a"]})
        self.wire.say("Broadcast", {"topic": "a", "payload": 3})
        self.assertEqual(
            self.wire.read(),
            [
                subscribed("a"),
                broadcast("a", 1),
                broadcast("a", 2),
                status("unsubscribed", topics=["a"]),
            ],
        )

    def test_order_under_load(self) -> None:
        """The same holds while so much is queued that it takes several turns to write."""
        self.patch(fanout, "SLICE", 1)
        for _ in range(3):
            self.world.connect("u2").ask("Subscribe", {"topics": ["busy", "a"]})
        self.wire.ask("Subscribe", {"topics": ["busy"]})
        self.wire.say("Broadcast", {"topic": "busy", "payload": 0})
        self.wire.say("Subscribe", {"topics": ["a"]})
        self.wire.say("Broadcast", {"topic": "a", "payload": 1})
        self.wire.say("Broadcast", {"topic": "busy", "payload": 2})
        self.wire.say("Broadcast", {"topic": "a", "payload": 3})
        self.wire.say("Unsubscribe", {"topics": ["a"]})
        self.wire.say("Broadcast", {"topic": "a", "payload": 4})
        self.assertEqual(
            self.wire.read(),
            [
                broadcast("busy", 0),
                subscribed("a"),
                broadcast("a", 1),
                broadcast("busy", 2),
                broadcast("a", 3),
                status("unsubscribed", topics=["a"]),
            ],
        )


class BroadcastTests(ClientTestCase):
    """Broadcast."""

    def test_reaches_subscribers(self) -> None:
        """Every subscriber gets it, the sender only when subscribed; success is silent."""
        others = [self.world.connect(f"u{number}") for number in range(3)]
        for other in others[:2]:
            other.ask("Subscribe", {"topics": ["a"]})
        self.assertEqual(self.wire.ask("Broadcast", {"topic": "a", "payload": {"x": [1]}}), [])
        expected = [broadcast("a", {"x": [1]})]
        self.assertEqual([other.read() for other in others], [expected, expected, []])
        self.wire.ask("Subscribe", {"topics": ["a"]})
        self.assertEqual(
            self.wire.ask("Broadcast", {"topic": "a", "payload": None}), [broadcast("a", None)]
        )
        self.assertEqual(self.world.counters.messages_sent, 5)
        self.assertEqual(self.world.counters.messages_received, 2)

    def test_ack(self) -> None:
        """With an id there is one Ack, subscribed or not."""
        self.assertEqual(
            self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, id="x"), [ack("x", topic="a")]
        )
        self.wire.ask("Subscribe", {"topics": ["a"]})
        reply = self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=0)
        self.assertEqual(reply, [broadcast("a", 1), ack(0, topic="a")])

    def test_sender_cannot_be_forged(self) -> None:
        """Sender and time are the server's, whatever the client says."""
        self.wire.ask("Subscribe", {"topics": ["a"]})
        data = {"topic": "a", "payload": 1, "from_user": "root", "timestamp": 5}
        reply = self.wire.ask("Broadcast", data, timestamp=5, from_user="root")
        self.assertEqual(reply, [broadcast("a", 1)])

    def test_payload_keeps_its_precision(self) -> None:
        """A payload's numbers arrive as they were written."""
        self.wire.ask("Subscribe", {"topics": ["a"]})
        text = "[123456789012345678901234567890, 0.1000000000000000000001, 1E+400, -0]"
        self.wire.client.receive(
            b'{"type":"Broadcast","data":{"topic":"a","payload":%b}}' % text.encode()
        )
        self.world.settle()
        (frame,), _ = read_frames(self.wire.transport.written)
        payload = json.loads(frame, parse_float=Decimal, parse_int=Decimal)["data"]["payload"]
        self.assertEqual(list(map(str, payload)), text.strip("[]").split(", "))

    def test_bad_topics(self) -> None:
        """A name that is no topic is refused, patterns included."""
        for bad in [*BAD_TOPICS, "a.*", ">"]:
            reply = self.wire.ask("Broadcast", {"topic": bad, "payload": 1}, id=3)
            self.assertErrors(reply, error("INVALID_REQUEST", {"field": "data.topic"}, 3))

    def test_denied(self) -> None:
        """The server's topics, and those that the token does not name, are refused."""
        self.assertErrors(
            self.wire.ask("Broadcast", {"topic": "$a", "payload": 1}),
            error("FORBIDDEN", {"topic": "$a"}),
        )
        wire = self.world.connect(permissions=Permissions((), ("chat.>",)))
        self.assertErrors(
            wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=1),
            error("FORBIDDEN", {"topic": "a"}, 1),
        )
        reply = wire.ask("Broadcast", {"topic": "chat.a.b", "payload": 1}, id=2)
        self.assertEqual(reply, [ack(2, topic="chat.a.b")])
        self.assertEqual(self.world.counters.messages_received, 1)

    def test_order_of_a_sender(self) -> None:
        """Messages of many senders arrive in the order accepted, over many turns."""
        self.wire.ask("Subscribe", {"topics": ["a", "b"]})
        other = self.world.connect("u2")
        for number in range(100):
            sender = (self.wire, other)[number % 3 == 0]
            sender.say("Broadcast", {"topic": "ab"[number % 2], "payload": number})
            if number % 7 == 0:
                self.world.turn()
        self.assertEqual([m["data"]["payload"] for m in self.wire.read()], list(range(100)))


class BrokerTests(ClientTestCase):
    """Broadcast over a broker that takes its time, or fails."""

    def setUp(self) -> None:
        self.broker = ScriptedBroker()
        self.make_world(broker=self.broker)

    def say(self, answer: Any, **more: Any) -> list[dict[str, Any]]:
        """Publish, with what the broker answers to that."""
        self.broker.answer = lambda publication: answer
        return self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, **more)

    def test_position(self) -> None:
        """A position is told in the Ack."""
        reply = self.say(Position(7, "e1"), id=1)
        self.assertEqual(reply, [ack(1, topic="a", offset=7, epoch="e1")])
        self.assertEqual(self.say(Position(8, "e1")), [])

    def test_later(self) -> None:
        """The Ack comes after the broker took it, the ids of several as they are answered."""
        answers: list[Deferred[Position | None]] = [Deferred() for _ in range(3)]
        for id, answer in zip((1, 2, None), answers, strict=True):
            self.assertEqual(self.say(answer, **({} if id is None else {"id": id})), [])
        answers[1].callback(Position(2, "e"))
        self.assertEqual(self.wire.read(), [ack(2, topic="a", offset=2, epoch="e")])
        answers[2].callback(Position(3, "e"))
        answers[0].callback(None)
        self.assertEqual(self.wire.read(), [ack(1, topic="a")])

    def test_out_of_reach(self) -> None:
        """A broker out of reach is an Error UNAVAILABLE, at once or later, with id or without."""
        later: Deferred[Position | None] = Deferred()
        for id in (None, 5):
            more = {} if id is None else {"id": id}
            reply = self.say(fail(Unavailable("redis is down")), **more)
            self.assertErrors(reply, error("UNAVAILABLE", {}, id))
            self.assertEqual(reply[0]["data"]["message"], "redis is down")
        self.assertEqual(self.say(later, id=6), [])
        later.errback(Failure(Unavailable()))
        self.assertErrors(self.wire.read(), error("UNAVAILABLE", {}, 6))

    def test_raises(self) -> None:
        """A broker that raises refuses as one that fails does."""

        def answer(publication: Publication) -> None:
            raise Unavailable

        self.broker.answer = answer
        self.assertErrors(
            self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=1),
            error("UNAVAILABLE", {}, 1),
        )
        self.assertEqual(self.world.counters.messages_received, 0)
        self.assertEqual(self.world.counters.errors, 1)

    def test_unexpected_failure(self) -> None:
        """An exception that nobody foresaw is INTERNAL_ERROR, and its cause only in the log."""
        reply = self.say(fail(ZeroDivisionError("secret")), id=1)
        self.assertErrors(reply, error("INTERNAL_ERROR", {}, 1))
        self.assertNotIn("secret", json.dumps(reply))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

        def answer(publication: Publication) -> None:
            raise ZeroDivisionError("secret")

        self.broker.answer = answer
        reply = self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=2)
        self.assertErrors(reply, error("INTERNAL_ERROR", {}, 2))
        self.assertNotIn("secret", json.dumps(reply))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(self.wire.close_code)

    def test_answer_after_the_end(self) -> None:
        """An answer for a connection that has ended goes nowhere, and does no harm."""
        answers: list[Deferred[Position | None]] = [Deferred(), Deferred()]
        for answer in answers:
            self.say(answer, id=1)
        self.wire.client.closed(1000)
        answers[0].callback(None)
        answers[1].errback(Failure(Unavailable()))
        self.assertEqual(self.wire.read(), [])
        self.assertEqual(self.world.hub._replies, {})


class DirectMessageTests(ClientTestCase):
    """DirectMessage."""

    def test_reaches_all_connections(self) -> None:
        """All of the user's connections get it, nobody else does; success is silent."""
        targets = [self.world.connect("u2") for _ in range(2)]
        other = self.world.connect("u3")
        self.assertEqual(
            self.wire.ask("DirectMessage", {"target_user": "u2", "payload": [None]}), []
        )
        expected = {
            "type": "DirectMessage",
            "data": {"from_user": "user_1", "payload": [None]},
            "timestamp": NOW_MS,
        }
        self.assertEqual([each.read() for each in (*targets, other)], [[expected], [expected], []])

    def test_ack_counts_connections(self) -> None:
        """With an id the Ack tells how many connections it went to."""
        for _ in range(2):
            self.world.connect("u2")
        reply = self.wire.ask("DirectMessage", {"target_user": "u2", "payload": 1}, id=9)
        self.assertEqual(reply, [ack(9, delivered=2)])

    def test_to_oneself(self) -> None:
        """A message to oneself reaches all of one's connections, this one too."""
        second = self.world.connect()
        reply = self.wire.ask("DirectMessage", {"target_user": "user_1", "payload": 1}, id=9)
        self.assertEqual(sorted(m["type"] for m in reply), ["Ack", "DirectMessage"])
        self.assertIn(ack(9, delivered=2), reply)
        self.assertEqual([m["type"] for m in second.read()], ["DirectMessage"])

    def test_by_username(self) -> None:
        """The target is an id or, failing that, a username."""
        target = self.world.connect("u2", username="bob@example.com")
        data = {"target_user": "bob@example.com", "payload": 1}
        self.assertEqual(self.wire.ask("DirectMessage", data, id=1), [ack(1, delivered=1)])
        self.assertEqual(len(target.read()), 1)

    def test_offline_and_unknown_look_alike(self) -> None:
        """Nobody there is no error: silence, or an Ack of none."""
        self.world.connect("u2").client.closed(1000)
        for target in ("u2", "unknown", "x" * 1000, "\x00", " "):
            data = {"target_user": target, "payload": 1}
            self.assertEqual(self.wire.ask("DirectMessage", data), [])
            self.assertEqual(self.wire.ask("DirectMessage", data, id=1), [ack(1, delivered=0)])

    def test_empty_target(self) -> None:
        """An empty target is refused."""
        reply = self.wire.ask("DirectMessage", {"target_user": "", "payload": 1}, id=1)
        self.assertErrors(reply, error("INVALID_REQUEST", {"field": "data.target_user"}, 1))

    def test_order_with_publications(self) -> None:
        """Direct messages and publications of a sender arrive in the order accepted."""
        target = self.world.connect("u2")
        target.ask("Subscribe", {"topics": ["a"]})
        for number in range(6):
            if number % 2:
                self.wire.say("DirectMessage", {"target_user": "u2", "payload": number})
            else:
                self.wire.say("Broadcast", {"topic": "a", "payload": number})
        self.assertEqual([m["data"]["payload"] for m in target.read()], list(range(6)))


class PingTests(ClientTestCase):
    """Ping."""

    def test_pong(self) -> None:
        """A Pong echoes the timestamp where there is one, and tells the server's time."""
        for data, echoed in [
            (None, {}),
            ({}, {}),
            ({"timestamp": None}, {}),
            ({"timestamp": 0}, {"timestamp": 0}),
            ({"timestamp": 1700000000123}, {"timestamp": 1700000000123}),
            ({"timestamp": 1.25}, {"timestamp": 1.25}),
            ({"timestamp": 10**30}, {"timestamp": 10**30}),
        ]:
            expected = {
                "type": "Pong",
                "data": echoed | {"server_time": NOW_MS},
                "timestamp": NOW_MS,
            }
            self.assertEqual(self.wire.ask("Ping", data), [expected])
            self.assertEqual(self.wire.ask("Ping", data, id="p"), [expected | {"id": "p"}])

    def test_is_not_a_message(self) -> None:
        """Pings are counted neither as messages nor as errors."""
        self.wire.ask("Ping")
        counters = self.world.counters
        self.assertEqual(
            (counters.messages_received, counters.messages_sent, counters.errors), (0, 0, 0)
        )


class AuthenticateTests(ClientTestCase):
    """Authenticate."""

    def renew(self, **more: Any) -> list[dict[str, Any]]:
        """Renew by a token for `identity_of(**more)`."""
        self.world.tokens["t"] = identity_of(**more)
        return self.wire.ask("Authenticate", {"token": "t"}, id=1)

    def test_renews(self) -> None:
        """A token of the same user counts from then on."""
        reply = self.renew(expires_at=START + 7200.5, session_id="s2")
        data = {"expires_at": int(START) + 7200}
        self.assertEqual(reply, [status("authenticated", **data) | {"id": 1}])
        self.world.pass_seconds(3600 + 60, self.wire.heard)
        self.assertIsNone(self.wire.close_code)
        self.world.node.revoke("session", "s2")
        self.assertEqual(self.wire.close_code, CloseCode.SESSION_TERMINATED)

    def test_old_deadlines_are_dropped(self) -> None:
        """However often a token is renewed, the connection has one deadline, and none after it."""
        for hours in range(1, 5):
            self.renew(expires_at=START + 3600 * hours)
            self.renew(expires_at=START + 5)
            self.assertEqual(len(self.world.node.deadlines), 1)
        self.wire.client.closed(1000)
        self.assertEqual(len(self.world.node.deadlines), 0)

    def test_without_id(self) -> None:
        """The Status is sent without an id too."""
        self.world.tokens["t"] = identity_of()
        (reply,) = self.wire.ask("Authenticate", {"token": "t"})
        self.assertEqual(reply, status("authenticated", expires_at=int(START) + 3600))

    def test_shorter_token(self) -> None:
        """A token that expires sooner ends the connection sooner."""
        self.renew(expires_at=START + 10)
        self.world.pass_seconds(9, self.wire.heard)
        self.assertIsNone(self.wire.close_code)
        self.world.pass_seconds(1, self.wire.heard)
        self.assertEqual(self.wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_refused_tokens(self) -> None:
        """A bad, expired or foreign token is refused and changes nothing."""
        self.world.tokens |= {
            "bad": InvalidToken(),
            "old": TokenExpired(),
            "foreign": identity_of("u2", expires_at=START + 9999),
        }
        for token, code in [
            ("bad", "INVALID_TOKEN"),
            ("old", "TOKEN_EXPIRED"),
            ("foreign", "FORBIDDEN"),
            ("", "INVALID_TOKEN"),
        ]:
            before = self.wire.client.identity
            reply = self.wire.ask("Authenticate", {"token": token}, id=4)
            self.assertErrors(reply, error(code, {}, 4))
            self.assertIs(self.wire.client.identity, before)
        self.assertIsNone(self.wire.close_code)

    def test_token_is_not_in_the_answer(self) -> None:
        """No token comes back in an answer, nor what an unforeseen failure says."""
        self.world.tokens["very-secret"] = ZeroDivisionError("very-secret")
        reply = self.wire.ask("Authenticate", {"token": "very-secret"}, id=1)
        self.assertErrors(reply, error("INTERNAL_ERROR", {}, 1))
        self.assertNotIn("very-secret", json.dumps(reply))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_lost_topics(self) -> None:
        """Topics that the new token does not permit are left, each with a Status."""
        self.wire.ask("Subscribe", {"topics": ["a.x", "b.x", "c.x"]})
        reply = self.renew(permissions=Permissions(subscribe=("b.*",)))
        lost = [
            status("unsubscribed", topics=[topic], reason="permission") for topic in ("a.x", "c.x")
        ]
        answer = status("authenticated", expires_at=int(START) + 3600) | {"id": 1}
        self.assertEqual([m for m in reply if m != answer], lost)
        self.assertEqual(reply.count(answer), 1)
        for topic in ("a.x", "b.x", "c.x"):
            self.wire.say("Broadcast", {"topic": topic, "payload": 1})
        self.assertEqual(self.wire.read(), [broadcast("b.x", 1)])
        self.assertErrors(
            self.wire.ask("Subscribe", {"topics": ["a.x"]}), error("FORBIDDEN", {"topic": "a.x"})
        )

    def test_publishing_is_narrowed_and_widened(self) -> None:
        """The new token's permissions hold for publishing too."""
        self.renew(permissions=Permissions(publish=()))
        self.assertErrors(
            self.wire.ask("Broadcast", {"topic": "a", "payload": 1}),
            error("FORBIDDEN", {"topic": "a"}),
        )
        self.renew()
        reply = self.wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=1)
        self.assertEqual(reply, [ack(1, topic="a")])

    def test_username_stays(self) -> None:
        """A connection keeps the username it came with, and is found by it to the end."""
        wire = self.world.connect("u2", username="bob")
        self.world.tokens["t"] = identity_of("u2", username="robert")
        wire.ask("Authenticate", {"token": "t"})
        for name, delivered in (("bob", 1), ("robert", 0)):
            data = {"target_user": name, "payload": 1}
            self.assertEqual(
                self.wire.ask("DirectMessage", data, id=1), [ack(1, delivered=delivered)]
            )
        wire.client.closed(1000)
        data = {"target_user": "bob", "payload": 1}
        self.assertEqual(self.wire.ask("DirectMessage", data, id=1), [ack(1, delivered=0)])
        self.world.connect("u3", username="bob")
        self.assertEqual(self.wire.ask("DirectMessage", data, id=1), [ack(1, delivered=1)])


class MalformedTests(ClientTestCase):
    """Messages that are no commands."""

    def test_answers(self) -> None:
        """What is no command is an Error INVALID_REQUEST, with the id where one can be read."""
        for message, field, id in [
            (b"", None, None),
            (b"hello", None, None),
            (b"[]", None, None),
            (b"{}", None, None),
            (b'{"type":"Nope","id":3}', "type", 3),
            (b'{"type":"subscribe","id":"x"}', "type", "x"),
            (b'{"type":"Pong","id":1}', "type", 1),
            (b'{"type":"Subscribe","id":1}', None, 1),
            (b'{"type":"Broadcast","data":{"topic":"a"},"id":1}', "data", 1),
            (b'{"type":"Ping","id":{}}', "id", None),
        ]:
            self.wire.client.receive(message)
            details = {"field": field} if field else {}
            self.assertErrors(self.wire.read(), error("INVALID_REQUEST", details, id))

    def test_too_many(self) -> None:
        """A hundred at once are answered; one more closes with 4502."""
        for _ in range(100):
            self.wire.client.receive(b"x")
        self.assertEqual(len(self.wire.read()), 100)
        self.assertIsNone(self.wire.close_code)
        self.wire.client.receive(b"x")
        self.assertEqual(self.wire.close_code, CloseCode.TOO_MANY_ERRORS)
        self.assertErrors(self.wire.read(), error("INVALID_REQUEST"))
        self.assertEqual(self.world.counters.errors, 101)

    def test_a_few_are_forgiven(self) -> None:
        """Two a second go on for ever; what is refused for its meaning counts for nothing."""
        for _ in range(300):
            for _ in range(2):
                self.wire.client.receive(b"x")
            for _ in range(3):
                self.wire.say("Broadcast", {"topic": "$denied", "payload": 1})
            self.world.pass_seconds(1, self.wire.heard)
        self.assertIsNone(self.wire.close_code)


class RateLimitTests(ClientTestCase):
    """The limit on messages."""

    def setUp(self) -> None:
        self.make_world(message_rate=10, message_burst=5)

    def test_burst_then_refusal(self) -> None:
        """The burst passes; the next is refused with the wait, after which one passes."""
        for id in range(5):
            self.assertEqual([m["type"] for m in self.wire.ask("Ping", id=id)], ["Pong"])
        self.assertErrors(
            self.wire.ask("Ping", id=5), error("RATE_LIMITED", {"retry_after_ms": 100}, 5)
        )
        self.assertErrors(
            self.wire.ask("Broadcast", {"topic": "a", "payload": 1}),
            error("RATE_LIMITED", {"retry_after_ms": 100}),
        )
        self.world.clock.advance(0.1)
        self.assertEqual([m["type"] for m in self.wire.ask("Ping")], ["Pong"])
        self.assertEqual(len(self.wire.ask("Ping")), 1)
        self.assertEqual(self.world.counters.messages_received, 0)

    def test_topics_cost(self) -> None:
        """A command of many topics is obeyed, and has its price in waiting; denied ones most."""
        for topics, wait in (
            (["t"] * 100, (1 + 5 - 5 + 1) * 100),
            ([f"$t{number}" for number in range(20)], (1 + 1 + 20 - 5 + 1) * 100),
        ):
            for type in ("Subscribe", "Unsubscribe")[: 1 + (topics[0] == "t")]:
                self.make_world(message_rate=10, message_burst=5)
                self.wire.ask(type, {"topics": topics})
                self.assertErrors(
                    self.wire.ask("Ping"), error("RATE_LIMITED", {"retry_after_ms": wait})
                )
                self.world.clock.advance(wait / 1000)
                self.assertEqual([m["type"] for m in self.wire.ask("Ping")], ["Pong"])

    def test_refused_has_no_effect(self) -> None:
        """What is refused is not obeyed."""
        for _ in range(5):
            self.wire.ask("Ping")
        self.wire.ask("Subscribe", {"topics": ["a"]})
        self.assertEqual(list(self.wire.client.topics), [])

    def test_malformed_counts_too(self) -> None:
        """Malformed messages take from the rate as commands do."""
        for _ in range(5):
            self.wire.client.receive(b"x")
        self.wire.read()
        (reply,) = self.wire.ask("Ping", id=1)
        self.assertEqual(outline(reply)["code"], "RATE_LIMITED")

    def test_going_on_closes(self) -> None:
        """A client that goes on all the same is closed with 4004."""
        sent = 0
        while self.wire.close_code is None:
            self.wire.client.receive(b'{"type":"Ping"}')
            sent += 1
        self.assertEqual(self.wire.close_code, CloseCode.RATE_LIMITED)
        self.assertEqual(sent, 5 + 100 + 1)

    def test_a_client_that_pauses_stays(self) -> None:
        """A client that pauses as long as it is told is never closed."""
        refused = 0
        for _ in range(3000):
            (reply,) = self.wire.ask("Ping")
            if reply["type"] == "Error":
                refused += 1
                wait = reply["data"]["details"]["retry_after_ms"] / 1000
                self.world.clock.advance(wait)
        self.assertGreater(refused, 200)
        self.assertIsNone(self.wire.close_code)

    def test_clients_are_apart(self) -> None:
        """One client's haste is no other's."""
        other = self.world.connect()
        for _ in range(20):
            self.wire.ask("Ping")
        self.assertEqual([m["type"] for m in other.ask("Ping")], ["Pong"])


class LivenessTests(ClientTestCase):
    """Heartbeat and timeout."""

    def test_pings(self) -> None:
        """A protocol Ping goes out every heartbeat interval, busy or not."""
        pings = []

        def each() -> None:
            self.wire.heard()
            pings.append(self.wire.transport.pings)

        self.world.pass_seconds(91, each)
        # `each` runs before its second's tick.
        self.assertEqual(pings, [0] * 30 + [1] * 30 + [2] * 30 + [3])
        self.assertEqual(self.wire.read(), [])

    def test_silence(self) -> None:
        """A client of which nothing is heard for the timeout is closed with 4003, not before."""
        self.world.pass_seconds(59)
        self.assertIsNone(self.wire.close_code)
        self.world.pass_seconds(1)
        self.assertEqual(self.wire.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_any_sign_of_life(self) -> None:
        """The timeout counts from the last that was heard."""
        self.world.pass_seconds(50)
        self.wire.heard()
        self.world.pass_seconds(59)
        self.assertIsNone(self.wire.close_code)
        self.world.pass_seconds(1)
        self.assertEqual(self.wire.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_timeout_shorter_than_heartbeat(self) -> None:
        """A timeout shorter than the heartbeat holds all the same."""
        self.make_world(heartbeat_interval=30, client_timeout=5)
        self.world.pass_seconds(4)
        self.assertIsNone(self.wire.close_code)
        self.world.pass_seconds(1)
        self.assertEqual(self.wire.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_missed_ticks(self) -> None:
        """Ticks that come late are made up for by one."""
        self.world.clock.advance(45)
        self.world.node.advance()
        self.assertEqual(self.wire.transport.pings, 1)
        self.world.clock.advance(45)
        self.world.node.advance()
        self.assertEqual(self.wire.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_nothing_is_left_behind(self) -> None:
        """A connection that ends, however that is, leaves no deadline."""
        others = [self.world.connect() for _ in range(3)]
        self.world.pass_seconds(31)
        self.assertEqual(len(self.world.node.deadlines), 4)
        self.wire.client.close(CloseCode.FORCED)
        others[0].client.closed(1000)
        self.assertEqual(len(self.world.node.deadlines), 2)
        self.wire.client.closed(1000)
        self.world.pass_seconds(60)
        self.assertEqual([w.close_code for w in others[1:]], [CloseCode.CLIENT_TIMEOUT] * 2)
        self.assertEqual(len(self.world.node.deadlines), 0)


class ExpiryTests(ClientTestCase):
    """The token's end."""

    def open(self, expires_in: float) -> Wire:
        """Connect with a token that expires so many seconds from now."""
        wire = self.world.connect("u2", expires_at=START + expires_in)
        return wire

    def test_notice_and_close(self) -> None:
        """The client is told once, 60 s ahead, and closed with 4001 when the time has come."""
        wire = self.open(100)
        self.world.pass_seconds(39, wire.heard)
        self.assertEqual(wire.read(), [])
        self.world.pass_seconds(1, wire.heard)
        (notice,) = wire.read()
        self.assertEqual(
            notice["data"], {"status": "token_expiring", "expires_at": int(START) + 100}
        )
        self.world.pass_seconds(59, wire.heard)
        self.assertEqual(wire.read(), [])
        self.assertIsNone(wire.close_code)
        self.world.pass_seconds(1, wire.heard)
        self.assertEqual(wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_fractions(self) -> None:
        """A token that expires within a second is good to the end of it, and no longer."""
        wire = self.open(99.5)
        self.world.pass_seconds(99, wire.heard)
        self.assertIsNone(wire.close_code)
        self.world.pass_seconds(1, wire.heard)
        self.assertEqual(wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_short_token(self) -> None:
        """With less than 60 s to go the notice comes with the first tick."""
        wire = self.open(20)
        self.world.pass_seconds(1)
        self.assertEqual([m["data"]["status"] for m in wire.read()], ["token_expiring"])
        self.world.pass_seconds(18)
        self.assertIsNone(wire.close_code)
        self.world.pass_seconds(1)
        self.assertEqual(wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_expired_within_leeway(self) -> None:
        """A token that the leeway let in is closed with the first tick."""
        wire = self.open(-5)
        self.world.pass_seconds(1)
        self.assertEqual(wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_renewal_in_time(self) -> None:
        """A renewal puts notice and close off, and the notice comes again for the new token."""
        wire = self.open(100)
        self.world.pass_seconds(50, wire.heard)
        self.assertEqual(len(wire.read()), 1)
        self.world.tokens["t"] = identity_of("u2", expires_at=START + 300)
        wire.ask("Authenticate", {"token": "t"})
        self.world.pass_seconds(189, wire.heard)
        self.assertEqual(wire.read(), [])
        self.world.pass_seconds(1, wire.heard)
        self.assertEqual([m["data"]["status"] for m in wire.read()], ["token_expiring"])
        self.world.pass_seconds(60, wire.heard)
        self.assertEqual(wire.close_code, CloseCode.TOKEN_EXPIRED)

    def test_keep(self) -> None:
        """Where expired tokens are kept the client is told, and stays."""
        self.make_world(on_token_expiry="keep")
        wire = self.open(100)
        self.world.pass_seconds(500, wire.heard)
        self.assertEqual([m["data"]["status"] for m in wire.read()], ["token_expiring"])
        self.assertIsNone(wire.close_code)
        self.assertEqual(wire.transport.pings, 500 // 30)

    def test_notice_that_does_not_fit(self) -> None:
        """A client that the notice shows to be too slow ends, and leaves no deadline."""
        wire = self.open(100)
        before = len(self.world.node.deadlines)
        wire.transport.room = 0
        self.world.pass_seconds(40, lambda: (wire.heard(), self.wire.heard()))
        self.assertEqual(wire.close_code, CloseCode.SLOW_CONSUMER)
        self.assertEqual(len(self.world.node.deadlines), before - 1)
        wire.client.closed(1000)
        self.assertEqual(len(self.world.node.deadlines), before - 1)


class SlowConsumerTests(ClientTestCase):
    """Clients that do not read."""

    def test_is_cut_alone(self) -> None:
        """A client that takes no more is closed with 4002 in the middle of a fan-out."""
        wires = [self.world.connect(f"u{number}") for number in range(4)]
        for wire in wires:
            wire.ask("Subscribe", {"topics": ["a"]})
        wires[1].transport.room = 3
        self.wire.ask("Broadcast", {"topic": "a", "payload": 1})
        self.assertEqual(wires[1].close_code, CloseCode.SLOW_CONSUMER)
        self.assertEqual([len(wire.read()) for wire in wires], [1, 0, 1, 1])
        self.wire.ask("Broadcast", {"topic": "a", "payload": 2})
        self.assertEqual([len(wire.read()) for wire in wires], [1, 0, 1, 1])


class PromiseTests(SynchronousTestCase):
    """What holds for any messages whatever."""

    def test_types_are_never_the_node_clients_own(self) -> None:
        """No type that the server sends is an event that the reference's Node client emits."""
        self.assertFalse(SERVER_TYPES & FORBIDDEN_TYPES)

    @settings(max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.booleans(), commands | hostile_bytes), max_size=25)
    )
    def test_any_messages(self, script: list[tuple[int, bool, Any]]) -> None:
        """Whatever clients say: known types with the server's time, each id answered once."""
        world = World()
        broker_payloads = 0
        wires = [
            world.connect("u0", username="zero"),
            world.connect("u0"),
            world.connect("u2", permissions=Permissions(("*",), ("a.>", "*"))),
        ]
        world.tokens[""] = identity_of("u0")
        asked: list[list[Any]] = [[], [], []]
        heard: list[list[dict[str, Any]]] = [[], [], []]
        for number, (speaker, turn, message) in enumerate(script):
            wire = wires[speaker]
            if isinstance(message, dict):
                if "id" in message:
                    message = message | {"id": f"{number} {message['id']}"}
                    asked[speaker].append(message["id"])
                message = json.dumps(message).encode()
            elif b"id" in message or not _is_utf8(message):
                continue
            if wire.close_code is None:
                wire.client.receive(message)
            if turn:
                for place, each in enumerate(wires):
                    heard[place] += each.read()
        for place, each in enumerate(wires):
            heard[place] += each.read()
            answered = [message["id"] for message in heard[place] if "id" in message]
            self.assertEqual(sorted(answered), sorted(asked[place]))
            for message in heard[place]:
                self.assertIn(message["type"], SERVER_TYPES)
                self.assertNotIn(message["type"], FORBIDDEN_TYPES)
                self.assertEqual(message["timestamp"], NOW_MS)
                broker_payloads += message["type"] in ("Broadcast", "DirectMessage")
                if message["type"] == "Error":
                    self.assertNotEqual(message["data"]["code"], "INTERNAL_ERROR")
        self.assertEqual(world.counters.messages_sent, broker_payloads)


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
