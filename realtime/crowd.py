"""Who gives way when there are too many connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Crowd(Generic[T]):
    """Connections, by the network that each comes from.

    A connection waits for its client, `idle` between requests or amid one, or else it is served.
    """

    def __init__(self) -> None:
        self._networks: dict[T, str] = {}
        # Those that wait, and whether idle, in the order in which they began to.
        self._waiting: dict[str, dict[T, bool]] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def __iter__(self) -> Iterator[T]:
        return iter(self._networks)

    def wait(self, connection: T, network: str, *, idle: bool) -> None:
        """A connection begins to wait."""
        self.serve(connection, network)
        self._waiting.setdefault(network, {})[connection] = idle

    def serve(self, connection: T, network: str) -> None:
        """A connection's client waits for us."""
        self.forget(connection)
        self._networks[connection] = network

    def forget(self, connection: T) -> None:
        """A connection has ended."""
        network = self._networks.pop(connection, "")
        waiting = self._waiting.get(network, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(network, None)

    def first_to_go(self) -> T | None:
        """Of the network with the most that wait: who has been idle for longest, or has waited.

        So one client with very many leaves the others alone, and a proxy that carries everybody
        loses what it needs least. None where nobody waits.
        """
        if not self._waiting:
            return None
        heaviest = max(self._waiting.values(), key=len)
        idle = (connection for connection, is_idle in heaviest.items() if is_idle)
        return next(idle, next(iter(heaviest)))
