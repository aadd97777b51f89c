"""The embedded broker: one node, nothing outside the process."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from realtime.interfaces import IBroker
from realtime.model import Position, Publication


@implementer(IBroker)
class MemoryBroker:
    """Hands each publication straight back to the only node there is."""

    def __init__(self) -> None:
        self._deliver: Callable[[Publication], object] = _not_started

    def start(self, deliver: Callable[[Publication], object]) -> None:
        """See `IBroker.start`."""
        self._deliver = deliver

    def publish(self, publication: Publication) -> Position | None:
        """Deliver before returning; there is no history, so no position."""
        self._deliver(publication)
        return None

    def subscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""

    def unsubscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""


def _not_started(publication: Publication) -> None:
    raise RuntimeError("publish before start")
