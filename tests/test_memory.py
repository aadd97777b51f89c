"""Tests of realtime.memory."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from realtime.memory import Reclaimer, give_back


class ReclaimerTests(SynchronousTestCase):
    """When memory is given back."""

    def calls(self, *connections: int) -> list[int]:
        """At which of these numbers of connections, told one by one, it reclaims."""
        found: list[int] = []
        now = 0
        reclaimer = Reclaimer(lambda: found.append(now))
        for now in connections:
            reclaimer.note(now)
        return found

    def test_after_most_have_gone(self) -> None:
        """It reclaims once nine tenths have gone, once, and again after the next crowd."""
        self.assertEqual(self.calls(0, 1000, 5000, 501, 500, 400, 0), [500])
        self.assertEqual(self.calls(2000, 0, 0, 3000, 100), [0, 100])

    def test_few(self) -> None:
        """A few connections that come and go are not worth it."""
        self.assertEqual(self.calls(999, 0, 999, 0), [])

    def test_give_back(self) -> None:
        """It collects what nobody refers to, cycles too."""
        ring: list[object] = []
        ring.append(ring)
        gc.collect()
        del ring
        give_back()
        self.assertEqual(gc.collect(), 0)
