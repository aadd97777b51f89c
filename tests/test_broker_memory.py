"""Tests of realtime.broker_memory."""

from __future__ import annotations

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime.broker_memory import MemoryBroker
from realtime.history import EMPTY_TTL
from realtime.interfaces import KEY_TTL, IBroker
from realtime.model import HistoryPage, Namespace, Position, Publication
from tests.support.contracts import BrokerContract, offsets, publication
from tests.support.identity import START, make_clock
from tests.support.journal import journal_path, open_broker

FIVE = Namespace(">", history_size=5)


class MemoryBrokerContractTests(BrokerContract, TestCase):
    """The embedded broker as a broker."""

    async def make_brokers(self) -> list[IBroker]:
        """Make the broker of the one node there is."""
        return [MemoryBroker()]


class DurableBrokerContractTests(BrokerContract, TestCase):
    """The embedded broker with a journal, on durable topics."""

    DURABLE = True

    async def make_brokers(self) -> list[IBroker]:
        """Make the broker of the one node there is, on a new journal."""
        return [await open_broker(self, journal_path(self))]


class MemoryBrokerTests(SynchronousTestCase):
    """What the embedded broker promises beyond."""

    def setUp(self) -> None:
        self.clock: Clock = make_clock()
        self.broker = MemoryBroker(self.clock.seconds)
        self.delivered: list[Publication] = []
        self.broker.start(self.delivered.append, lambda topic, message: None)

    def page(self, namespace: Namespace, since: Position | None = None) -> HistoryPage | None:
        """Read the history of topic "a"."""
        return self.broker.history("a", namespace, since=since, limit=None, reverse=False)

    def test_delivers_before_it_returns(self) -> None:
        """A publication has been delivered, the very object, when `publish` returns."""
        sent = publication()
        self.assertIsNone(self.broker.publish(sent, Namespace(">"), None))
        self.assertIs(self.delivered[0], sent)

    def test_publish_before_start(self) -> None:
        """A publication before the start is an error, not lost in silence."""
        for namespace in (Namespace(">"), FIVE):
            self.assertRaises(RuntimeError, MemoryBroker().publish, publication(), namespace, None)

    def test_answers_at_once(self) -> None:
        """Positions and pages are answered at once; what is delivered is what is kept."""
        position = self.broker.publish(Publication("a", Raw(b"1"), "user_1", 5), FIVE, "key")
        page = self.page(FIVE)
        assert page is not None
        self.assertEqual(page.position, position)
        self.assertIs(page.publications[0], self.delivered[0])
        self.assertIsNone(self.broker.remove_history("a"))

    def test_age(self) -> None:
        """What is too old is not given back; an up-to-date reader has missed nothing."""
        namespace = Namespace(">", history_size=5, history_ttl=60)
        sent = Publication("a", b"1", "user_1", int(START * 1000))
        position = self.broker.publish(sent, namespace, None)
        assert isinstance(position, Position)
        self.clock.advance(59)
        self.assertEqual(self.page(namespace), HistoryPage(tuple(self.delivered), position))
        self.clock.advance(1)
        self.assertEqual(self.page(namespace), HistoryPage((), position))
        self.assertEqual(self.page(namespace, position), HistoryPage((), position))
        self.assertIsNone(self.page(namespace, Position(0, position.epoch)))

    def test_idle_topics_are_forgotten(self) -> None:
        """A day after its last use a topic without publications begins another epoch."""
        before = self.page(FIVE)
        assert before is not None
        self.clock.advance(EMPTY_TTL - 1)
        self.assertTrue(self.broker.advance(self.clock.seconds()))
        self.assertEqual(self.page(FIVE), before)
        self.clock.advance(EMPTY_TTL)
        self.broker.advance(self.clock.seconds())
        self.assertIsNone(self.page(FIVE, before.position))

    def test_key_is_forgotten(self) -> None:
        """After `KEY_TTL` seconds a key is as new."""
        for seconds, expected in ((0, 1), (KEY_TTL - 1, 1), (1, 2)):
            self.clock.advance(seconds)
            self.broker.advance(self.clock.seconds())
            self.broker.publish(publication(), Namespace(">"), "key")
            self.assertEqual(len(self.delivered), expected)

    def test_key_used_again_in_delivery(self) -> None:
        """A key used again while its publication is being delivered is used again."""
        broker = MemoryBroker()

        def deliver(publication: Publication) -> None:
            self.delivered.append(publication)
            self.assertEqual(broker.publish(publication, FIVE, "key"), publication.position)

        broker.start(deliver, lambda topic, message: None)
        broker.publish(publication(), FIVE, "key")
        self.assertEqual(offsets(self.delivered), [1])

    def test_memory_is_bounded(self) -> None:
        """What is kept in memory is bounded in all, whatever the namespaces say."""
        broker = MemoryBroker(max_history_bytes=100_000)
        broker.start(self.delivered.append, lambda topic, message: None)
        for number in range(1000):
            broker.publish(publication(f"t.{number}", b"1" * 1000), FIVE, None)
        kept = 0
        for number in range(1000):
            page = broker.history(f"t.{number}", FIVE, since=None, limit=None, reverse=False)
            assert page is not None
            kept += len(page.publications)
        self.assertGreater(kept, 20)
        self.assertLess(kept, 100)

    def test_durable_without_a_journal(self) -> None:
        """A durable topic without a journal is a mistake of ours, not a weaker promise."""
        durable = Namespace(">", history_size=5, durable=True)
        self.assertRaises(RuntimeError, self.broker.publish, publication(), durable, None)

    def test_opens_and_stops_without_a_journal(self) -> None:
        """Without a journal there is nothing to open or stop."""
        for done in (self.broker.open(lambda topic: None), self.broker.stop()):
            self.successResultOf(Deferred.fromCoroutine(done))
