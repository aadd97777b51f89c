"""Tests of realtime.asking: a gatekeeper is asked, and obeyed, in the order of the commands."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from realtime.asking import AskingClient
from realtime.errors import CloseCode, Forbidden, Unavailable
from realtime.model import Namespace
from tests.support.backends import Gate
from tests.support.peers import MemoryTransport, Wire, World, error, identity_of, outline


class AskingTestCase(SynchronousTestCase):
    """A client that asks about everything."""

    def setUp(self) -> None:
        """Connect, and one beside that does not ask."""
        self.gate = Gate("subscribe", "publish")
        rules = (
            Namespace("closed", subscribe=frozenset(), publish=frozenset()),
            Namespace("small", max_payload=10),
        )
        self.world = World(topics=rules, hooks=self.gate, max_subscriptions=5)
        transport = MemoryTransport()
        client = transport.client = AskingClient(
            self.world.node, self.world.policy, transport, identity_of("u1")
        )
        client.open()
        self.wire = Wire(self.world, client, transport)
        self.wire.read()
        self.other = self.world.connect("u2")

    def allow(self, verdict: Any = None) -> list[dict[str, Any]]:
        """Give an answer to the oldest open question; answer what is sent then."""
        self.gate.answers.pop(0).callback(verdict)
        return self.wire.read()

    def deny(self, failure: Exception) -> list[dict[str, Any]]:
        """Refuse the oldest open question; answer what is sent then."""
        self.gate.answers.pop(0).errback(failure)
        return self.wire.read()


class PublishTests(AskingTestCase):
    """Questions about publishing."""

    def publish(self, payload: Any = 1, topic: str = "t", **more: Any) -> list[dict[str, Any]]:
        """Publish; answer what is sent before there is a verdict."""
        return self.wire.ask("Broadcast", {"topic": topic, "payload": payload}, **more)

    def test_allowed(self) -> None:
        """What is allowed is published then, unchanged, and acknowledged."""
        self.other.ask("Subscribe", {"topics": ["t"]})
        message = b'{"type":"Broadcast","id":1,"data":{"topic":"t","payload":{"n":1.10e2 }}}'
        self.wire.client.receive(message)
        self.assertEqual((self.wire.read(), self.other.read()), ([], []))
        self.assertEqual(self.gate.asked, [("publish", "t", b'{"n":1.10e2 }')])
        (ack,) = self.allow(b'{"n":1.10e2 }')
        self.assertEqual((ack["type"], ack["id"]), ("Ack", 1))
        self.world.settle()
        self.assertIn(b'"payload":{"n":1.10e2 },', self.other.transport.written)

    def test_rewritten(self) -> None:
        """The gatekeeper's payload is the one that is published."""
        self.other.ask("Subscribe", {"topics": ["t"]})
        self.publish("rude")
        self.allow(b'"polite"')
        self.assertEqual([m["data"]["payload"] for m in self.other.read()], ["polite"])

    def test_denied(self) -> None:
        """What is denied is refused, and reaches nobody."""
        self.other.ask("Subscribe", {"topics": ["t"]})
        for failure, code in ((Forbidden("no"), "FORBIDDEN"), (Unavailable(), "UNAVAILABLE")):
            self.publish(id=5)
            self.assertEqual([outline(m) for m in self.deny(failure)], [error(code, {}, 5)])
        self.assertEqual(self.other.read(), [])

    def test_not_asked(self) -> None:
        """What the rules refuse, or is no command, is not asked about."""
        self.assertEqual(outline(self.publish(topic="closed")[0])["code"], "FORBIDDEN")
        self.assertEqual(outline(self.publish(topic="a..b")[0])["code"], "INVALID_REQUEST")
        self.wire.client.receive(b"{")
        self.assertEqual(outline(self.wire.read()[0])["code"], "INVALID_REQUEST")
        self.assertEqual(self.gate.asked, [])

    def test_too_fast_or_too_large(self) -> None:
        """What the limits refuse is not asked about."""
        self.assertEqual(
            outline(self.publish("x" * 9, topic="small")[0])["code"], "INVALID_REQUEST"
        )
        for _ in range(5):
            self.wire.client.spend(1000)
        self.assertEqual(outline(self.publish()[0])["code"], "RATE_LIMITED")
        self.assertEqual(self.gate.asked, [])

    def test_questions_are_charged(self) -> None:
        """A question counts as a message, whatever its answer, and only once."""
        self.wire.client.spend(997)
        for number in range(6):
            self.publish(number, id=number)
        replies = [each for _ in range(3) for each in self.deny(Forbidden())]
        codes = [outline(reply)["code"] for reply in replies]
        self.assertEqual(codes, ["FORBIDDEN"] * 3 + ["RATE_LIMITED"] * 3)
        self.assertEqual(len(self.gate.asked), 3)

    def test_not_silent_while_unread(self) -> None:
        """A client that is not read, as a question is open, is not taken for dead."""
        self.publish()
        self.world.pass_seconds(200)
        self.assertIsNone(self.wire.transport.close_code)
        self.assertEqual([m["type"] for m in self.allow(b"1")], [])
        self.world.pass_seconds(59)
        self.assertIsNone(self.wire.transport.close_code)
        self.world.pass_seconds(2)
        self.assertEqual(self.wire.transport.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_order(self) -> None:
        """What comes after waits, in order, and nothing is read meanwhile."""
        for number in range(3):
            self.assertEqual(self.publish(number, id=number), [])
        self.assertEqual(self.wire.ask("Ping", id="p"), [])
        self.assertEqual((self.wire.transport.holds, len(self.gate.asked)), (1, 1))
        self.assertEqual([m["id"] for m in self.allow(b"0")], [0])
        self.assertEqual((self.wire.transport.holds, len(self.gate.asked)), (1, 2))
        self.assertEqual([m["id"] for m in self.deny(Forbidden())], [1])
        self.assertEqual([m["id"] for m in self.allow(b"2")], [2, "p"])
        self.assertEqual(self.wire.transport.holds, 0)
        self.assertEqual([asked[2] for asked in self.gate.asked], [b"0", b"1", b"2"])

    def test_failure(self) -> None:
        """A gatekeeper that breaks is an INTERNAL_ERROR, and what waits goes on."""
        self.publish(id=1)
        self.wire.say("Ping", id=2)
        replies = self.deny(ZeroDivisionError("secret"))
        self.assertEqual([m["type"] for m in replies], ["Error", "Pong"])
        self.assertEqual(outline(replies[0]), error("INTERNAL_ERROR", {}, 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_end(self) -> None:
        """What has not been obeyed when the connection ends is not obeyed later."""
        self.other.ask("Subscribe", {"topics": ["t"]})
        self.publish()
        self.publish()
        self.wire.client.closed(1006)
        self.gate.answers.pop(0).callback(b"1")
        self.assertEqual((self.other.read(), len(self.gate.asked)), ([], 1))

    def test_closed_while_waiting(self) -> None:
        """A connection that the server closes obeys nothing that waited."""
        self.publish()
        self.wire.say("Ping")
        self.wire.client.close(CloseCode.FORCED)
        self.gate.answers.pop(0).callback(b"1")
        self.assertEqual(self.world.counters.messages_received, 0)


class SubscribeTests(AskingTestCase):
    """Questions about subscribing."""

    def test_some_denied(self) -> None:
        """Denied topics are refused one by one; the others are subscribed, and answer the id."""
        self.assertEqual(self.wire.ask("Subscribe", {"topics": ["a", "b.*", "c"]}, id=1), [])
        self.assertEqual(self.gate.asked, [("subscribe", "a", "b.*", "c")])
        replies = self.allow({"b.*": Forbidden("no", details={"topic": "b.*"})})
        self.assertEqual(outline(replies[0]), error("FORBIDDEN", {"topic": "b.*"}))
        self.assertEqual(
            (replies[1]["id"], replies[1]["data"]["topics"]), (1, [{"topic": "a"}, {"topic": "c"}])
        )
        self.assertEqual(list(self.wire.client.topics), ["a", "c"])

    def test_all_denied(self) -> None:
        """With nothing left the first Error answers the id, once."""
        self.wire.say("Subscribe", {"topics": ["a", "b"]}, id=1)
        replies = self.allow({name: Forbidden(details={"topic": name}) for name in "ab"})
        self.assertEqual([m["type"] for m in replies], ["Error", "Error"])
        self.assertEqual([m.get("id") for m in replies], [1, None])

    def test_only_what_is_new_and_permitted(self) -> None:
        """What is subscribed already, or the rules deny, is not asked about."""
        self.wire.say("Subscribe", {"topics": ["a"]})
        self.allow({})
        self.gate.asked.clear()
        replies = self.wire.ask("Subscribe", {"topics": ["a", "closed"]}, id=1)
        self.assertEqual([m["type"] for m in replies], ["Error", "Status"])
        self.assertEqual(self.gate.asked, [])
        self.wire.ask("Subscribe", {"topics": ["a", "closed", "b", "b"]}, id=2)
        self.assertEqual(self.gate.asked, [("subscribe", "b")])
        replies = self.allow({})
        self.assertEqual([m.get("id") for m in replies], [None, 2])

    def test_more_than_fit(self) -> None:
        """However many topics are named, none is subscribed to that was not asked about."""
        names = ["secret", *(f"x{number}" for number in range(9))]
        self.assertEqual(self.wire.ask("Subscribe", {"topics": names}), [])
        self.assertEqual(self.gate.asked, [("subscribe", *names)])
        self.allow({name: Forbidden(details={"topic": name}) for name in names})
        self.assertEqual(self.wire.client.topics, {})
        self.wire.say("Subscribe", {"topics": names})
        self.allow({"secret": Forbidden(details={"topic": "secret"})})
        self.assertEqual(list(self.wire.client.topics), names[1:6])

    def test_too_many(self) -> None:
        """More topics than a command may name are refused unasked."""
        (refusal,) = self.wire.ask("Subscribe", {"topics": ["a"] * 1001})
        self.assertEqual(outline(refusal)["code"], "INVALID_REQUEST")
        self.assertEqual(self.gate.asked, [])

    def test_end(self) -> None:
        """One who has gone is subscribed to nothing."""
        self.wire.say("Subscribe", {"topics": ["a"]})
        self.wire.client.closed(1006)
        self.gate.answers.pop(0).callback({})
        self.assertEqual(len(self.world.hub.topics()), 0)

    def test_recovery(self) -> None:
        """Positions to recover from are not lost on the way."""
        recover = {"a": {"offset": 3, "epoch": "e"}}
        self.wire.say("Subscribe", {"topics": ["a"], "recover": recover}, id=1)
        (status,) = self.allow({})
        self.assertEqual(status["data"]["topics"], [{"topic": "a", "recovered": False}])
