"""The parts of a node that stand in memory and SQLite, or on Redis, put together either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger

from realtime.auth import LoginLimits
from realtime.broker_memory import MemoryBroker
from realtime.broker_redis import RedisBroker
from realtime.cluster_redis import RedisCluster
from realtime.errors import ConfigurationError, Unavailable
from realtime.history_sqlite import Journal
from realtime.interfaces import Deadline, IBroker, ILoginLimits, IPresence, ISessions
from realtime.login_limits_redis import RedisLoginLimits
from realtime.metrics import Counters
from realtime.names import new_node_id
from realtime.presence_memory import MemoryPresence
from realtime.presence_redis import RedisPresence
from realtime.redis_client import Redis, RedisRefused
from realtime.redis_keys import Keys
from realtime.redis_ring import Ring
from realtime.rules import Rules
from realtime.sessions_redis import RedisSessions
from realtime.sessions_sqlite import Sessions
from realtime.settings import Settings
from realtime.wheel import TimerWheel

_log = Logger()

HISTORY = "history.sqlite3"


@dataclass(frozen=True, slots=True)
class Around:
    """What the parts need of what is around them."""

    settings: Settings
    state: Path
    rules: Rules
    # Those of the state directory's database.
    sessions: Sessions
    session_ttl: float
    counters: Counters
    deadlines: TimerWheel[Deadline]
    reactor: Any
    # Told of a topic or pattern of which publications are lost.
    on_lost: Callable[[str], object]


class MemoryParts:
    """One node alone."""

    cluster: RedisCluster | None = None

    def __init__(self, around: Around) -> None:
        settings, reactor = around.settings, around.reactor
        self.node_id = new_node_id()
        self.broker: IBroker
        self._broker = self.broker = _memory_broker(around)
        self.presence: IPresence = MemoryPresence(
            around.deadlines, reactor.seconds, grace=settings.presence_grace
        )
        self.sessions: ISessions = around.sessions
        self.login_limits: ILoginLimits = LoginLimits(settings.login_rate, settings.login_burst)
        self._rules = around.rules
        self._reactor = reactor

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def open(self) -> None:
        """Recover the histories of durable topics; raises `ConfigurationError`."""
        await self._broker.open(self._rules.namespace)

    def tick(self) -> None:
        """Have what is too old forgotten, some of it in a turn of the reactor."""
        if not self._broker.advance(self._reactor.seconds()):
            self._reactor.callLater(0, self.tick)

    async def stop(self) -> None:
        """Finish and close."""
        await self._broker.stop()


class RedisParts:
    """A node among others."""

    def __init__(self, around: Around) -> None:
        settings, reactor, counters = around.settings, around.reactor, around.counters
        self.node_id = new_node_id()
        self._ring = ring = Ring([Redis(address, reactor) for address in settings.redis])
        keys = Keys(settings.redis_prefix, settings.redis[0].db)
        self._broker = RedisBroker(
            ring, keys, reactor, counters, around.rules.namespace, around.on_lost
        )
        self.broker: IBroker = self._broker
        self.cluster = RedisCluster(ring, keys, self.node_id, reactor, counters)
        self._presence = RedisPresence(
            ring,
            keys,
            self.node_id,
            around.deadlines,
            reactor,
            grace=settings.presence_grace,
        )
        self.presence: IPresence = self._presence
        self.sessions: ISessions = RedisSessions(
            ring.first, keys, reactor, session_ttl=around.session_ttl, local=around.sessions
        )
        self.login_limits: ILoginLimits = RedisLoginLimits(
            ring.first, keys, settings.login_rate, settings.login_burst
        )
        self._durable = any(namespace.durable for namespace in settings.topics)
        self._clock = reactor

    async def connect(self) -> None:
        """Connect to Redis; raises `ConfigurationError` where it is not there.

        Where topics are durable, a Redis that forgets when it is restarted is warned of.
        """
        starts = [Deferred.fromCoroutine(redis.start()) for redis in self._ring.all]
        try:
            await gatherResults(starts, consumeErrors=True)
        except FirstError as error:
            raise ConfigurationError(f"--redis: {error.subFailure.value}") from None
        if self._durable:
            for redis in self._ring.all:
                await _warn_of_forgetting(redis)

    async def open(self) -> None:
        """Join the others."""
        await self._presence.open()
        await self.cluster.open()

    def tick(self) -> None:
        """Give signs of life, and look for what is missing; once a second."""
        self.cluster.beat()
        self._presence.beat()
        self._broker.advance(self._clock.seconds())

    async def stop(self) -> None:
        """Leave the others, and disconnect."""
        await self._presence.stop()
        await self.cluster.stop()
        await self._broker.stop()
        for redis in self._ring.all:
            await redis.stop()


def _memory_broker(around: Around) -> MemoryBroker:
    """The broker, with a journal where topics are durable, or have been."""
    settings, path = around.settings, around.state / HISTORY
    journal = None
    if any(namespace.durable for namespace in settings.topics) or path.exists():
        journal = Journal(str(path), around.reactor)
    return MemoryBroker(
        around.reactor.seconds,
        journal=journal,
        max_history_bytes=settings.history_bytes,
        on_full=partial(around.counters.limit, "history-bytes"),
    )


async def _warn_of_forgetting(redis: Redis) -> None:
    try:
        about = await redis.command("INFO", "persistence")
    except (RedisRefused, Unavailable):
        return
    if b"aof_enabled:0" in about:
        _log.warn(
            "Redis at {address} keeps no append-only file: durable topics last no longer than its"
            " memory, or its last snapshot",
            address=redis.address,
        )


Parts: TypeAlias = MemoryParts | RedisParts
