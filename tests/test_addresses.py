"""Tests for `realtime.addresses`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from realtime.addresses import network_of


class NetworkTests(SynchronousTestCase):
    """Which addresses count as one."""

    def test_networks(self) -> None:
        """An IPv4 address stands alone, however it is written; IPv6 ones go by their /64."""
        for address, network in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:0:0:1", "2001:db8::/64"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
            ("/run/socket", "/run/socket"),
        ):
            self.assertEqual(network_of(address), network)
