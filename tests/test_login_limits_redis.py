"""Limits on logins: what holds of those in memory and in Redis, and what of the latter alone."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from realtime.auth import Auth, LoginLimits
from realtime.errors import InvalidCredentials, RateLimited, Unavailable
from realtime.interfaces import NETWORK_LOGINS, USER_LOGINS, ILoginLimits
from realtime.login_limits_redis import RedisLoginLimits
from realtime.redis_keys import Keys
from tests.support.identity import PASSWORD, START, make_identity
from tests.support.redis import RedisServer, connect, new_prefix, oldest_redis
from tests.test_redis_client import told

RATE, BURST = 1 / 60, 3


class LimitsContract:
    """Mix in before `TestCase`; `limits` are three attempts at once, then one a minute."""

    assertEqual: Any
    assertTrue: Any
    assertAlmostEqual: Any
    assertGreater: Any
    limits: Any

    async def take(self, user: str = "alice", network: str = "192.0.2.1", at: float = 0.0) -> float:
        """Make an attempt, `at` seconds from the start; answer how long to wait."""
        wait: float = await self.limits.take(user, network, START + at)
        return wait

    async def heard(self, number: int, **attempt: Any) -> None:
        """Make attempts that are heard."""
        for _ in range(number):
            self.assertEqual(await self.take(**attempt), 0.0)

    async def test_provides_the_interface(self) -> None:
        """It has the methods of `ILoginLimits`."""
        self.assertTrue(verifyObject(ILoginLimits, self.limits))

    async def test_user_and_network(self) -> None:
        """A burst is heard of a user from a network, then one each time a token has come."""
        await self.heard(BURST)
        wait = await self.take()
        self.assertAlmostEqual(wait, 60, 3)
        self.assertAlmostEqual(await self.take(at=20), 40, 3)
        await self.heard(1, at=wait)
        self.assertAlmostEqual(await self.take(at=wait), 60, 3)
        await self.heard(BURST, at=wait + 180)

    async def test_others(self) -> None:
        """Another network, and another user, are not concerned."""
        await self.heard(BURST)
        await self.heard(BURST, user="bob")
        await self.heard(BURST, network="192.0.2.2")
        await self.heard(BURST, network="")

    async def test_network(self) -> None:
        """Ten times as many are heard from a network."""
        for number in range(BURST * NETWORK_LOGINS):
            await self.heard(1, user=f"user{number}")
        self.assertAlmostEqual(await self.take(), 6, 3)
        await self.heard(1, network="192.0.2.2")
        await self.heard(1, network="")

    async def test_user(self) -> None:
        """Twenty times as many are heard of a user."""
        for number in range(BURST * USER_LOGINS):
            await self.heard(1, network=f"192.0.2.{number}")
        self.assertAlmostEqual(await self.take(network="198.51.100.1"), 3, 3)
        await self.heard(1, user="bob")

    async def test_forgive(self) -> None:
        """A success makes the user's former failures from there count no more."""
        await self.heard(BURST)
        await self.limits.forgive("bob", "192.0.2.1")
        await self.limits.forgive("alice", "192.0.2.2")
        self.assertGreater(await self.take(), 0)
        await self.limits.forgive("alice", "192.0.2.1")
        await self.heard(BURST)

    async def test_any_name(self) -> None:
        """Whatever is given for a user's name is counted."""
        for user in ("", "\x00", "\ud800", "é" * 255, "a b"):
            await self.heard(BURST, user=user)
            self.assertGreater(await self.take(user=user), 0)


class MemoryLimitsTests(LimitsContract, TestCase):
    """In memory."""

    def setUp(self) -> None:
        self.limits = LoginLimits(RATE, BURST)


