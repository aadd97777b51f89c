"""Tests of realtime.trace, realtime.tracing and realtime.trace_hooks: what is seen, and bounds."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime.admission import Admission
from realtime.errors import CloseCode, Forbidden, InvalidToken, TokenExpired, Unavailable
from realtime.model import Identity, Namespace, Position
from realtime.node import Node
from realtime.origins import Origins
from realtime.trace import (
    BURST,
    LIFE,
    NAMED,
    PATIENCE,
    SHOWN,
    WAITING,
    Trace,
    named_by,
    payload,
    some,
)
from realtime.tracing import MAX_TRACES, Tracing
from tests.support.peers import ScriptedBroker, Wire, World, identity_of

TOPICS = (
    Namespace("staff.>", subscribe=frozenset({"staff"}), publish=frozenset({"staff"})),
    Namespace("kept.>", history_size=10),
)


class TraceTests(SynchronousTestCase):
    """One trace, without a node."""

    def test_bounds(self) -> None:
        """Events above the rate, and events that nobody fetched in time, are counted only."""
        trace = Trace([], "a", 0.0)
        for _ in range(int(BURST) + 7):
            trace.note(0.0, "x")
        read = trace.read(0, 0.0)
        self.assertEqual((len(read["events"]), read["lost"]), (BURST, 7))
        for second in range(WAITING + 5):
            trace.note(100.0 + second, "y")
        read = trace.read(read["last"], 0.0)
        self.assertEqual((len(read["events"]), read["lost"]), (WAITING, 12))
        self.assertEqual(read["events"][-1]["n"], read["last"])

    def test_read_again(self) -> None:
        """What an answer had that was lost is there until the next is asked for."""
        trace = Trace([], "a", 0.0)
        trace.note(1.0, "x")
        trace.note(2.0, "y")
        self.assertEqual(trace.read(0, 2.0), trace.read(0, 2.0))
        self.assertEqual([event["what"] for event in trace.read(1, 2.0)["events"]], ["y"])

    def test_over(self) -> None:
        """A trace is over after its time, and before when nobody reads it."""
        trace = Trace([], "a", 0.0)
        self.assertFalse(trace.is_over(PATIENCE - 1))
        self.assertTrue(trace.is_over(PATIENCE))
        trace.read(0, LIFE - 1)
        self.assertFalse(trace.is_over(LIFE - 1))
        self.assertTrue(trace.is_over(LIFE))

    def test_payload(self) -> None:
        """Of a payload its size and its beginning are shown, never half a character."""
        self.assertEqual(payload(b'"x"'), {"size": 3, "shown": '"x"'})
        long = payload("é".encode() * 500)
        self.assertEqual((long["size"], long["shown"], long["cut"]), (1000, "é" * SHOWN, True))

    def test_some(self) -> None:
        """Of many topics the first are named, and the others counted."""
        self.assertEqual(some(["a"]), {"topics": ["a"]})
        many = some([str(number) for number in range(NAMED + 3)])
        self.assertEqual((len(many["topics"]), many["more"]), (NAMED, 3))

    def test_who_it_is(self) -> None:
        """A user is known by id, exactly, and by name, in any case."""
        trace = Trace(["Ann"], None, 0.0)
        self.assertTrue(trace.is_of_user(identity_of("u1", username="ann")))
        self.assertTrue(trace.is_of_user(identity_of("Ann")))
        self.assertFalse(trace.is_of_id("ann"))
        self.assertFalse(trace.is_of_user(identity_of("u1", username="bob")))
        self.assertFalse(Trace([], "a", 0.0).is_of_user(identity_of("u1")))

    @given(st.text() | st.binary().map(lambda raw: f"a.{urlsafe_b64encode(raw).decode()}.c"))
    def test_any_token(self, token: str) -> None:
        """What is no token names nobody, and raises nothing."""
        self.assertIsNone(named_by(token))

    def test_refused_token(self) -> None:
        """A token that was refused names somebody all the same."""
        claims = urlsafe_b64encode(b'{"sub":"u1","username":"Ann"}').decode().rstrip("=")
        named = named_by(f"x.{claims}.y")
        assert named is not None
        self.assertEqual((named.user_id, named.username, named.roles), ("u1", "Ann", frozenset()))
        nobody = urlsafe_b64encode(b'{"sub":""}').decode()
        self.assertIsNone(named_by(f"x.{nobody}.y"))


class TracingTests(TestCase):
    """A node with clients, and traces of them."""

    def make(self, **options: Any) -> None:
        """Make a world, and a reader of its traces."""
        self.world = World(**{"topics": TOPICS, **options})
        self.node = self.world.node
        self.admission = Admission(self.node, self.world.policy, Origins(["*"]))
        self.tracing = Tracing(self.node, self.admission, self.world.policy.authenticate)
        self.after: dict[str, int] = {}

    def read(self, *user: str, topic: str | None = None, id: str = "t") -> list[dict[str, Any]]:
        """Read on; the time and number of each event, which others check, left out."""
        found = self.tracing.read(id, user, topic, self.after)
        self.assertEqual(found["node_id"], self.node.node_id)
        self.after[self.node.node_id] = found["last"]
        return [
            {name: value for name, value in event.items() if name not in ("n", "at")}
            for event in found["events"]
        ]

    def whats(self, *user: str, topic: str | None = None) -> list[str]:
        """What has happened, in a word each."""
        return [event["what"] for event in self.read(*user, topic=topic)]

    def who(self, wire: Wire) -> dict[str, Any]:
        """How events name a connection."""
        identity = wire.client.identity
        named = {"user": identity.user_id, "connection": wire.client.connection_id}
        return named if identity.username is None else named | {"username": identity.username}

    def test_beginning(self) -> None:
        """A trace begins with how things are: connections, subscriptions, what the rules say."""
        self.make()
        wire = self.world.connect("u1", username="Ann")
        wire.ask("Subscribe", {"topics": ["a", "b.*"]})
        (now,) = self.read("ann")
        self.assertEqual(
            now,
            {
                "what": "now",
                "of_user": 1,
                "connections": [{"connection": wire.client.connection_id, "topics": ["a", "b.*"]}],
            },
        )
        self.after = {}
        (now,) = self.read(topic="a", id="topic")
        self.assertEqual(now, {"what": "now", "topic": "a", "subscribers": 1, "usable": True})
        self.after = {}
        (now,) = self.read("u1", topic="staff.x", id="both")
        self.assertEqual((now["subscribers"], now["allowed"]), (0, False))
        self.assertIn("the token has user", now["why"])
        self.after = {}
        (now,) = self.read(topic="$mine", id="ours")
        self.assertFalse(now["usable"])

    def test_nobody_is_there(self) -> None:
        """Of a user who is not connected, that is told."""
        self.make()
        (now,) = self.read("nobody")
        self.assertEqual((now["of_user"], now["connections"]), (0, []))

    def test_a_user(self) -> None:
        """All of a user's connection is told, in order, and nothing of others."""
        self.make()
        self.assertEqual(self.whats("Ann"), ["now"])
        other = self.world.connect("u2", username="Bob")
        wire = self.world.connect("u1", username="ann")
        wire.ask("Subscribe", {"topics": ["a", "staff.x"]})
        wire.ask("Unsubscribe", {"topics": ["a", "never"]})
        wire.ask("Broadcast", {"topic": "staff.x", "payload": 1})
        wire.client.close(CloseCode.FORCED)
        wire.client.closed(4501)
        other.ask("Subscribe", {"topics": ["a"]})
        who = self.who(wire)
        events = self.read("Ann")
        refused = [event for event in events if event["what"] == "refused"]
        for event in refused:
            self.assertIn("the token has user", event.pop("why"))
        denied = {"what": "refused", **who, "code": "FORBIDDEN", "topics": ["staff.x"]}
        self.assertEqual(
            events,
            [
                {"what": "connected", **who},
                {**denied, "message": "You may not subscribe to this topic"},
                {"what": "subscribed", **who, "topics": ["a"]},
                {"what": "unsubscribed", **who, "topics": ["a"]},
                {**denied, "message": "You may not publish on this topic"},
                {"what": "disconnected", **who, "code": 4501},
            ],
        )

    def test_refusals_without_a_topic(self) -> None:
        """A user is told of what was refused whatever the topic; a topic's trace is not."""
        self.make(message_rate=1.0, message_burst=1)
        wire = self.world.connect("u1")
        self.read("u1")
        wire.say("Subscribe", {"topics": [""]})
        wire.say("Ping")
        wire.say("Ping")
        self.world.settle()
        codes = [event["code"] for event in self.read("u1")]
        self.assertEqual(codes[-1], "RATE_LIMITED")
        self.assertLessEqual(set(codes), {"INVALID_REQUEST", "RATE_LIMITED"})
        self.after = {}
        self.read(topic="a", id="other")
        wire.say("Ping")
        self.assertEqual(self.read(topic="a", id="other"), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_topic(self) -> None:
        """Of a topic everybody's part is told: who subscribes and leaves, and what is published."""
        self.make()
        here, other = self.world.connect("u1"), self.world.connect("u2")
        here.ask("Subscribe", {"topics": ["kept.*"]})
        self.read(topic="kept.a")
        other.ask("Subscribe", {"topics": ["kept.a", "kept.b"]})
        other.ask("Broadcast", {"topic": "kept.a", "payload": {"x": 1}})
        other.ask("Broadcast", {"topic": "kept.b", "payload": 1})
        other.client.closed(1000)
        published = {"size": 8, "shown": '{"x": 1}', "offset": 1, "delivered": 2}
        self.assertEqual(
            self.read(topic="kept.a"),
            [
                {"what": "subscribed", **self.who(other), "topics": ["kept.a"]},
                {"what": "published", "topic": "kept.a", "from": "u2", **published},
                {"what": "left", **self.who(other), "topics": ["kept.a"]},
            ],
        )

    def test_why_it_did_not_arrive(self) -> None:
        """Of a user and a topic together, each publication tells whether the user had it."""
        self.make()
        sender = self.world.connect("u2")

        def verdict() -> tuple[int, ...]:
            sender.ask("Broadcast", {"topic": "a", "payload": 1})
            event = self.read("u1", topic="a")[-1]
            names = ("delivered", "user_connections", "user_had", "user_left_out")
            return tuple(event[name] for name in names)

        self.read("u1", topic="a")
        self.assertEqual(verdict(), (0, 0, 0, 0))
        first, second = self.world.connect("u1"), self.world.connect("u1")
        self.assertEqual(verdict(), (0, 2, 0, 0))
        first.ask("Subscribe", {"topics": ["*"]})
        self.assertEqual(verdict(), (1, 2, 1, 0))
        second.ask("Subscribe", {"topics": ["a"]})
        second.ask("Broadcast", {"topic": "a", "payload": 1, "echo": False})
        event = self.read("u1", topic="a")[-1]
        self.assertEqual((event["user_had"], event["user_left_out"]), (1, 1))

    def test_what_reaches_a_user(self) -> None:
        """A user's trace has what they publish and what reaches them, and nothing else."""
        self.make()
        sender, reader = self.world.connect("u2"), self.world.connect("u1")
        reader.ask("Subscribe", {"topics": ["a"]})
        self.read("u1")
        sender.ask("Broadcast", {"topic": "a", "payload": 1})
        sender.ask("Broadcast", {"topic": "b", "payload": 1})
        reader.ask("Broadcast", {"topic": "c", "payload": 1})
        self.assertEqual([event["topic"] for event in self.read("u1")], ["a", "c"])

    def test_direct_messages(self) -> None:
        """A direct message tells to how many connections it went."""
        self.make()
        wire, sender = self.world.connect("u1", username="Ann"), self.world.connect("u2")
        self.read("u1")
        sender.ask("DirectMessage", {"target_user": "ann", "payload": "hi"})
        wire.ask("DirectMessage", {"target_user": "nobody", "payload": "hi"})
        sender.ask("DirectMessage", {"target_user": "u2", "payload": "hi"})
        shown = {"size": 4, "shown": '"hi"'}
        self.assertEqual(
            self.read("u1"),
            [
                {"what": "direct", "from": "u2", "to": "ann", "delivered": 1, **shown},
                {"what": "direct", "from": "u1", "to": "nobody", "delivered": 0} | shown,
            ],
        )

    def test_repeated(self) -> None:
        """A publication whose key was used before is told to be a repetition."""
        self.make()
        wire = self.world.connect("u1")
        self.read(topic="a")
        for _ in range(2):
            wire.ask("Broadcast", {"topic": "a", "payload": 1, "key": "k"})
        self.assertEqual(self.whats(topic="a"), ["published", "repeated"])

    def test_recovery(self) -> None:
        """A client that recovers is told to have been sent what it missed."""
        self.make()
        wire = self.world.connect("u1")
        (status,) = wire.ask("Subscribe", {"topics": ["kept.a"]})
        (entry,) = status["data"]["topics"]
        since = {"offset": 0, "epoch": entry["epoch"]}
        wire.ask("Broadcast", {"topic": "kept.a", "payload": 1})
        self.read(topic="kept.a")
        again = self.world.connect("u1")
        again.ask("Subscribe", {"topics": ["kept.a"], "recover": {"kept.a": since}})
        recovered, subscribed = self.read(topic="kept.a")
        self.assertEqual((recovered["what"], recovered["publications"]), ("recovered", 1))
        self.assertEqual(subscribed["what"], "subscribed")

    def test_a_broker_that_takes_time(self) -> None:
        """What is accepted and delivered later is told when it is; so is what fails."""
        broker = ScriptedBroker()
        self.make(broker=broker)
        wire = self.world.connect("u1")
        wire.ask("Subscribe", {"topics": ["kept.a"]})
        self.read(topic="kept.a")
        answers: list[Deferred[Position | None]] = [Deferred(), Deferred()]
        waiting = iter(answers)
        broker.answer = lambda publication: next(waiting)
        for number in range(2):
            wire.say("Broadcast", {"topic": "kept.a", "payload": number}, id=number)
        self.assertEqual(self.read(topic="kept.a"), [])
        answers[0].callback(Position(5, "e"))
        broker.deliver(broker.published[0])
        answers[1].errback(Unavailable("away"))
        published, delivered, failed = self.read(topic="kept.a")
        self.assertEqual((published["what"], published["offset"]), ("published", 5))
        self.assertEqual((delivered["what"], delivered["delivered"]), ("delivered", 1))
        self.assertEqual((failed["what"], failed["message"]), ("failed", "away"))
        heard = [message["type"] for message in wire.read()]
        self.assertEqual(heard, ["Ack", "Broadcast", "Error"])

    def handshake(self, token: str | None) -> dict[str, Any] | None:
        """Try to connect; answer what is told of it."""
        try:
            self.admission.admit(token, None, None)
        except (Forbidden, InvalidToken, Unavailable):
            pass
        events = self.read("Ann")
        return events[-1] if events else None

    def test_turned_away(self) -> None:
        """A handshake that is refused is told: of whom, by a token that is good or is not."""
        self.make()
        self.read("Ann")
        claims = urlsafe_b64encode(b'{"sub":"u1","username":"ann"}').decode()
        expired = f"x.{claims}.y"
        self.world.tokens[expired] = TokenExpired()
        self.world.tokens["good"] = identity_of("u1", username="ann")
        event = self.handshake(expired)
        assert event is not None
        self.assertEqual((event["code"], event["unverified"]), ("TOKEN_EXPIRED", True))
        self.assertNotIn(claims, str(event))
        self.node.draining = True
        event = self.handshake("good")
        assert event is not None
        self.assertEqual(event["code"], "UNAVAILABLE")
        self.assertNotIn("unverified", event)
        self.assertIsNone(self.handshake(None))
        self.assertIsNone(self.handshake("nonsense"))

    def test_turned_away_by_a_hook(self) -> None:
        """A user whom the operator's hook does not admit is told of."""

        class Hooks:
            wants = frozenset({"connect"})

            async def connect(self, identity: Identity) -> None:
                if identity.user_id == "u1":
                    raise Forbidden("Not today")

        self.make()
        policy = replace(self.world.policy, hooks=Hooks())  # type: ignore[arg-type]
        self.admission = Admission(self.node, policy, Origins(["*"]))
        self.tracing = Tracing(self.node, self.admission, policy.authenticate)
        self.read("u1")
        asked = Deferred.fromCoroutine(self.admission.ask(identity_of("u1"), "u1"))
        self.failureResultOf(asked, Forbidden)
        self.world.tokens["u2"] = identity_of("u2")
        asked = Deferred.fromCoroutine(self.admission.ask(identity_of("u2"), "u2"))
        self.assertEqual(self.successResultOf(asked).user_id, "u2")
        (event,) = self.read("u1")
        self.assertEqual((event["what"], event["message"]), ("turned_away", "Not today"))

    def hooked(self) -> bool:
        """Whether a trace is in the way of the node and of admission."""
        found = {type(self.node) is not Node, type(self.admission) is not Admission}
        self.assertEqual(len(found), 1)
        # Nothing is ever set on the node itself, which would be paid for until its end.
        self.assertEqual(set(vars(self.node)) & set(vars(Node)), set())
        return found.pop()

    def test_nothing_is_in_the_way(self) -> None:
        """Before the first trace and after the last, every method is the class's own."""
        self.make()
        deliver = self.node.hub.deliver
        self.assertFalse(self.hooked())
        self.read("u1", id="1")
        self.after = {}
        self.read("u1", id="2")
        self.assertTrue(self.hooked())
        self.assertTrue(self.tracing.end("1"))
        self.assertTrue(self.hooked())
        self.assertTrue(self.tracing.end("2"))
        self.assertFalse(self.tracing.end("2"))
        self.assertFalse(self.hooked())
        self.assertEqual(self.node._broker._deliver, deliver)  # type: ignore[attr-defined]

    def test_ends(self) -> None:
        """A trace ends when its reader is gone, and its reader is told when its time is up."""
        self.make()
        self.read("u1")
        self.world.clock.pump([5.0] * 3)
        self.assertFalse(self.hooked())
        gone = self.tracing.read("t", ["u1"], None, self.after)
        self.assertEqual((gone["events"], gone["ended"]), ([], "over"))
        self.after = {}
        for _ in range(int(LIFE) // 5):
            self.read("u1")
            self.world.clock.advance(5.0)
        self.assertEqual(self.tracing.read("t", ["u1"], None, self.after)["ended"], "over")
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_number(self) -> None:
        """There are only so many traces at a time."""
        self.make()
        for number in range(MAX_TRACES):
            self.assertNotIn("ended", self.tracing.read(str(number), ["u1"], None, {}))
        self.assertEqual(self.tracing.read("more", ["u1"], None, {})["ended"], "full")
        self.tracing.end("0")
        self.assertNotIn("ended", self.tracing.read("more", ["u1"], None, {}))

    def test_harmless(self) -> None:
        """What fails while something is noted is logged, and fails nobody else."""
        self.make()
        wire = self.world.connect("u1")
        self.read("u1")

        def fail(*args: Any, **named: Any) -> None:
            raise RuntimeError("a mistake of ours")

        fails: Callable[..., None] = fail
        self.patch(Trace, "note", fails)
        (status,) = wire.ask("Subscribe", {"topics": ["a"]}, id=1)
        self.assertEqual(status["data"]["status"], "subscribed")
        heard = wire.ask("Broadcast", {"topic": "a", "payload": 1}, id=2)
        self.assertEqual({message["type"] for message in heard}, {"Ack", "Broadcast"})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
