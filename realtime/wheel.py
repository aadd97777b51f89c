"""Deadlines by the second for very many things at once. Pure: the present is an argument."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Sets of items by the second at which they are due.

    Scheduling and cancelling are O(1) and hold no timer of the reactor's: one tick a second
    serves every connection. An item is due at most once a second; times are whole seconds.
    """

    __slots__ = ("_due", "_now")

    def __init__(self, now: int) -> None:
        self._now = now
        self._due: dict[int, dict[T, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def schedule(self, item: T, second: int) -> int:
        """Make `item` due at `second`, or at the next tick if that is past; answer which."""
        if second <= self._now:
            second = self._now + 1
        bucket = self._due.get(second)
        if bucket is None:
            bucket = self._due[second] = {}
        bucket[item] = None
        return second

    def cancel(self, item: T, second: int) -> None:
        """Undo `schedule`, given its answer. What is not scheduled is ignored."""
        bucket = self._due.get(second)
        if bucket is not None:
            bucket.pop(item, None)
            if not bucket:
                del self._due[second]

    def advance(self, now: int) -> list[T]:
        """Move to `now` and give back what has become due, soonest first."""
        if now - self._now > len(self._due):
            seconds = sorted(second for second in self._due if second <= now)
        else:
            seconds = [s for s in range(self._now + 1, now + 1) if s in self._due]
        self._now = max(now, self._now)
        return [item for second in seconds for item in self._due.pop(second)]
