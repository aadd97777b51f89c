"""What a Redis server refuses, as it is reported."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from realtime.redis_refusals import MAX_SORTS, QUIET_SECONDS, Refusals
from realtime.redis_url import read_redis_url


class RefusalsTests(SynchronousTestCase):
    """`Refusals`."""

    def setUp(self) -> None:
        """Make those of a server with a password."""
        self.clock = Clock()
        self.refusals = Refusals(read_redis_url("redis://:secret@h"), self.clock.seconds)

    def reported(self, *refusals: str) -> list[str]:
        """What is logged of some refusals."""
        with capturedLogs() as events:
            for why in refusals:
                self.refusals.note(why)
        return [formatEvent(event) for event in events]

    def test_once_in_a_while(self) -> None:
        """Each sort is reported at once, then once a minute with the number of the others."""
        said = self.reported("OOM not allowed", "NOPERM no", "OOM not allowed here", "OOM")
        self.assertEqual(len(said), 2)
        self.assertIn("h:6379", said[0])
        self.assertIn("OOM not allowed (0 more", said[0])
        self.assertNotIn("secret", said[0])
        self.clock.advance(QUIET_SECONDS)
        (again,) = self.reported("OOM again")
        self.assertIn("OOM again (2 more", again)

    def test_clock_goes_back(self) -> None:
        """A clock that is set back silences nothing."""
        self.clock.advance(QUIET_SECONDS)
        self.assertEqual(len(self.reported("OOM")), 1)
        self.clock.rightNow = 0
        self.assertEqual(len(self.reported("OOM")), 1)

    def test_many_sorts(self) -> None:
        """No more sorts are remembered than a server has errors, and each is still reported."""
        names = [f"E{number}" for number in range(3 * MAX_SORTS)]
        self.assertEqual(len(self.reported(*names)), len(names))
