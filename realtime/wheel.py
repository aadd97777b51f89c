"""Deadlines by the second for very many things at once. Pure: the present is an argument."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Sets of items by the second at which they are due.

    Scheduling and cancelling are O(1) and hold no timer of the reactor's: one tick a second
    serves every connection. An item is due at most once a second; times are whole seconds.
    """

    __slots__ = ("_due", "_late", "_now")

    def __init__(self, now: int) -> None:
        self._now = now
        self._due: dict[int, dict[T, None]] = {}
        # Seconds that have come, and may still have items.
        self._late: deque[int] = deque()

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

    def advance(self, now: int, limit: int | None = None) -> list[T]:
        """Move to `now` and take what has become due, soonest first, at most `limit` items.

        What is left over stays due, and can be cancelled, until it is taken.
        """
        if now > self._now:
            if now - self._now > len(self._due):
                self._late.extend(sorted(s for s in self._due if self._now < s <= now))
            else:
                self._late.extend(s for s in range(self._now + 1, now + 1) if s in self._due)
            self._now = now
        taken: list[T] = []
        while self._late:
            second = self._late[0]
            bucket = self._due.get(second, {})
            part = list(islice(bucket, None if limit is None else limit - len(taken)))
            taken += part
            if len(part) < len(bucket):
                for item in part:
                    del bucket[item]
                break
            self._due.pop(second, None)
            self._late.popleft()
        return taken
