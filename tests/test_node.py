"""Tests of realtime.node."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from realtime.drain import close_all
from realtime.errors import CloseCode, ServerFull, Unavailable
from realtime.model import Health, Namespace, Permissions, Position
from realtime.rules import DEFAULT
from tests.support.backends import Recorder
from tests.support.peers import START, ScriptedBroker, Wire, World, identity_of


class ConnectionTests(SynchronousTestCase):
    """Who is let in, counted and sent away."""

    def test_admits_up_to_max_connections(self) -> None:
        """As many connections as agreed are admitted; the next is refused until one has ended."""
        world = World(max_connections=2)
        wires = []
        for _ in range(2):
            world.node.admit()
            wires.append(world.connect())
        self.assertRaises(ServerFull, world.node.admit)
        wires[0].client.mute()
        self.assertRaises(ServerFull, world.node.admit)
        wires[0].client.closed(1000)
        world.node.admit()

    def test_refuses_while_draining(self) -> None:
        """A draining node admits nobody, full or not."""
        world = World(max_connections=0)
        self.assertRaises(ServerFull, world.node.admit)
        close_all(world.node, CloseCode.SERVICE_RESTART)
        self.assertRaises(Unavailable, world.node.admit)

    def test_numbers_are_unique(self) -> None:
        """No number and no connection id is given twice, not even after an end."""
        world = World()
        ids = set()
        for _ in range(20):
            wire = world.connect()
            ids.add((wire.client.number, wire.client.connection_id))
            wire.client.closed(1000)
        self.assertEqual(len({number for number, _ in ids}), 20)
        self.assertEqual(len({name for _, name in ids}), 20)
        self.assertNotEqual(
            World().connect().client.connection_id, World().connect().client.connection_id
        )

    def test_counters(self) -> None:
        """Connections are counted open until they have ended, and for ever in total."""
        world = World()
        first, second = world.connect(), world.connect()
        self.assertEqual(world.counters.active_connections, 2)
        first.client.mute()
        self.assertEqual(world.counters.active_connections, 2)
        first.client.closed(1000)
        self.assertEqual(world.counters.active_connections, 1)
        second.client.closed(1000)
        self.assertEqual(world.counters.active_connections, 0)
        self.assertEqual(world.counters.total_connections, 2)
        self.assertEqual(len(world.hub), 0)

    def test_revoke_session(self) -> None:
        """Ending a session closes its connections with 4500, and no others."""
        world = World()
        ended = [world.connect("u1", session_id="s1") for _ in range(2)]
        kept = [
            world.connect("u1", session_id="s2"),
            world.connect("s1"),
            world.connect("u2", session_id=None),
        ]
        world.node.revoke("session", "s1")
        self.assertEqual([w.close_code for w in ended], [CloseCode.SESSION_TERMINATED] * 2)
        self.assertEqual([w.close_code for w in kept], [None] * 3)

    def test_revoke_user(self) -> None:
        """Removing a user closes all their connections with 4500, and no others."""
        world = World()
        ended = [world.connect("u1", session_id="s1"), world.connect("u1", session_id="s2")]
        kept = [world.connect("u2", session_id="u1"), world.connect("u3", username="u1")]
        world.node.revoke("user", "u1")
        self.assertEqual([w.close_code for w in ended], [CloseCode.SESSION_TERMINATED] * 2)
        self.assertEqual([w.close_code for w in kept], [None] * 2)

    def test_dropped_key(self) -> None:
        """Whose token was signed by a key that counts no more is closed with 4001: get another."""
        world = World()
        ended = world.connect("u1", key="old")
        kept = [world.connect("u1", key="new"), world.connect("old")]
        world.node.revoke("key", "old")
        self.assertEqual(ended.close_code, CloseCode.TOKEN_EXPIRED)
        self.assertEqual([w.close_code for w in kept], [None] * 2)

    def test_revoked_is_deaf(self) -> None:
        """A connection that is being closed gets nothing more and is not found any more."""
        world = World()
        ended, other = world.connect("u1"), world.connect("u2")
        ended.ask("Subscribe", {"topics": ["a"]})
        world.node.revoke("user", "u1")
        other.ask("Broadcast", {"topic": "a", "payload": 1})
        reply = other.ask("DirectMessage", {"target_user": "u1", "payload": 1}, id=1)
        self.assertEqual(reply[0]["data"], {"delivered": 0})
        self.assertEqual(ended.read(), [])


class CloseAllTests(SynchronousTestCase):
    """The node's end."""

    def test_tells_closes_and_waits(self) -> None:
        """All are told and closed with the code, and the Deferred waits for the last end."""
        world = World()
        wires = [world.connect(f"u{number}") for number in range(3)]
        wires[0].say("Subscribe", {"topics": ["a"]})
        wires[0].say("Broadcast", {"topic": "a", "payload": 1})
        done = close_all(world.node, CloseCode.SERVICE_RESTART)
        self.assertTrue(world.node.draining)
        heard = [wire.read_now() for wire in wires]
        self.assertEqual(
            [[(m["type"], m["data"].get("status")) for m in each] for each in heard],
            [
                [("Status", "subscribed"), ("Broadcast", None), ("Status", "draining")],
                [("Status", "draining")],
                [("Status", "draining")],
            ],
        )
        self.assertEqual([w.close_code for w in wires], [CloseCode.SERVICE_RESTART] * 3)
        for wire in wires:
            self.assertNoResult(done)
            wire.client.closed(1000)
        self.assertIsNone(self.successResultOf(done))
        world.settle()

    def test_empty_node(self) -> None:
        """Where nobody is connected there is nothing to wait for."""
        done = close_all(World().node, CloseCode.SERVICE_RESTART)
        self.assertIsNone(self.successResultOf(done))

    def test_asked_twice(self) -> None:
        """Everybody who asked for the end learns of it, once."""
        world = World()
        wire = world.connect()
        asked = [close_all(world.node, CloseCode.SERVICE_RESTART) for _ in range(2)]
        wire.client.closed(1000)
        for done in asked:
            self.assertIsNone(self.successResultOf(done))
        world.connect().client.closed(1000)


