"""How much waits to be sent on a transport of any kind."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class SendQueue:
    """Counts what a transport holds back, by what any transport tells its producer."""

    __slots__ = ("_free", "_limit", "_paused")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._paused = False

    @property
    def is_waiting(self) -> bool:
        """Whether the transport holds something back."""
        return self._paused

    def take(self, size: int) -> bool:
        """Account for `size` bytes to write; answer whether there is room."""
        if self._paused:
            if size > self._free:
                return False
            self._free -= size
        return True

    def pauseProducing(self) -> None:
        """The transport's buffer has filled."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._paused = False
        self._free = self._limit

    def stopProducing(self) -> None:
        """The connection is lost."""
