"""Contracts that every implementation of an interface is held to."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from realtime.interfaces import IBroker
from realtime.model import HistoryPage, Namespace, Position, Publication


async def accepted(result: Any) -> Position | None:
    """Wait for what `IBroker.publish` answered."""
    if isinstance(result, Deferred):
        result = await result
    assert result is None or isinstance(result, Position)
    return result


async def answered(result: Any) -> Any:
    """Wait for what `IBroker.history` or `remove_history` answered."""
    return await result if isinstance(result, Deferred) else result


def offsets(publications: Any) -> list[int]:
    """The offsets of publications that have positions."""
    return [each.position.offset for each in publications]


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
    # What has a history here is durable.
    DURABLE = False
    # Answers take time.
    REMOTE = False

    assertIsNone: Any
    assertNotEqual: Any
    assertLessEqual: Any
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
        # All that a node has to do with a topic, announcements among publications.
        self.seen: list[list[bytes]] = [[] for _ in brokers]
        # What the brokers say that they have accepted, all together.
        self.accepted: list[Publication] = []
        for broker, here, seen in zip(brokers, delivered, self.seen, strict=True):

            def deliver(
                publication: Publication,
                here: list[Publication] = here,
                seen: list[bytes] = seen,
            ) -> None:
                here.append(publication)
                seen.append(bytes(publication.payload))

            def announce(topic: str, message: bytes, seen: list[bytes] = seen) -> None:
                seen.append(message)

            broker.start(deliver, announce, self.accepted.append)
        return brokers, delivered

    def kept(self, size: int = 1000) -> Namespace:
        """Make a namespace that keeps `size` publications a topic."""
        return Namespace(">", history_size=size, durable=self.DURABLE)

    async def publish_some(
        self, brokers: list[IBroker], number: int, namespace: Namespace, topic: str = "a"
    ) -> list[Position]:
        """Publish the payloads 0, 1 and so on, through the nodes in turn; answer where."""
        results = [
            await accepted(
                brokers[each % self.NODES].publish(
                    publication(topic, b"%d" % each, each), namespace, None
                )
            )
            for each in range(number)
        ]
        return [position for position in results if position is not None]

    async def page(
        self,
        broker: IBroker,
        namespace: Namespace,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        topic: str = "a",
    ) -> HistoryPage | None:
        """Read a history."""
        found = await answered(
            broker.history(topic, namespace, since=since, limit=limit, reverse=reverse)
        )
        assert found is None or isinstance(found, HistoryPage)
        return found

    async def some_page(self, *args: Any, **kwargs: Any) -> HistoryPage:
        """Read a history that is there."""
        found = await self.page(*args, **kwargs)
        assert found is not None
        return found

    async def subscribe_all(self, brokers: list[IBroker], topic: str) -> None:
        """Subscribe all nodes to a topic, and wait until that is so."""
        for broker in brokers:
            await answered(broker.subscribe(topic))
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

    async def test_no_history(self) -> None:
        """Where nothing is kept, publications have no position, and there is no page."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        self.assertEqual(await self.publish_some(brokers, 3, Namespace(">")), [])
        await self.settle()
        for broker, here in zip(brokers, delivered, strict=True):
            self.assertEqual([each.position for each in here], [None] * 3)
            self.assertIsNone(await self.page(broker, Namespace(">")))
            self.assertIsNone(await self.page(broker, Namespace(">"), since=Position(0, "e")))

    async def test_positions(self) -> None:
        """Where a history is kept, positions count up from 1 within one epoch on every node."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        positions = await self.publish_some(brokers, 6, self.kept())
        await self.settle()
        epoch = positions[0].epoch
        self.assertEqual(positions, [Position(offset, epoch) for offset in range(1, 7)])
        for here in delivered:
            self.assertEqual([each.position for each in here], positions)

    async def test_one_order(self) -> None:
        """However publications meet, all nodes deliver them in one order, that of offsets."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        results = [
            broker.publish(publication("a", b"%d" % number, who), self.kept(), None)
            for number in range(50)
            for who, broker in enumerate(brokers)
        ]
        positions = [await accepted(result) for result in results]
        await self.settle()
        self.assertEqual(sorted(offsets(delivered[0])), list(range(1, len(results) + 1)))
        self.assertEqual(len({position.epoch for position in positions if position}), 1)
        for who, here in enumerate(delivered):
            self.assertEqual(offsets(here), list(range(1, len(results) + 1)))
            self.assertEqual(list(map(essence, here)), list(map(essence, delivered[0])))
            mine = [each.payload for each in here if each.from_user == f"user_{who}"]
            self.assertEqual(mine, [b"%d" % number for number in range(50)])

    async def test_topics_have_their_own_offsets(self) -> None:
        """Each topic counts for itself, and a position is of its topic alone."""
        brokers, _ = await self.start_all()
        in_a = await self.publish_some(brokers, 2, self.kept(), "a")
        in_b = await self.publish_some(brokers, 3, self.kept(), "b")
        self.assertEqual([each.offset for each in (*in_a, *in_b)], [1, 2, 1, 2, 3])
        self.assertNotEqual(in_a[0].epoch, in_b[0].epoch)
        self.assertIsNone(await self.page(brokers[0], self.kept(), since=in_b[0], topic="a"))

    async def test_history_holds_what_was_published(self) -> None:
        """Any node gives back what was published on any, unchanged, a view copied to bytes."""
        brokers, _ = await self.start_all()
        sent = [
            Publication("a", payload, "user_é", 1_700_000_000_000 + number)
            for number, payload in enumerate([b"null", b'{"a": 1.10}', Raw(b"[1]"), b"1" * 60_000])
        ]
        for number, each in enumerate(sent):
            await accepted(brokers[number % self.NODES].publish(each, self.kept(), None))
        for broker in brokers:
            page = await self.some_page(broker, self.kept())
            self.assertEqual(
                [essence(each) for each in page.publications],
                [("a", bytes(e.payload), e.from_user, e.timestamp) for e in sent],
            )
            self.assertEqual({type(each.payload) for each in page.publications}, {bytes})
            self.assertEqual(offsets(page.publications), [1, 2, 3, 4])

    async def test_pages(self) -> None:
        """A page begins after a position or at an end, goes either way, and has a limit."""
        brokers, _ = await self.start_all()
        at = await self.publish_some(brokers, 9, self.kept())
        for since, limit, reverse, expected in (
            (None, None, False, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
            (None, None, True, [9, 8, 7, 6, 5, 4, 3, 2, 1]),
            (None, 3, False, [1, 2, 3]),
            (None, 3, True, [9, 8, 7]),
            (None, 0, False, []),
            (at[4], None, False, [6, 7, 8, 9]),
            (at[4], 2, False, [6, 7]),
            (at[4], 2, True, [9, 8]),
            (at[4], 20, True, [9, 8, 7, 6]),
            (at[8], None, False, []),
            (Position(0, at[0].epoch), 1, False, [1]),
        ):
            for broker in brokers:
                page = await self.some_page(broker, self.kept(), since, limit, reverse)
                self.assertEqual(offsets(page.publications), expected)
                self.assertEqual(page.position, at[8])

    async def test_what_cannot_be_recovered(self) -> None:
        """A position of another epoch, above the newest, or with a gap after it gives None."""
        brokers, _ = await self.start_all()
        namespace = self.kept(3)
        at = await self.publish_some(brokers, 8, namespace)
        for broker in brokers:
            page = await self.some_page(broker, namespace)
            self.assertEqual(offsets(page.publications), [6, 7, 8])
            recovered = await self.some_page(broker, namespace, at[4])
            self.assertEqual(offsets(recovered.publications), [6, 7, 8])
            for since in (
                at[3],
                Position(0, at[0].epoch),
                Position(9, at[0].epoch),
                Position(8, "other"),
                Position(0, "other"),
                Position(-1, at[0].epoch),
            ):
                for reverse in (False, True):
                    self.assertIsNone(await self.page(broker, namespace, since, 1, reverse))

    async def test_recovery_from_nothing(self) -> None:
        """One who came before the first publication recovers it, and all that followed."""
        brokers, _ = await self.start_all()
        before = [await self.some_page(broker, self.kept()) for broker in brokers]
        self.assertEqual([page.publications for page in before], [()] * self.NODES)
        self.assertEqual({page.position.offset for page in before}, {0})
        self.assertEqual(len({page.position.epoch for page in before}), 1)
        await self.publish_some(brokers, 2, self.kept())
        for broker in brokers:
            page = await self.some_page(broker, self.kept(), before[0].position)
            self.assertEqual(offsets(page.publications), [1, 2])

    async def test_seam(self) -> None:
        """Subscribing, then asking for what was missed, leaves no gap and makes no duplicate.

        Publications are on their way all the while. What is delivered after the page comes, or
        before and is above the page's position, follows without a gap.
        """
        for cut in (0, 1, 7, 18, 19):
            topic = f"seam.{cut}"
            brokers, delivered = await self.start_all()
            watcher, here = brokers[-1], delivered[-1]
            (first,) = await self.publish_some(brokers, 1, self.kept(), topic)
            results: list[Any] = []
            page: HistoryPage | None = None
            before = 0
            for number in range(20):
                results.append(
                    brokers[number % self.NODES].publish(
                        publication(topic, b"%d" % number, number), self.kept(), None
                    )
                )
                if number == cut:
                    watcher.subscribe(topic)
                    page = await self.page(watcher, self.kept(), first, topic=topic)
                    assert page is not None
                    before = len(here)
                    if not self.REMOTE:
                        for each in here:
                            self.assertLessEqual(offsets([each]), [page.position.offset])
            for result in results:
                await accepted(result)
            await self.settle()
            assert page is not None
            late = here[before:]
            self.assertEqual([n for n in offsets(late) if n <= page.position.offset], [])
            live = [n for n in offsets(here) if n > page.position.offset]
            self.assertEqual(offsets(page.publications) + live, list(range(2, 22)))
            self.assertEqual(len(set(offsets(here))), len(here))

    async def test_key(self) -> None:
        """A key used again gives back the first position, and nothing is delivered again."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        for namespace in (self.kept(), Namespace(">")):
            key = f"key of {namespace.history_size}"
            results = [
                await accepted(broker.publish(publication("a", payload), namespace, key))
                for payload in (b"1", b"2")
                for broker in (brokers[0], brokers[-1])
            ]
            self.assertEqual(results, results[:1] * 4)
        await self.settle()
        for here in delivered:
            self.assertEqual([each.payload for each in here], [b"1", b"1"])
        page = await self.some_page(brokers[0], self.kept())
        self.assertEqual(offsets(page.publications), [1])

    async def test_accepted(self) -> None:
        """Each publication is told as accepted once, where it was made; repetitions are not."""
        brokers, _ = await self.start_all()
        for namespace in (Namespace(">"), self.kept()):
            key = f"key of {namespace.history_size}"
            for number, key_or_none in enumerate((None, key, key, None)):
                sent = publication("a", b"%d" % number)
                await accepted(brokers[number % self.NODES].publish(sent, namespace, key_or_none))
        self.assertEqual([each.payload for each in self.accepted], [b"0", b"1", b"3"] * 2)
        self.assertEqual([each.position for each in self.accepted[:3]], [None] * 3)
        self.assertEqual(offsets(self.accepted[3:]), [1, 2, 3])

    async def test_key_used_twice_at_once(self) -> None:
        """Of publications with one key that are on their way together, one is delivered."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        results = [
            brokers[number % self.NODES].publish(publication("a"), self.kept(), "key")
            for number in range(6)
        ]
        positions = {await accepted(result) for result in results}
        await self.settle()
        self.assertEqual(len(positions), 1)
        for here in delivered:
            self.assertEqual([each.position for each in here], list(positions))

    async def test_key_of_another(self) -> None:
        """A key is its user's, and its topic's."""
        brokers, delivered = await self.start_all()
        for topic in ("a", "b"):
            await self.subscribe_all(brokers, topic)
        for topic, number, key in (
            ("a", 1, "key"),
            ("a", 2, "key"),
            ("b", 1, "key"),
            ("a", 1, "other"),
            ("a", 1, None),
            ("a", 1, None),
        ):
            sent = publication(topic, b"0", number)
            await accepted(brokers[0].publish(sent, self.kept(), key))
        await self.settle()
        for here in delivered:
            self.assertEqual(len(here), 6)

    async def test_remove_history(self) -> None:
        """A history removed is gone on all nodes; the next is of another epoch, from 1."""
        brokers, _ = await self.start_all()
        namespace = self.kept()
        old = await self.publish_some(brokers, 3, namespace)
        other = await self.publish_some(brokers, 1, namespace, "b")
        await answered(brokers[0].remove_history("a"))
        for broker in brokers:
            page = await self.some_page(broker, namespace)
            self.assertEqual((page.publications, page.position.offset), ((), 0))
            self.assertNotEqual(page.position.epoch, old[0].epoch)
            self.assertIsNone(await self.page(broker, namespace, old[2]))
        new = await self.publish_some(brokers, 2, namespace)
        self.assertEqual(new, [Position(1, page.position.epoch), Position(2, new[0].epoch)])
        self.assertEqual((await self.some_page(brokers[-1], namespace)).position, new[1])
        kept = await self.some_page(brokers[-1], namespace, topic="b")
        self.assertEqual(kept.position, other[0])
        await answered(brokers[0].remove_history("never used"))

    async def test_removal_among_publications(self) -> None:
        """A removal takes what was accepted before, and leaves what is accepted after."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        broker = brokers[0]
        before = [broker.publish(publication("a"), self.kept(), None) for _ in range(3)]
        removed = broker.remove_history("a")
        after = [broker.publish(publication("a"), self.kept(), None) for _ in range(2)]
        for result in (*before, *after):
            await accepted(result)
        await answered(removed)
        await self.settle()
        page = await self.some_page(brokers[-1], self.kept())
        self.assertEqual(offsets(page.publications), [1, 2])
        for here in delivered:
            self.assertEqual(offsets(here), [1, 2, 3, 1, 2])

    async def test_announcements(self) -> None:
        """An announcement reaches each node once, after what its node published before it."""
        for namespace in (Namespace(">"), self.kept()):
            brokers, _ = await self.start_all()
            await self.subscribe_all(brokers, "a")
            results = [
                brokers[0].publish(publication("a", b"%d" % number), namespace, None)
                for number in range(5)
            ]
            brokers[0].announce("a", b"joined")
            results.append(brokers[0].publish(publication("a", b"5"), namespace, None))
            for result in results:
                await accepted(result)
            await self.settle()
            for seen in self.seen:
                self.assertEqual(seen.count(b"joined"), 1)
                self.assertEqual(seen[:5], [b"0", b"1", b"2", b"3", b"4"])
            if namespace.history_size:
                page = await self.some_page(brokers[-1], namespace)
                self.assertEqual(len(page.publications), 6)

    async def test_exclusion(self) -> None:
        """The connection that is to be left out is named to every node."""
        brokers, delivered = await self.start_all()
        await self.subscribe_all(brokers, "a")
        for namespace in (Namespace(">"), self.kept()):
            sent = Publication("a", b"1", "user_1", 5, None, "connection_1")
            await accepted(brokers[0].publish(sent, namespace, None))
        await self.settle()
        for here in delivered:
            self.assertEqual([each.exclude for each in here], ["connection_1"] * 2)
