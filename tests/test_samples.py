"""Tests of realtime.samples: the last hour, and how late the event loop is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from realtime.metrics import Counters
from realtime.samples import KEPT, PERIOD, Samples

START = 1_790_000_000


class SamplesTests(SynchronousTestCase):
    """Beats once a second, on clocks that the test moves."""

    def setUp(self) -> None:
        """Make a ring at the beginning of a period."""
        self.counters = Counters()
        self.samples = Samples(self.counters)
        self.instant = 1000.0
        self.now = float(START)

    def beat(self, seconds: int = 1, late: float = 0.0) -> None:
        """Let seconds pass, each with a beat; the last one comes late."""
        for number in range(seconds):
            self.now += 1
            self.instant += 1
            extra = late if number == seconds - 1 else 0.0
            self.samples.beat(self.now + extra, self.instant + extra)

    def test_a_sample_each_period(self) -> None:
        """A sample has the connections of its moment and what was counted since the one before."""
        self.beat(PERIOD - 1)
        self.assertEqual(self.samples.since(0), [])
        self.counters.active_connections = 7
        self.counters.messages_received = 20
        self.counters.messages_sent = 300
        self.counters.errors = 2
        self.beat()
        self.counters.messages_sent += 50
        self.counters.active_connections = 6
        self.beat(PERIOD)
        self.assertEqual(
            self.samples.since(0),
            [
                (START + PERIOD, 7, 20, 300, 2, 0.0),
                (START + 2 * PERIOD, 6, 0, 50, 0, 0.0),
            ],
        )

    def test_since(self) -> None:
        """Who has seen some gets those that follow."""
        self.beat(4 * PERIOD)
        seconds = [sample[0] for sample in self.samples.since(START + 2 * PERIOD)]
        self.assertEqual(seconds, [START + 3 * PERIOD, START + 4 * PERIOD])
        self.assertEqual(self.samples.since(START + 4 * PERIOD), [])

    def test_bounded(self) -> None:
        """An hour is kept, and no more."""
        self.beat((KEPT + 10) * PERIOD)
        kept = self.samples.since(0)
        self.assertEqual(len(kept), KEPT)
        self.assertEqual(KEPT * PERIOD, 3600)
        self.assertEqual(kept[-1][0], START + (KEPT + 10) * PERIOD)

    def test_lag(self) -> None:
        """How late a beat comes is told at once, and the longest of a period in its sample."""
        self.beat(2)
        self.assertEqual(self.counters.event_loop_lag_seconds, 0)
        self.beat(late=0.25)
        self.assertAlmostEqual(self.counters.event_loop_lag_seconds, 0.25)
        self.beat()
        self.assertAlmostEqual(self.counters.event_loop_lag_seconds, 0)
        self.beat(PERIOD)
        self.assertEqual([sample[5] for sample in self.samples.since(0)], [0.25])
        self.beat(PERIOD)
        self.assertEqual([sample[5] for sample in self.samples.since(0)], [0.25, 0.0])

    def test_long_block(self) -> None:
        """After a block of several seconds one beat was late, and the next is on time."""
        self.beat()
        self.now += 3.5
        self.instant += 3.5
        self.samples.beat(self.now, self.instant)
        self.assertAlmostEqual(self.counters.event_loop_lag_seconds, 2.5)
        # The reactor's next beat is at its next whole second.
        self.samples.beat(self.now + 0.5, self.instant + 0.5)
        self.assertAlmostEqual(self.counters.event_loop_lag_seconds, 0)

    def test_early(self) -> None:
        """A beat that comes a little early is not late."""
        self.beat()
        self.samples.beat(self.now + 0.999, self.instant + 0.999)
        self.assertEqual(self.counters.event_loop_lag_seconds, 0)

    def test_a_clock_that_is_set(self) -> None:
        """A wall clock that jumps is no lag, and leaves samples in their order."""
        self.beat(3 * PERIOD)
        self.now -= 2 * PERIOD
        self.beat(PERIOD)
        self.now += 3600
        self.beat(PERIOD)
        self.assertEqual(self.counters.event_loop_lag_seconds, 0)
        seconds = [sample[0] for sample in self.samples.since(0)]
        self.assertEqual(seconds, sorted(set(seconds)))
        self.assertEqual(len(seconds), 4)
