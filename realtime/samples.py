"""What the counters said over the last hour, for the console's charts. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from realtime.metrics import Counters

# Seconds between samples, and how many are kept: an hour.
PERIOD: Final = 5
KEPT: Final = 720

# Unix second, connections, messages received and sent and errors since the sample before, and
# the longest lag of the event loop in seconds.
Sample: TypeAlias = tuple[int, int, int, int, int, float]


class Samples:
    """A ring of samples, and the lag of the event loop that goes into them and the metrics."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._ring: deque[Sample] = deque(maxlen=KEPT)
        self._seen = (0, 0, 0)
        self._period = 0
        self._due: float | None = None
        self._longest = 0.0

    def beat(self, now: float, instant: float) -> None:
        """Take note, once a second. `instant` is of a clock that is never set.

        How late a beat comes is how long the event loop was busy with something else.
        """
        lag = 0.0 if self._due is None else max(0.0, instant - self._due)
        # Beats that were missed are not made up for: the next is that of the next second.
        self._due = instant - lag % 1 + 1
        self._counters.event_loop_lag_seconds = lag
        self._longest = max(self._longest, lag)
        period = int(now) // PERIOD
        if period != self._period:
            if self._period:
                self._take(period * PERIOD)
            self._period = period

    def _take(self, second: int) -> None:
        counters = self._counters
        seen = (counters.messages_received, counters.messages_sent, counters.errors)
        received, sent, errors = (new - old for new, old in zip(seen, self._seen, strict=True))
        self._seen = seen
        # A clock that was set back begins anew from there.
        while self._ring and self._ring[-1][0] >= second:
            self._ring.pop()
        lag, self._longest = round(self._longest, 4), 0.0
        self._ring.append((second, counters.active_connections, received, sent, errors, lag))

    def since(self, second: int) -> list[Sample]:
        """The samples after a second, the oldest first."""
        return [sample for sample in self._ring if sample[0] > second]
