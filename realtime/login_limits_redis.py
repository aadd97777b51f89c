"""Limits on attempts to log in that hold over all nodes, in Redis.

Each of the three limits is a sorted set: of each bucket that is not full, when it will be (the
generic cell rate algorithm, as `limits.TokenBucket`). What is in the names of users and networks
stays here: buckets go by hashes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from twisted.logger import Logger
from zope.interface import implementer

from realtime.errors import Unavailable
from realtime.interfaces import NETWORK_LOGINS, USER_LOGINS, ILoginLimits
from realtime.redis_client import Redis, RedisRefused, out_of_reach
from realtime.redis_keys import Keys
from realtime.redis_scripts import Script

_log = Logger()

# Seconds that adding a number to Unix time may be off by.
_ROUNDING: Final = 2.5e-7

_TAKE: Final = Script("""
-- KEYS: a sorted set a limit. ARGV: the present, how many buckets a limit has at most, the
-- seconds added for waits to suffice; then of each limit: bucket or nothing, the seconds that a
-- token takes to come, and those in which an empty bucket is full.
-- Answers the seconds to wait; the limits after one that refuses count nothing.
local now = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local bucket, interval, tolerance = ARGV[i * 3 + 1], ARGV[i * 3 + 2], ARGV[i * 3 + 3]
  if bucket ~= '' then
    local full = redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[1], 'LIMIT', 0, 10)
    if #full > 0 then redis.call('ZREM', key, unpack(full)) end
    local known = redis.call('ZSCORE', key, bucket)
    local full_at = math.max(tonumber(known or 0), now) + tonumber(interval)
    local wait = full_at - now - tonumber(tolerance)
    if wait > 0 then return string.format('%.17g', wait + tonumber(ARGV[3])) end
    -- The bucket that is nearest to full is the least loss.
    if not known and redis.call('ZCARD', key) >= tonumber(ARGV[2]) then
      redis.call('ZPOPMIN', key)
    end
    redis.call('ZADD', key, string.format('%.17g', full_at), bucket)
    local last = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((last - now) * 1000) + 1000))
  end
end
return '0'
""")


@implementer(ILoginLimits)
class RedisLoginLimits:
    """See `ILoginLimits`. `rate` is attempts a second, `burst` how many may come at once.

    Each limit has `max_buckets` at most that are not full: a flood of names may loosen it, never
    exhaust memory.
    """

    def __init__(
        self, redis: Redis, keys: Keys, rate: float, burst: float, *, max_buckets: int = 100_000
    ) -> None:
        self._redis = redis
        self._max_buckets = max_buckets
        self._pairs = keys.key("logins", "pairs")
        self._keys = (keys.key("logins", "networks"), self._pairs, keys.key("logins", "users"))
        tolerances = [
            repr(burst / rate + (burst * share + 1) * _ROUNDING)
            for share in (NETWORK_LOGINS, 1, USER_LOGINS)
        ]
        intervals = [repr(1 / (rate * share)) for share in (NETWORK_LOGINS, 1, USER_LOGINS)]
        self._buckets = list(zip(intervals, tolerances, strict=True))

    async def take(self, user: str, network: str, now: float) -> float:
        """See `ILoginLimits.take`."""
        names = (_hash(network) if network else b"", _pair(user, network), _hash(user))
        args: list[bytes | str | int] = [repr(now), self._max_buckets, repr(_ROUNDING)]
        for name, bucket in zip(names, self._buckets, strict=True):
            args += [name, *bucket]
        try:
            return float(await self._redis.run(_TAKE, self._keys, args))
        except RedisRefused:
            raise out_of_reach() from None

    async def forgive(self, user: str, network: str) -> None:
        """See `ILoginLimits.forgive`."""
        try:
            await self._redis.command("ZREM", self._pairs, _pair(user, network))
        except (Unavailable, RedisRefused) as error:
            _log.info("A login's failures before stay counted: {why}", why=str(error))


def _hash(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _pair(user: str, network: str) -> bytes:
    return _hash(f"{network} {user}")