class RedisLimitsTests(LimitsContract, TestCase):
    """In Redis."""

    async def setUp(self) -> None:
        self.redis = await connect(self, self.server())
        self.prefix = new_prefix()
        self.keys = Keys(self.prefix)
        self.limits = RedisLoginLimits(self.redis, self.keys, RATE, BURST)

    def server(self) -> RedisServer | None:
        """The Redis to use, None for the shared one."""
        return None

    async def test_over_nodes(self) -> None:
        """What is heard by one node counts for all, and so does what is forgiven."""
        other = RedisLoginLimits(await connect(self, self.server()), self.keys, RATE, BURST)
        attempts = [each.take("alice", "n", START) for each in (self.limits, other) * BURST]
        waits = await gatherResults([Deferred.fromCoroutine(each) for each in attempts])
        self.assertEqual(waits.count(0.0), BURST)
        await other.forgive("alice", "n")
        self.assertEqual(await self.limits.take("alice", "n", START), 0.0)

    async def test_as_in_memory(self) -> None:
        """It hears the same attempts, and has the others wait as long, as the one in memory."""
        chance = Random(1)
        for _ in range(20):
            redis = RedisLoginLimits(self.redis, Keys(new_prefix()), RATE, BURST)
            memory = LoginLimits(RATE, BURST)
            now = START
            for _ in range(50):
                now += chance.expovariate(1 / 10)
                attempt = chance.choice("ab"), chance.choice(["", "x", "y"]), now
                waits = [await limits.take(*attempt) for limits in (redis, memory)]
                self.assertAlmostEqual(*waits, 6)

    async def test_lifetimes(self) -> None:
        """Nothing stays for longer than it counts, and names are not to be seen."""
        await self.heard(BURST)
        _, keys = await self.redis.command("SCAN", 0, "MATCH", f"{self.prefix}*", "COUNT", 100_000)
        self.assertEqual(len(keys), 3)
        for key in keys:
            left = await self.redis.command("PTTL", key)
            self.assertTrue(0 < left <= 181_000, (key, left))
            shown = b"".join([key, *await self.redis.command("ZRANGE", key, 0, -1)])
            self.assertNotIn(b"alice", shown)
            self.assertNotIn(b"192.0.2.1", shown)

    async def test_full_buckets_go(self) -> None:
        """Buckets that are full again make room."""
        for number in range(5):
            await self.heard(1, user=f"user{number}", network=f"192.0.2.{number}")
        await self.heard(1, at=61)
        for sort in ("networks", "pairs", "users"):
            self.assertEqual(await self.redis.command("ZCARD", self.keys.key("logins", sort)), 1)

    async def test_bounded(self) -> None:
        """Beyond a bound the buckets that are nearest to full are forgotten."""
        limits = RedisLoginLimits(self.redis, self.keys, RATE, BURST, max_buckets=5)
        for _ in range(BURST):
            await limits.take("alice", "n", START)
        for number in range(20):
            self.assertEqual(await limits.take(f"user{number}", "", START), 0.0)
        self.assertGreater(await limits.take("alice", "n", START), 0)
        for sort in ("pairs", "users"):
            self.assertEqual(await self.redis.command("ZCARD", self.keys.key("logins", sort)), 5)


class OldestRedisLimitsTests(RedisLimitsTests):
    """The same on the oldest Redis."""

    def server(self) -> RedisServer | None:
        server = self.__dict__.get("_server")
        if server is None:
            server = self._server = RedisServer(binary=oldest_redis())
            self.addCleanup(server.remove)
            server.start()
        return server


class LossTests(TestCase):
    """A Redis that is away."""

    async def setUp(self) -> None:
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()
        self.redis = await connect(self, self.server)
        self.limits = RedisLoginLimits(self.redis, Keys(new_prefix()), RATE, BURST)
        kit = await make_identity(self)
        self.auth = Auth(
            kit.tokens, kit.accounts, kit.sessions, kit.clock, print, login_limits=self.limits
        )
        await kit.accounts.create("alice", PASSWORD)

    async def guess(self) -> None:
        """Make an attempt that fails."""
        await self.auth.login("alice", "wrong horse", None)

    async def test_killed(self) -> None:
        """Without Redis no attempt is heard, right or wrong; what was counted still counts."""
        for _ in range(BURST):
            with self.assertRaises(InvalidCredentials):
                await self.guess()
        with self.assertRaises(RateLimited) as caught:
            await self.guess()
        self.assertEqual(caught.exception.headers["Retry-After"], "60")
        down, up = told(self.redis.when_down), told(self.redis.when_up)
        self.server.kill()
        await down
        for attempt in (self.guess(), self.auth.login("alice", PASSWORD, None)):
            with self.assertRaises(Unavailable):
                await attempt
        await self.limits.forgive("alice", "")
        self.server.start()
        await up
        with self.assertRaises(RateLimited):
            await self.guess()

    async def test_full(self) -> None:
        """A Redis that refuses to count hears no attempt."""
        await self.redis.command("CONFIG", "SET", "maxmemory", "1")
        with self.assertRaises(Unavailable):
            await self.auth.login("alice", PASSWORD, None)
        await self.limits.forgive("alice", "")
