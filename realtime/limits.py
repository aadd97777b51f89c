"""Rate limits. Pure: the present, in seconds, is an argument."""

from __future__ import annotations

# Seconds that adding a number to Unix time may be off by: half the last place of a float.
_ROUNDING = 2.5e-7


class TokenBucket:
    """A bucket that holds `burst` tokens and gains `rate` a second.

    Kept as one number, the time at which the bucket will be full again (the generic cell
    rate algorithm), so that taking a token costs an addition and a comparison.
    """

    __slots__ = ("_full_at", "_interval", "_tolerance")

    def __init__(self, rate: float, burst: float) -> None:
        self._interval = 1.0 / rate
        # Without allowance for rounding, the last token of a burst would now and then be missing.
        self._tolerance = burst / rate + (burst + 1) * _ROUNDING
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take a token; answer 0.0, or the seconds to wait when there is none (none is taken)."""
        full_at = self._full_at
        if full_at < now:
            full_at = now
        full_at += self._interval
        wait = full_at - now - self._tolerance
        if wait > 0.0:
            return wait + _ROUNDING
        self._full_at = full_at
        return 0.0

    def spend(self, tokens: float, now: float) -> None:
        """Take `tokens`, on credit where there are fewer: `take` waits until that is paid."""
        self._full_at = max(self._full_at, now) + tokens * self._interval

    def is_full(self, now: float) -> bool:
        """Whether the bucket has all its tokens, so that forgetting it changes nothing."""
        return self._full_at <= now


def take_of(buckets: dict[str, TokenBucket], key: str, rate: float, now: float) -> float:
    """Take a token of one of some buckets that last a second; answer as `TokenBucket.take`."""
    bucket = buckets.get(key)
    if bucket is None:
        bucket = buckets[key] = TokenBucket(rate, max(1.0, rate))
    return bucket.take(now)


class KeyedLimiter:
    """One token bucket a key, for at most `max_keys` keys at a time.

    Keys whose bucket is full again are forgotten. When more than `max_keys` are active, the
    oldest are forgotten first: a flood of keys may loosen the limit, never exhaust memory.
    """

    def __init__(self, rate: float, burst: float, max_keys: int = 100_000) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take a token of `key`; answer 0.0, or the seconds to wait."""
        buckets = self._buckets
        bucket = buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst)
            self._forget(now)
        buckets[key] = bucket
        return bucket.take(now)

    def reset(self, key: str) -> None:
        """Forget `key`, as after a success."""
        self._buckets.pop(key, None)

    def _forget(self, now: float) -> None:
        """Drop a few of the least recently used keys: full ones, and any above the bound."""
        buckets = self._buckets
        for _ in range(2):
            oldest = next(iter(buckets), None)
            if oldest is None:
                return
            if len(buckets) < self._max_keys and not buckets[oldest].is_full(now):
                return
            del buckets[oldest]
