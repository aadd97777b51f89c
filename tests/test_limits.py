"""Tests of realtime.limits."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import RateLimited
from realtime.limits import KeyedLimiter, TokenBucket
from tests.support import strategies  # noqa: F401

UNIX = 1_790_000_000.0
# More than rounding can make, much less than any rate here makes of a step of time.
CLOSE = Fraction(1, 1000)

rates = st.one_of(st.integers(1, 300), st.sampled_from([0.1, 0.5, 5 / 60, 10 / 60, 1 / 3]))


class NaiveBucket:
    """A bucket with tokens in it, in exact numbers."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = Fraction(rate)
        self.burst = Fraction(burst)
        self.tokens = self.burst
        self.at: Fraction | None = None

    def level(self, now: float) -> Fraction:
        """Tokens in the bucket now."""
        if self.at is not None:
            gained = (Fraction(now) - self.at) * self.rate
            self.tokens = min(self.burst, self.tokens + gained)
        self.at = Fraction(now)
        return self.tokens


class TokenBucketTests(SynchronousTestCase):
    """A bucket of tokens."""

    @given(
        rates,
        st.integers(1, 20),
        st.floats(0, UNIX),
        st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 100)), max_size=40),
    )
    def test_agrees_with_naive_bucket(
        self, rate: float, burst: int, start: float, steps: list[float]
    ) -> None:
        """A token is given where an exact bucket has one; else the wait until it has is told."""
        bucket = TokenBucket(rate, burst)
        naive = NaiveBucket(rate, burst)
        now = start
        for step in steps:
            now += step
            level = naive.level(now)
            wait = bucket.take(now)
            if abs(level - 1) < CLOSE:  # either is right
                if wait == 0.0:
                    naive.tokens -= 1
                continue
            if level > 1:
                self.assertEqual(wait, 0.0)
                naive.tokens -= 1
            else:
                self.assertGreater(wait, 0.0)
                self.assertLess(abs(wait - (1 - level) / naive.rate), 0.01)

    @given(rates, st.integers(1, 300), st.floats(UNIX, UNIX + 1e8))
    def test_burst_is_exact_at_any_time(self, rate: float, burst: int, now: float) -> None:
        """A full bucket gives its burst, not one more or less, at times as clocks have them."""
        bucket = TokenBucket(rate, burst)
        self.assertEqual([bucket.take(now) for _ in range(burst)], [0.0] * burst)
        self.assertGreater(bucket.take(now), 0.0)

    @given(rates, st.integers(1, 20), st.floats(UNIX, UNIX + 1e8))
    def test_waiting_as_told_suffices(self, rate: float, burst: int, now: float) -> None:
        """After the wait that it told, a bucket gives a token: after half of it, none."""
        bucket = TokenBucket(rate, burst)
        for _ in range(burst):
            bucket.take(now)
        wait = bucket.take(now)
        self.assertGreater(bucket.take(now + wait / 2), 0.0)
        told = RateLimited(wait).details["retry_after_ms"] / 1000
        self.assertEqual(bucket.take(now + wait), 0.0)
        self.assertGreater(bucket.take(now + wait), 0.0)
        self.assertLess(abs(told - 1 / rate), 0.0011)

    def test_refusals_cost_nothing(self) -> None:
        """What is refused takes no token: hammering does not prolong the wait."""
        bucket = TokenBucket(1, 1)
        bucket.take(UNIX)
        waits = {bucket.take(UNIX + 0.5) for _ in range(10)}
        self.assertEqual(len(waits), 1)
        self.assertAlmostEqual(waits.pop(), 0.5, places=5)

    def test_idle_time_is_not_saved(self) -> None:
        """After any idle time a bucket holds its burst and no more."""
        bucket = TokenBucket(10, 3)
        bucket.take(UNIX)
        later = UNIX + 1e6
        self.assertEqual([bucket.take(later) for _ in range(3)], [0.0] * 3)
        self.assertGreater(bucket.take(later), 0.0)

    def test_credit(self) -> None:
        """What is spent beyond what is there is paid by waiting."""
        bucket = TokenBucket(10, 5)
        bucket.spend(8, 100.0)
        self.assertAlmostEqual(bucket.take(100.0), 0.4, places=5)
        self.assertEqual(bucket.take(100.41), 0.0)
        self.assertFalse(bucket.is_full(100.8))
        self.assertTrue(bucket.is_full(100.91))

    def test_is_full(self) -> None:
        """A bucket is full at first, not after a take, and again after the time that it takes."""
        bucket = TokenBucket(2, 4)
        self.assertTrue(bucket.is_full(UNIX))
        bucket.take(UNIX)
        self.assertFalse(bucket.is_full(UNIX))
        self.assertFalse(bucket.is_full(UNIX + 0.4))
        self.assertTrue(bucket.is_full(UNIX + 0.5))


class KeyedLimiterTests(SynchronousTestCase):
    """A bucket for each key."""

    def test_keys_are_apart(self) -> None:
        """Each key has a bucket of its own."""
        limiter = KeyedLimiter(1, 2)
        self.assertEqual([limiter.take("a", UNIX) for _ in range(2)], [0.0, 0.0])
        self.assertGreater(limiter.take("a", UNIX), 0.0)
        self.assertEqual(limiter.take("b", UNIX), 0.0)

    def test_reset(self) -> None:
        """A key that is reset begins anew; an unknown one may be reset."""
        limiter = KeyedLimiter(1, 1)
        limiter.take("a", UNIX)
        limiter.reset("a")
        limiter.reset("unknown")
        self.assertEqual(limiter.take("a", UNIX), 0.0)

    def test_full_buckets_are_forgotten(self) -> None:
        """Keys of which nothing was heard until their buckets filled take no memory for long."""
        limiter = KeyedLimiter(1, 1)
        for number in range(100):
            limiter.take(f"old {number}", UNIX)
        for number in range(100):
            limiter.take(f"new {number}", UNIX + 10)
            # Two go for each that comes, or a flood's traces would never be fewer.
            self.assertEqual(len(limiter), max(99 - number, number + 1))
        self.assertGreater(limiter.take("new 0", UNIX + 10), 0.0)

    def test_flood_is_bounded(self) -> None:
        """However many keys are active, only so many are kept, those used last."""
        limiter = KeyedLimiter(1, 1, max_keys=10)
        for number in range(1000):
            limiter.take(str(number), UNIX)
            self.assertLessEqual(len(limiter), 10)
        self.assertEqual(len(limiter), 10)
        self.assertGreater(limiter.take("990", UNIX), 0.0)
        self.assertEqual(limiter.take("989", UNIX), 0.0)

    def test_key_in_use_survives_a_flood(self) -> None:
        """A key that keeps trying is not forgotten in favour of ones seen once."""
        limiter = KeyedLimiter(0.001, 1, max_keys=4)
        limiter.take("attacker", UNIX)
        for number in range(100):
            limiter.take(str(number), UNIX)
            self.assertGreater(limiter.take("attacker", UNIX), 0.0)

    @given(
        st.integers(1, 4),
        st.lists(
            st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 0, 0.25, 4])), max_size=60
        ),
    )
    def test_agrees_with_plain_buckets(self, burst: int, takes: list[tuple[str, float]]) -> None:
        """With room for all keys, forgetting full buckets changes no answer."""
        assume(takes)
        limiter = KeyedLimiter(1, burst)
        buckets = {key: TokenBucket(1, burst) for key in "abcdef"}
        now = UNIX
        for key, step in takes:
            now += step
            self.assertEqual(limiter.take(key, now), buckets[key].take(now))
