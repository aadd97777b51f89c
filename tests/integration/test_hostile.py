"""Each attack of tests/hostile, with few attackers: what they get, and what is left of them.

What a bystander notices and how much memory remains is measured by `python -m tests.hostile`.
"""

from __future__ import annotations

from itertools import groupby

from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.attack import Issuer, Target
from tests.hostile.catalogue import ATTACKS
from tests.hostile.rig import serving
from tests.support.server import wait_until

# The slow ones last as long as these.
HASTE = ("--head-timeout=2", "--body-timeout=3")


class HostileTests(SynchronousTestCase):
    """The attackers get what is documented, and the server is well."""

    def test_attacks(self) -> None:
        """All attacks, one after the other on one server, and on one more for each options."""
        issuer = Issuer()
        attacks = sorted(ATTACKS, key=lambda attack: attack.options)
        for options, group in groupby(attacks, lambda attack: attack.options):
            with serving(issuer, *HASTE, *options) as server:
                target = Target(server, issuer, small=True)
                for attack in group:
                    if not attack.needs_many:
                        self.assertIsNone(attack.verdict(attack.run(target)), attack.name)
                        wait_until(lambda target=target: target.metric("active_connections") == 0)
                        ready, _, _ = server.request("GET", "/health/ready")
                        self.assertEqual(ready, 200, attack.name)
                self.assertNotIn("Traceback", server.output)
                self.assertNotIn("Unhandled", server.output)
