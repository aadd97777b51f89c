"""Network addresses as limits see them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network

# How the peers of a unix socket are named among trusted proxies.
UNIX = "unix"


def network_of(address: str) -> str:
    """What one customer commonly holds: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


class Proxies:
    """The proxies that are believed when they say for whom they ask, in X-Forwarded-For.

    Each is an address or network, or `unix` for who connects to the unix socket.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        names = set(trusted)
        self._unix = UNIX in names
        self._networks = [ip_network(name, strict=False) for name in names - {UNIX}]

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The client's address: the nearest one that is no trusted proxy's.

        `peer` is who has connected, empty on a unix socket; `forwarded` are the header's values.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        address = peer
        while hops and self._trusts(address):
            hop = hops.pop()
            try:
                ip_address(hop)
            except ValueError:  # the proxy makes no sense of its own
                break
            address = hop
        return address

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._unix
        parsed = ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)
