"""Several Redis servers, among which names are shared out by a consistent hash."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from realtime.redis_client import Redis

# Places of each server on the circle: enough for shares that differ by a few percent.
PLACES: Final = 160


class Ring:
    """Gives every name its server, which stays the same for most names when servers are added."""

    def __init__(self, servers: Sequence[Redis]) -> None:
        self.all = tuple(servers)
        # For what is not shared out.
        self.first = self.all[0]
        circle = sorted(
            (_place(f"{server.address} {number}"), index)
            for index, server in enumerate(self.all)
            for number in range(PLACES)
        )
        self._places = [place for place, _ in circle]
        self._servers = [self.all[index] for _, index in circle]

    @property
    def up(self) -> bool:
        """Whether all servers are."""
        return all(server.up for server in self.all)

    def of(self, name: str) -> Redis:
        """The server of a name."""
        if len(self.all) == 1:
            return self.first
        return self._servers[bisect(self._places, _place(name)) % len(self._servers)]


def _place(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big")
