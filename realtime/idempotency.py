"""What came of the publications that had a key. Pure: the present is an argument, in seconds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeAlias, TypeVar

from realtime.interfaces import KEY_TTL

# Topic, user and key.
Scope: TypeAlias = tuple[str, str, str]
R = TypeVar("R")
W = TypeVar("W")

# Keys that are remembered; each takes about 400 bytes beside its text.
MAX_KEYS: Final = 250_000


class Keys(Generic[R, W]):
    """Keys of publications, for `KEY_TTL` seconds; above `limit` the oldest are forgotten.

    A key is under way from `begin` to `done` or `failed`, and gathers those who wait for it.
    """

    def __init__(self, *, limit: int = MAX_KEYS) -> None:
        self._limit = limit
        # The oldest first, as all are kept equally long.
        self._done: OrderedDict[Scope, tuple[float, R]] = OrderedDict()
        self._under_way: dict[Scope, list[W]] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._done)

    def find(self, scope: Scope, now: float) -> tuple[R] | None:
        """What came of a key's publication, as a tuple of one; None where the key is new."""
        found = self._done.get(scope)
        if found is None or found[0] <= now:
            return None
        return found[1:]

    def waiting(self, scope: Scope) -> list[W] | None:
        """Who waits for a key that is under way, to be added to; None where it is not."""
        return self._under_way.get(scope)

    def begin(self, scope: Scope) -> None:
        """A key's publication is under way."""
        self._under_way[scope] = []

    def done(self, scope: Scope, result: R, now: float) -> list[W]:
        """A key's publication has been accepted; answer who waits for that."""
        done = self._done
        done.pop(scope, None)
        done[scope] = (now + KEY_TTL, result)
        if len(done) > self._limit:
            done.popitem(last=False)
        return self._under_way.pop(scope, [])

    def failed(self, scope: Scope) -> list[W]:
        """A key's publication was not accepted, and may be tried again; answer who waits."""
        return self._under_way.pop(scope)

    def expire(self, now: float, budget: int = 10_000) -> None:
        """Forget keys that are too old, at most `budget`; to be called once a second."""
        done = self._done
        for _ in range(budget):
            if not done or done[next(iter(done))][0] > now:
                break
            done.popitem(last=False)
