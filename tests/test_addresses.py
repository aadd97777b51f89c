"""Tests for `realtime.addresses`."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.addresses import Proxies, network_of


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


class ProxiesTests(SynchronousTestCase):
    """Whose word is taken for where a client is."""

    def test_nobody_is_trusted(self) -> None:
        """Without trusted proxies the header says nothing, whoever sends it."""
        self.assertEqual(Proxies().client("192.0.2.1", ["198.51.100.7"]), "192.0.2.1")
        self.assertEqual(Proxies(["10.0.0.0/8"]).client("192.0.2.1", ["1.1.1.1"]), "192.0.2.1")

    def test_nearest_that_is_no_proxy(self) -> None:
        """What a client has written itself, before the proxies did, is not believed."""
        proxies = Proxies(["10.0.0.0/8", "2001:db8::1", "unix"])
        for peer, values, expected in (
            ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", ["6.6.6.6, 198.51.100.7 , 10.1.2.3"], "198.51.100.7"),
            ("10.0.0.1", ["6.6.6.6", "198.51.100.7", "10.1.2.3"], "198.51.100.7"),
            ("2001:db8::1", ["2001:db8::7"], "2001:db8::7"),
            ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
            ("", ["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ):
            self.assertEqual(proxies.client(peer, values), expected)

    def test_nonsense(self) -> None:
        """What is no address ends the search at the last that was one."""
        proxies = Proxies(["10.0.0.0/8"])
        for value in ("unknown", "", "1.2.3.4:80", "1.2.3.4, ", "<script>", "1.2.3.4,x,10.0.0.5"):
            self.assertTrue(proxies.client("10.0.0.1", [value]).startswith("10.0.0."), value)

    @given(st.lists(st.text(max_size=30), max_size=4))
    def test_anything(self, values: list[str]) -> None:
        """Whatever is sent, the answer is an address."""
        ip_address(Proxies(["10.0.0.0/8", "::/0"]).client("10.0.0.1", values))
