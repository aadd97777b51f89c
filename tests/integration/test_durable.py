"""Killing a process that publishes on durable topics."""

from __future__ import annotations

import random

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.journal import journal_path
from tests.support.publisher import recover, run_and_kill


class KillTests(TestCase):
    """kill -9 in the middle of acknowledged publications."""

    timeout = 120

    async def test_nothing_acknowledged_is_lost(self) -> None:
        """After each of several kills all that was ever acknowledged is there, once, in order."""
        path = journal_path(self)
        acknowledged: list[tuple[str, int, int]] = []
        first = 0
        for count in (20_000, 3_000, 3_000):
            after = random.randrange(1, count * 3 // 4)
            killed = await deferToThread(run_and_kill, path, first, count, after)
            self.assertGreaterEqual(len(killed.acknowledged), after)
            self.assertLess(len(killed.acknowledged), count)
            acknowledged += killed.acknowledged
            found = await recover(path, acknowledged)
            self.assertEqual(found.problems, [])
            self.assertGreaterEqual(found.publications, len(acknowledged))
            first += count
