"""Nodes, Redis and the links between them fail under load: short plays of `chaos`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.process import spawn


class ChaosTests(SynchronousTestCase):
    """With clients that recover: nothing lost, nothing twice, nothing out of order."""

    def play(self, *options: str) -> dict[str, Any]:
        """Play; answer what has happened."""
        process = spawn(
            self, (sys.executable, "-m", "tests.integration.chaos", *options), seconds=200
        )
        output, errors = process.communicate()
        self.assertEqual(process.returncode, 0, output + errors)
        happened: dict[str, Any] = json.loads(output)
        self.assertEqual(happened["problems"], [])
        self.assertGreater(happened["facts"]["published"], 50)
        return happened

    def test_all_acts(self) -> None:
        """Nodes are killed and drained, Redis is killed and stopped a while, its links are cut."""
        happened = self.play("--seconds=30", "--clients=60", "--seed=3")
        self.assertEqual(len(happened["acts"]), 6, happened)

    def test_namespaces(self) -> None:
        """Two hosts' links to Redis are cut and healed."""
        if os.geteuid():
            raise SkipTest("network namespaces are for root")
        happened = self.play(
            "--namespaces", "--nodes=2", "--seconds=12", "--clients=40", "--seed=2"
        )
        self.assertGreater(happened["acts"]["cut link"], 1)
