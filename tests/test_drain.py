"""Draining, on a clock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from realtime.drain import STEP, Drain
from realtime.errors import CloseCode, Unavailable
from tests.support.peers import World


class DrainTests(SynchronousTestCase):
    """A node with clients that are sent away."""

    def drain(self, clients: int, seconds: float) -> None:
        """Connect clients, and begin."""
        self.world = World(max_connections=1000)
        self.wires = [self.world.connect(f"u{number}") for number in range(clients)]
        self.world.node.drain()
        self.drained = Drain(self.world.node, self.world.clock, seconds)
        self.done = self.drained.start()

    def closed(self) -> int:
        """How many have been closed."""
        codes = [wire.transport.close_code for wire in self.wires]
        self.assertLessEqual(set(codes), {None, CloseCode.SERVICE_RESTART})
        return len(codes) - codes.count(None)

    def test_spread(self) -> None:
        """Connections are closed evenly over the time, all of them within it."""
        self.drain(200, 10)
        for tenth in range(1, 11):
            self.assertEqual(self.closed() // 20, tenth - 1, tenth)
            self.assertNoResult(self.done)
            self.world.clock.pump([STEP] * 10)
        self.assertEqual(self.closed(), 200)
        self.successResultOf(self.done)

    def test_busy_reactor(self) -> None:
        """The time is kept where turns of the reactor are long."""
        self.drain(200, 10)
        self.world.clock.pump([0.7] * 15)
        self.assertEqual(self.closed(), 200)
        self.successResultOf(self.done)

    def test_told_first(self) -> None:
        """All are told at once, and nobody more is taken in."""
        self.drain(3, 10)
        for wire in self.wires:
            self.assertEqual(wire.read()[-1]["data"], {"status": "draining"})
        self.world.node.drain()
        for wire in self.wires:
            self.assertEqual(wire.read(), [])
        self.assertRaises(Unavailable, self.world.node.admit)
        self.assertEqual(self.world.node.health().reason, "Draining")

    def test_few(self) -> None:
        """Few connections do not take all of the time; none take none."""
        self.drain(0, 10)
        self.successResultOf(self.done)
        self.drain(2, 10)
        self.world.clock.advance(STEP)
        self.successResultOf(self.done)

    def test_at_once(self) -> None:
        """No time means at once."""
        self.drain(50, 0)
        self.assertEqual(self.closed(), 50)
        self.successResultOf(self.done)

    def test_hurry(self) -> None:
        """Who is told to hurry closes the rest."""
        self.drain(200, 100)
        self.world.clock.advance(STEP)
        self.assertLess(self.closed(), 10)
        self.drained.hurry()
        self.world.clock.advance(STEP)
        self.assertEqual(self.closed(), 200)
        self.successResultOf(self.done)

    def test_those_who_leave(self) -> None:
        """Who leaves by themselves is not waited for."""
        self.drain(200, 10)
        for wire in self.wires:
            if wire.transport.close_code is None:
                wire.client.closed(1000)
        self.world.clock.advance(STEP)
        self.successResultOf(self.done)
