"""How long to wait before connecting again."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Full jitter: anything up to a bound that doubles with each attempt. Times are seconds.

    A connection that has lasted for `stable` begins anew; one that fails at once does not, so
    that a server which takes connections and drops them is not stormed.
    """

    def __init__(
        self,
        least: float,
        most: float,
        stable: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._least = least
        self._most = most
        self._stable = stable
        self._uniform = uniform
        self.attempt = 0

    def delay(self, lasted: float) -> float:
        """The wait after a connection, or an attempt at one, that has lasted so long."""
        if lasted >= self._stable:
            self.attempt = 0
        # No more doubling than a float can hold.
        bound = min(self._most, self._least * 2.0 ** min(self.attempt, 60))
        self.attempt += 1
        return self._uniform(0.0, bound)