class TopicTests(SynchronousTestCase):
    """What goes to the broker, and what comes from it."""

    def setUp(self) -> None:
        self.broker = ScriptedBroker()
        self.world = World(self.broker)
        self.first, self.second = self.world.connect("u1"), self.world.connect("u2")

    def subscribe(self, wire: Wire, *topics: str) -> None:
        """Subscribe and read the answer."""
        wire.ask("Subscribe", {"topics": list(topics)})

    def test_broker_hears_of_first_and_last(self) -> None:
        """The broker is told of a topic's first subscriber here and of the last one's leaving."""
        self.subscribe(self.first, "a", "b")
        self.subscribe(self.second, "a")
        self.assertEqual(self.broker.topics, ["a", "b"])
        self.first.ask("Unsubscribe", {"topics": ["a", "b"]})
        self.assertEqual(self.broker.topics, ["a"])
        self.second.ask("Unsubscribe", {"topics": ["a", "never"]})
        self.assertEqual(self.broker.topics, [])

    def test_broker_hears_of_the_end(self) -> None:
        """A connection that closes leaves its topics, once."""
        self.subscribe(self.first, "a", "b")
        self.subscribe(self.second, "a")
        self.first.client.mute()
        self.assertEqual(self.broker.topics, ["a"])
        self.first.client.closed(1000)
        self.second.client.closed(1000)
        self.assertEqual(self.broker.topics, [])

    def test_publication_goes_down_and_comes_up(self) -> None:
        """A publication is delivered when the broker brings it, not before."""
        self.subscribe(self.first, "a")
        self.world.node.publish("a", DEFAULT, b"1.50", "u9", START + 0.25)
        self.assertEqual(self.first.read(), [])
        (sent,) = self.broker.published
        self.assertEqual(
            (sent.topic, sent.payload, sent.from_user, sent.timestamp),
            ("a", b"1.50", "u9", int(START * 1000) + 250),
        )
        self.broker.deliver(sent)
        self.assertEqual(
            self.first.read(),
            [
                {
                    "type": "Broadcast",
                    "data": {"topic": "a", "payload": 1.5, "from_user": "u9"},
                    "timestamp": int(START * 1000) + 250,
                }
            ],
        )

    def test_answers_of_the_broker_are_passed_on(self) -> None:
        """What the broker answers to a publication is what `publish` answers."""
        later: Deferred[Position | None] = Deferred()
        for answer in (None, Position(1, "e"), later):
            self.broker.answer = lambda publication, answer=answer: answer  # type: ignore[misc]
            self.assertIs(self.world.node.publish("a", DEFAULT, b"1", "u", START), answer)

    def test_counts_what_was_accepted(self) -> None:
        """Publications and direct messages are counted as received when they are accepted."""
        self.world.node.publish("a", DEFAULT, b"1", "u", START)
        self.world.node.direct("nobody", b"1", "u", START)
        self.assertEqual(self.world.counters.messages_received, 2)

        def refuse(publication: object) -> None:
            raise Unavailable

        self.broker.answer = refuse
        self.assertRaises(Unavailable, self.world.node.publish, "a", DEFAULT, b"1", "u", START)
        self.assertEqual(self.world.counters.messages_received, 2)

    def test_impossible_names(self) -> None:
        """Nobody has a name that is too long, and nothing is remembered of it."""
        node = self.world.node
        for user in ("x" * 256, "é" * 200, "a\nb"):
            self.assertEqual(node.direct(user, b"1", "u", START, "key"), 0)
        self.assertEqual(len(node._direct_keys), 0)

    def test_failures_of_the_broker_are_passed_on(self) -> None:
        """A failure of the broker is the publisher's to hear."""
        self.broker.answer = lambda publication: fail(Unavailable())
        result = self.world.node.publish("a", DEFAULT, b"1", "u", START)
        assert isinstance(result, Deferred)
        self.failureResultOf(result, Unavailable)

    def test_direct_messages_are_counted_per_connection(self) -> None:
        """A direct message counts one delivery for each connection that gets it."""
        self.world.connect("u1")
        self.assertEqual(self.world.node.direct("u1", b"1", "u2", START), 2)
        self.assertEqual(self.world.node.direct("u7", b"1", "u2", START), 0)
        self.assertEqual(self.world.counters.messages_sent, 2)


