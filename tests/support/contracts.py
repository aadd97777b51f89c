"""Contracts that every implementation of an interface is held to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from realtime.interfaces import IBroker
from realtime.model import Namespace, Position, Publication


async def accepted(result: Any) -> Position | None:
    """Wait for what `IBroker.publish` answered."""
    if isinstance(result, Deferred):
        result = await result
    assert result is None or isinstance(result, Position)
    return result


def publication(topic: str = "a", payload: bytes = b"1", number: int = 0) -> Publication:
    """Make a publication; `number` tells it from others."""
    return Publication(topic, payload, f"user_{number}", 1_700_000_000_000 + number)


def essence(publication: Publication) -> tuple[str, bytes, str, int]:
    """What a broker may not change."""
    return (
        publication.topic,
        publication.payload,
        publication.from_user,
        publication.timestamp,
    )


class BrokerContract:
    """Mix in before `twisted.trial.unittest.TestCase`, and say how to make brokers.

    `NODES` brokers work together, as those of that many nodes do.
    """

    NODES = 1

    assertEqual: Any
    assertTrue: Any

    async def make_brokers(self) -> list[IBroker]:
        """Make `NODES` brokers, not started, that carry each other's publications."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Wait until what is accepted has been delivered."""

    async def start_all(self) -> tuple[list[IBroker], list[list[Publication]]]:
        """Start brokers; answer with each what it delivers."""
        brokers = await self.make_brokers()
        self.assertEqual(len(brokers), self.NODES)
        delivered: list[list[Publication]] = [[] for _ in brokers]
        for broker, here in zip(brokers, delivered, strict=True):
            broker.start(here.append, lambda topic, message: None)
        return brokers, delivered

    async def subscribe_all(self, brokers: list[IBroker], topic: str) -> None:
        """Subscribe all nodes to a topic, and wait until that is so."""
        for broker in brokers:
            broker.subscribe(topic)
        await self.settle()

    async def test_provides_the_interface(self) -> None:
        """A broker has the methods of `IBroker`."""
        for broker in await self.make_brokers():
            self.assertTrue(verifyObject(IBroker, broker))

    async def test_reaches_every_node_once(self) -> None:
        """A publication made on any node reaches each subscribed node once, unchanged."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "chat.é")
        sent = [
            publication("chat.é", payload, number)
            for number, payload in enumerate(
                [b"null", b'{"a": 1.10}', '"é\\u00e9"'.encode(), b"1" * 60_000]
            )
        ]
        for number, each in enumerate(sent):
            await accepted(brokers[number % self.NODES].publish(each, Namespace(">"), None))
        await self.settle()
        for here in delivered:
            self.assertEqual(list(map(essence, here)), list(map(essence, sent)))

    async def test_order(self) -> None:
        """Publications of a node on a topic arrive in the order accepted, awaited or not."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        sent = [publication("a", b"%d" % number, number) for number in range(300)]
        results = [brokers[0].publish(each, Namespace(">"), None) for each in sent]
        for result in results:
            await accepted(result)
        await self.settle()
        for here in delivered:
            self.assertEqual([each.payload for each in here], [each.payload for each in sent])

    async def test_topics_are_apart(self) -> None:
        """What is published on one topic is delivered on that topic."""
        brokers, delivered = await self.start_all()
        for topic in ("a", "a.b", "b"):
            await self.subscribe_all(brokers, topic)
        for number, topic in enumerate(["a.b", "b", "a"]):
            await accepted(
                brokers[-1].publish(publication(topic, b"0", number), Namespace(">"), None)
            )
        await self.settle()
        for here in delivered:
            self.assertEqual(
                sorted((each.topic, each.from_user) for each in here),
                [("a", "user_2"), ("a.b", "user_0"), ("b", "user_1")],
            )

    async def test_subscribing_again(self) -> None:
        """A topic left and taken up again is delivered again, once."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        for broker in brokers:
            broker.unsubscribe("a")
        await self.settle()
        await self.subscribe_all(brokers, "a")
        await accepted(brokers[0].publish(publication("a", b"2"), Namespace(">"), None))
        await self.settle()
        for here in delivered:
            self.assertEqual([each.payload for each in here], [b"2"])

    async def test_positions(self) -> None:
        """Where publications have positions, those of a topic count up within one epoch."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        positions = [
            await accepted(brokers[0].publish(publication("a", b"0", number), Namespace(">"), None))
            for number in range(3)
        ]
        await self.settle()
        for here in delivered:
            self.assertEqual([each.position for each in here], positions)
        known = [position for position in positions if position is not None]
        self.assertTrue(known in ([], positions))
        if known:
            first = known[0].offset
            self.assertEqual(
                known, [Position(first + step, known[0].epoch) for step in range(len(known))]
            )
