"""The embedded broker: one node, nothing outside the process."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from realtime.interfaces import IBroker
from realtime.model import HistoryPage, Namespace, Position, Publication


@implementer(IBroker)
class MemoryBroker:
    """Hands each publication straight back to the only node there is."""

    def __init__(self) -> None:
        self._deliver: Callable[[Publication], object] = _not_started
        self._announce: Callable[[str, bytes], object] = _not_started

    def start(
        self, deliver: Callable[[Publication], object], announce: Callable[[str, bytes], object]
    ) -> None:
        """See `IBroker.start`."""
        self._deliver = deliver
        self._announce = announce

    def publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Position | None:
        """Deliver before returning; there is no history, so no position."""
        self._deliver(publication)
        return None

    def announce(self, topic: str, message: bytes) -> None:
        """Deliver before returning."""
        self._announce(topic, message)

    def subscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""

    def unsubscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""

    def history(
        self,
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> HistoryPage | None:
        """There is none yet."""
        return None

    def remove_history(self, topic: str) -> None:
        """There is none yet."""


def _not_started(*args: object) -> None:
    raise RuntimeError("publish before start")
