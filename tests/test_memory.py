"""Tests of realtime.memory."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from realtime.memory import QUIET, STUCK, Reclaimer, give_back


class ReclaimerTests(SynchronousTestCase):
    """When memory is given back."""

    def calls(self, *connections: int) -> list[int]:
        """At which of these numbers of connections, told one by one, it reclaims."""
        found: list[int] = []
        now = 0
        reclaimer = Reclaimer(lambda: found.append(now), self.fail)
        for now in connections:
            reclaimer.note(now, 0, 0)
        return found

    def test_after_most_have_gone(self) -> None:
        """It reclaims once nine tenths have gone, once, and again after the next crowd."""
        self.assertEqual(self.calls(0, 1000, 5000, 501, 500, 400, 0), [500])
        self.assertEqual(self.calls(2000, 0, 0, 3000, 100), [0, 100])

    def test_few(self) -> None:
        """A few connections that come and go are not worth it."""
        self.assertEqual(self.calls(999, 0, 999, 0), [])

    def test_strangers(self) -> None:
        """After a crowd of them pages are returned, once, and nothing else is done."""
        trims: list[int] = []
        now = 0
        reclaimer = Reclaimer(self.fail, lambda: trims.append(now))
        for now in (0, 4000, 401, 400, 0, 999, 0, 1000, 50):
            reclaimer.note(5, 0, now)
        self.assertEqual(trims, [400, 50])

    def test_slow_clients(self) -> None:
        """After many of them pages are returned, once none was closed for some seconds."""
        trims: list[int] = []
        now = 0
        reclaimer = Reclaimer(self.fail, lambda: trims.append(now))
        stuck = [STUCK - 1] * 100 + [STUCK, STUCK + 1] + [STUCK + 2] * 100
        for now, closed in enumerate(stuck):  # noqa: B007 - the lambda reads it
            reclaimer.note(5, closed, 0)
        self.assertEqual(trims, [102 + QUIET])

    def test_give_back(self) -> None:
        """It collects what nobody refers to, cycles too."""
        ring: list[object] = []
        ring.append(ring)
        gc.collect()
        del ring
        give_back()
        self.assertEqual(gc.collect(), 0)