class EventTests(SynchronousTestCase):
    """What an operator's backend is told."""

    def test_in_order(self) -> None:
        """Comings and goings, first and last subscribers, and what each command did."""
        events = Recorder()
        world = World(events=events, topics=(Namespace("closed", subscribe=frozenset()),))
        first, second = world.connect("u1"), world.connect("u2")
        first.ask("Subscribe", {"topics": ["a", "closed", "b.*"]})
        second.ask("Subscribe", {"topics": ["a"]})
        second.ask("Subscribe", {"topics": []})
        first.ask("Unsubscribe", {"topics": ["b.*", "never"]})
        first.ask("Unsubscribe", {"topics": ["never"]})
        second.client.closed(1006)
        first.client.close(CloseCode.FORCED)
        first.client.closed(4501)
        self.assertEqual(
            events.take(),
            [
                ("connect", "u1"),
                ("connect", "u2"),
                ("occupied", "a"),
                ("occupied", "b.*"),
                ("subscribe", "u1", "a", "b.*"),
                ("subscribe", "u2", "a"),
                ("vacated", "b.*"),
                ("unsubscribe", "u1", "b.*"),
                ("disconnect", "u2", 1006),
                ("vacated", "a"),
                ("disconnect", "u1", 4501),
            ],
        )

    def test_publications(self) -> None:
        """Publications are told with their positions once they are accepted, if wanted."""
        for events, told in (
            (Recorder("publish"), [("a", b"1", None), ("h", b"2", 1), ("h", b"3", 2)]),
            (Recorder(), []),
        ):
            node = World(events=events).node
            kept = Namespace("h", history_size=5)
            node.publish("a", DEFAULT, b"1", "u", START)
            node.publish("h", kept, b"2", "u", START, "key")
            node.publish("h", kept, b"9", "u", START, "key")
            node.publish("h", kept, b"3", "u", START)
            self.assertEqual(events.take(), [("publish", *each) for each in told])

    def test_lost_permission(self) -> None:
        """A renewed token's lost topics are left as by a command."""
        events = Recorder()
        world = World(events=events)
        wire = world.connect("u1")
        wire.ask("Subscribe", {"topics": ["a", "b"]})
        world.tokens["new"] = identity_of("u1", permissions=Permissions(("a",), None))
        events.take()
        wire.ask("Authenticate", {"token": "new"})
        self.assertEqual(events.take(), [("vacated", "b"), ("unsubscribe", "u1", "b")])


class DeadlineTests(SynchronousTestCase):
    """Deadlines on the node's clock."""

    def test_tick(self) -> None:
        """What is due is told the present second, when it has come and not before."""
        world = World()
        told: list[int] = []

        class Due:
            def on_deadline(self, tick: int) -> None:
                told.append(tick)

        world.node.deadlines.schedule(Due(), int(START) + 3)
        world.pass_seconds(2)
        self.assertEqual(told, [])
        world.clock.advance(1.9)
        world.node.advance()
        self.assertEqual(told, [int(START) + 3])
        self.assertEqual(world.node.tick, int(START) + 3)


class HealthTests(SynchronousTestCase):
    """What `/health` is made of."""

    def test_health(self) -> None:
        """Health tells connections and age; being full or draining is a reason to be unwell."""
        world = World(max_connections=1)
        world.clock.advance(12.5)
        self.assertEqual(world.node.health(), Health(None, 0, 1, 12))
        world.connect()
        self.assertEqual(world.node.health(), Health("At capacity", 1, 1, 12))
        close_all(world.node, CloseCode.SERVICE_RESTART)
        self.assertEqual(world.node.health().reason, "Draining")
