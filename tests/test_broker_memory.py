"""Tests of realtime.broker_memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime.broker_memory import MemoryBroker
from realtime.interfaces import IBroker
from realtime.model import Namespace, Publication
from tests.support.contracts import BrokerContract, publication


class MemoryBrokerContractTests(BrokerContract, TestCase):
    """The embedded broker as a broker."""

    async def make_brokers(self) -> list[IBroker]:
        """Make the broker of the one node there is."""
        return [MemoryBroker()]


class MemoryBrokerTests(SynchronousTestCase):
    """What the embedded broker promises beyond."""

    def test_delivers_before_it_returns(self) -> None:
        """A publication has been delivered, the very object, when `publish` returns."""
        broker = MemoryBroker()
        delivered: list[Publication] = []
        broker.start(delivered.append, lambda topic, message: None)
        sent = publication()
        self.assertIsNone(broker.publish(sent, Namespace(">"), None))
        self.assertIs(delivered[0], sent)

    def test_publish_before_start(self) -> None:
        """A publication before the start is an error, not lost in silence."""
        self.assertRaises(RuntimeError, MemoryBroker().publish, publication(), Namespace(">"), None)
