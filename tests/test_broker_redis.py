"""The broker on a real Redis."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from realtime.broker_redis import CHECK_SECONDS, ON_ITS_WAY_SECONDS, RedisBroker
from realtime.errors import Unavailable
from realtime.interfaces import KEY_TTL, IBroker
from realtime.metrics import Counters
from realtime.model import Namespace, Position, Publication
from realtime.redis_client import Redis
from realtime.redis_keys import Keys, encode_rest
from realtime.redis_ring import Ring
from realtime.topics import matches
from tests.support.contracts import BrokerContract, accepted, answered, offsets, publication
from tests.support.redis import RedisServer, connect, new_prefix, shared_redis
from tests.support.strategies import small_patterns, small_topics

KEPT = Namespace(">", history_size=1000)


class Made:
    """A broker with all that is around it."""

    def __init__(self, servers: list[Redis], prefix: str, clock: Any = reactor) -> None:
        self.servers = servers
        self.prefix = prefix
        self.counters = Counters()
        self.lost: list[str] = []
        self.namespace: Namespace | None = KEPT
        self.broker = RedisBroker(
            Ring(servers),
            Keys(prefix),
            clock,
            self.counters,
            lambda topic: self.namespace,
            self.lost.append,
        )
        self.delivered: list[Publication] = []
        self.announced: list[tuple[str, bytes]] = []
        self._awaited: list[tuple[int, Deferred[None]]] = []

    def start(self) -> Made:
        self.broker.start(self.deliver, lambda *each: self.announced.append(each))
        return self

    def deliver(self, publication: Publication) -> None:
        self.delivered.append(publication)
        due = [each for number, each in self._awaited if number <= len(self.delivered)]
        self._awaited = [each for each in self._awaited if each[0] > len(self.delivered)]
        for each in due:
            each.callback(None)

    async def have(self, number: int) -> None:
        """Wait until so many publications have been delivered."""
        if len(self.delivered) < number:
            waiting: Deferred[None] = Deferred()
            self._awaited.append((number, waiting))
            await waiting


class RedisBrokerContract(BrokerContract):
    """Brokers that share one or several servers."""

    REMOTE = True
    addCleanup: Any

    def servers(self) -> list[RedisServer]:
        """The servers that the brokers share."""
        return [shared_redis()]

    async def make_brokers(self) -> list[IBroker]:
        """Make brokers with connections of their own."""
        prefix = new_prefix()
        self.made = []
        for _ in range(self.NODES):
            redis = [await connect(self, each) for each in self.servers()]
            self.made.append(Made(redis, prefix))
        return [each.broker for each in self.made]

    async def settle(self) -> None:
        """See what was published before come: a subscription's answers come in their order."""
        for each in self.made:
            for redis in each.servers:
                marker: Deferred[None] = Deferred()
                name = new_prefix().encode()
                await redis.subscribe(name, lambda *_, marker=marker: marker.callback(None))
                await redis.command("PUBLISH", name, "")
                await marker
                redis.unsubscribe(name)


class OneNodeTests(RedisBrokerContract, TestCase):
    """One node."""


class ThreeNodesTests(RedisBrokerContract, TestCase):
    """Three nodes."""

    NODES = 3


class OldestRedisTests(RedisBrokerContract, TestCase):
    """Two nodes on the oldest Redis that is supported."""

    NODES = 2

    def servers(self) -> list[RedisServer]:
        """One of that version."""
        return [shared_redis(oldest=True)]


class ShardedTests(RedisBrokerContract, TestCase):
    """Two nodes, three servers among which topics are shared out."""

    NODES = 2

    def servers(self) -> list[RedisServer]:
        """Three."""
        return [shared_redis(number) for number in range(3)]

    async def test_topics_are_shared_out(self) -> None:
        """Every server has some of the topics."""
        brokers, _ = await self.start_all()
        before = [await redis.command("DBSIZE") for redis in self.made[0].servers]
        for number in range(240):
            await accepted(brokers[0].publish(publication(f"t.{number}"), KEPT, None))
        # About 80 each, of two keys; half of that is six standard deviations away.
        for redis, size in zip(self.made[0].servers, before, strict=True):
            self.assertGreater(await redis.command("DBSIZE") - size, 80)


class AgeTests(TestCase):
    """What goes with time, which is a clock's here."""

    async def setUp(self) -> None:
        """Make a broker."""
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.redis = await connect(self)
        self.made = Made([self.redis], new_prefix(), self.clock).start()

    async def publish(self, number: int, namespace: Namespace) -> Position:
        position = await accepted(
            self.made.broker.publish(publication("a", b"%d" % number), namespace, None)
        )
        assert position is not None
        return position

    async def page(self, namespace: Namespace, **more: Any) -> Any:
        args = {"since": None, "limit": None, "reverse": False, **more}
        return await self.made.broker.history("a", namespace, **args)

    async def test_age(self) -> None:
        """What is too old is not given back; an up-to-date reader has missed nothing."""
        namespace = Namespace(">", history_size=5, history_ttl=60)
        first = await self.publish(1, namespace)
        self.clock.advance(30)
        second = await self.publish(2, namespace)
        self.clock.advance(29)
        self.assertEqual(offsets((await self.page(namespace)).publications), [1, 2])
        self.clock.advance(1)
        for reverse in (False, True):
            page = await self.page(namespace, reverse=reverse)
            self.assertEqual(offsets(page.publications), [2])
            self.assertEqual(page.position, second)
        self.assertIsNone(await self.page(namespace, since=Position(0, first.epoch)))
        self.assertIsNotNone(await self.page(namespace, since=first))
        self.clock.advance(60)
        self.assertIsNone(await self.page(namespace, since=first))
        self.assertEqual((await self.page(namespace, since=second)).publications, ())

    async def test_old_entries_go(self) -> None:
        """Entries that are too old are removed as others come, and everything has an end."""
        namespace = Namespace(">", history_size=50, history_ttl=60)
        for number in range(20):
            await self.publish(number, namespace)
        self.clock.advance(61)
        for number in range(6):
            await self.publish(number, namespace)
        length = await self.redis.command("XLEN", f"{self.made.prefix}stream:a")
        self.assertEqual(length, 6)
        await accepted(self.made.broker.publish(publication("a"), Namespace(">"), "key"))
        for key in await self.redis.command("KEYS", f"{self.made.prefix}*"):
            self.assertGreater(await self.redis.command("TTL", key), 0)
        self.assertLessEqual(await self.redis.command("TTL", f"{self.made.prefix}stream:a"), 61)
        name = f"{self.made.prefix}key:a\0user_0\0key"
        self.assertEqual(await self.redis.command("TTL", name), KEY_TTL)

    async def test_large_history(self) -> None:
        """A page of large publications ends early, and pages go on where one ended."""
        payload = b"1" * 60_000
        for _ in range(20):
            await accepted(self.made.broker.publish(publication("a", payload), KEPT, None))
        page = await self.page(KEPT)
        self.assertEqual(page.position.offset, 20)
        self.assertEqual(offsets(page.publications), list(range(1, 9)))
        rest = await self.page(KEPT, since=page.publications[-1].position)
        self.assertEqual(offsets(rest.publications), list(range(9, 17)))
        back = await self.page(KEPT, reverse=True)
        self.assertEqual(offsets(back.publications), list(range(20, 12, -1)))

    async def test_latency_is_counted(self) -> None:
        """What Redis has taken is counted."""
        await self.publish(1, KEPT)
        self.assertEqual(self.made.counters.broker_publications, 1)


class PatternTests(TestCase):
    """Topics that are heard by patterns."""

    async def test_once(self) -> None:
        """What several patterns and the topic's own name match is delivered once."""
        made = Made([await connect(self)], new_prefix()).start()
        broker = made.broker
        for name in ("a.*", "a.>", "*.b", "a.b", "a.b.*"):
            await answered(broker.subscribe(name))
        number = 0
        for topic in ("a.b", "a.c", "a.b.c", "b.b", "a.c.d", "b.c", "a[b"):
            heard = topic in ("a.b", "a.c", "a.b.c", "b.b", "a.c.d")
            number += heard
            await accepted(broker.publish(publication(topic), KEPT, None))
        await made.have(number)
        await accepted(broker.publish(publication("a.b"), KEPT, None))
        await made.have(number + 1)
        topics = [each.topic for each in made.delivered]
        self.assertEqual(topics, ["a.b", "a.c", "a.b.c", "b.b", "a.c.d", "a.b"])

    async def test_changing(self) -> None:
        """Whatever names come and go meanwhile, each publication is delivered once."""
        made = Made([await connect(self)], new_prefix()).start()
        broker = made.broker
        await answered(broker.subscribe("a.>"))
        results = []
        names = ["a.b", "a.*", "*.b", "a.b", "a.*", "*.b"] * 20
        for number, name in enumerate(names):
            results.append(broker.publish(publication("a.b", b"%d" % number), KEPT, None))
            if number // 6 % 2:
                broker.unsubscribe(name)
            else:
                waiting = broker.subscribe(name)
                if waiting is not None:
                    waiting.addErrback(lambda failure: failure.trap(Unavailable))
        for result in results:
            await accepted(result)
        await made.have(len(names))
        self.assertEqual([int(each.payload) for each in made.delivered], list(range(len(names))))

    async def test_special_letters(self) -> None:
        """Letters that mean something in globs mean themselves."""
        made = Made([await connect(self)], new_prefix()).start()
        await answered(made.broker.subscribe("a?[b]\\.*"))
        for topic in ("axb.1", "a?[b]\\.1", "a?b\\.1", "a?[b]\\.2"):
            await accepted(made.broker.publish(publication(topic), KEPT, None))
        await made.have(2)
        self.assertEqual([each.topic for each in made.delivered], ["a?[b]\\.1", "a?[b]\\.2"])

    def test_globs(self) -> None:
        """Whatever a pattern matches, Redis matches with its glob."""
        keys = Keys("a*[b]:")

        async def check(pattern: str, topic: str) -> None:
            redis = await connect(self)
            await redis.command("SET", keys.channel(topic), "1", "EX", 60)
            found = await redis.command("KEYS", keys.glob(pattern))
            assert keys.channel(topic) in found, (pattern, topic)

        pairs: list[tuple[str, str]] = []

        @settings(max_examples=300)
        @given(small_patterns, small_topics)
        def collect(pattern: str, topic: str) -> None:
            if matches(pattern, topic):
                pairs.append((pattern, topic))

        collect()

        async def check_all() -> None:
            for pattern, topic in set(pairs):
                await check(pattern, topic)

        return Deferred.fromCoroutine(check_all())  # type: ignore[return-value]


class FailureTests(TestCase):
    """Redis goes, and comes back."""

    async def setUp(self) -> None:
        """Start a server of the test's own, and two nodes on it."""
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()
        prefix = new_prefix()
        self.redis = [await connect(self, self.server) for _ in range(2)]
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.here = Made(self.redis[:1], prefix, self.clock).start()
        self.there = Made(self.redis[1:], prefix).start()

    async def listen(self, topic: str = "a") -> None:
        """Have the first node hear a topic up to its newest."""
        await answered(self.here.broker.subscribe(topic))
        page = self.here.broker.history(topic, KEPT, since=None, limit=0, reverse=False)
        await answered(page)

    async def publish(self, *payloads: int, topic: str = "a") -> None:
        """Publish on the second node."""
        for payload in payloads:
            sent = publication(topic, b"%d" % payload)
            await accepted(self.there.broker.publish(sent, KEPT, None))

    def change(self, redis: Redis, up: bool) -> Deferred[None]:
        """Fire when a server has come or gone."""
        changed: Deferred[None] = Deferred()
        (redis.when_up if up else redis.when_down)(
            lambda: None if changed.called else changed.callback(None)
        )
        return changed

    def payloads(self) -> list[int]:
        return [int(each.payload) for each in self.here.delivered]

    async def lose_link(self) -> Deferred[None]:
        """Cut the first node's subscriptions; answer what fires when they stand again."""
        up, down = self.change(self.redis[0], True), self.change(self.redis[0], False)
        await self.redis[1].command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "no")
        await down
        return up

    async def test_refused_while_away(self) -> None:
        """Without Redis everything is refused, and nothing later comes of it."""
        await self.listen()
        down = [self.change(redis, False) for redis in self.redis]
        self.server.kill()
        for each in down:
            await each
        broker = self.here.broker
        self.failureResultOf(broker.publish(publication(), KEPT, None), Unavailable)
        self.failureResultOf(broker.publish(publication(), Namespace(">"), None), Unavailable)
        with self.assertRaises(Unavailable):
            await answered(broker.subscribe("b"))
        self.failureResultOf(broker.remove_history("a"), Unavailable)
        self.failureResultOf(
            broker.history("a", KEPT, since=None, limit=0, reverse=False), Unavailable
        )
        broker.announce("a", b"nobody hears this")
        broker.unsubscribe("b")
        up = [self.change(redis, True) for redis in self.redis]
        self.server.start()
        for each in up:
            await each
        await self.publish(1)
        await self.here.have(1)
        self.assertEqual(self.payloads(), [1])
        self.assertEqual(self.here.counters.broker_failures, 2)
        self.assertEqual(self.here.lost, [])

    async def test_gap_after_lost_link(self) -> None:
        """What was published while the link was away is delivered when it stands, in order."""
        await self.listen()
        await self.publish(1, 2)
        await self.here.have(2)
        up = await self.lose_link()
        await self.publish(3, 4, 5)
        await up
        await self.publish(6)
        self.clock.advance(0)
        await self.here.have(6)
        self.assertEqual(self.payloads(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.here.lost, [])

    async def test_many_pages_of_gap(self) -> None:
        """However much is missing, it is delivered."""
        await self.listen()
        up = await self.lose_link()
        sent = b"1" * 60_000
        for _ in range(30):
            await accepted(self.there.broker.publish(publication("a", sent), KEPT, None))
        await up
        await self.publish(2)
        self.clock.advance(0)
        await self.here.have(31)
        self.assertEqual(offsets(self.here.delivered), list(range(1, 32)))

    async def test_patterns_are_told(self) -> None:
        """Who hears patterns is told that something may be missing."""
        await answered(self.here.broker.subscribe("a.*"))
        await (await self.lose_link())
        self.assertEqual(self.here.lost, ["a.*"])

    async def test_restart_keeps(self) -> None:
        """After a crash of Redis that lost nothing, nothing is lost or delivered twice."""
        await self.listen()
        await self.publish(1, 2)
        await self.here.have(2)
        up = [self.change(redis, True) for redis in self.redis]
        self.server.kill()
        self.server.start()
        for each in up:
            await each
        await self.publish(3)
        await self.here.have(3)
        self.assertEqual(self.payloads(), [1, 2, 3])
        self.assertEqual(offsets(self.here.delivered), [1, 2, 3])
        self.assertEqual(self.here.lost, [])

    async def test_restart_loses_all(self) -> None:
        """Where Redis comes back empty, subscribers are told, and go on in another epoch."""
        await self.listen()
        await self.publish(1, 2)
        await self.here.have(2)
        up = [self.change(redis, True) for redis in self.redis]
        self.server.kill()
        self.server.forget()
        self.server.start()
        for each in up:
            await each
        await self.publish(3)
        await self.here.have(3)
        await self.publish(4)
        await self.here.have(4)
        self.assertEqual(self.payloads(), [1, 2, 3, 4])
        self.assertEqual(offsets(self.here.delivered), [1, 2, 1, 2])
        self.assertEqual(self.here.lost, ["a"])

    async def test_restart_goes_back(self) -> None:
        """Where Redis has lost the last of what it acknowledged, another epoch begins."""
        await self.listen()
        await self.publish(1, 2, 3)
        await self.here.have(3)
        epoch = self.here.delivered[0].position.epoch  # type: ignore[union-attr]
        up = await self.lose_link()
        prefix = self.here.prefix
        await self.redis[1].command("HSET", f"{prefix}topic:a", "top", 1)
        await self.redis[1].command("XTRIM", f"{prefix}stream:a", "MAXLEN", 1)
        await up
        while not self.here.lost:
            await self.redis[0].command("PING")
            self.clock.advance(0)
        self.assertEqual(self.here.lost, ["a"])
        await self.publish(4)
        await self.here.have(4)
        self.assertEqual(self.payloads(), [1, 2, 3, 4])
        position = self.here.delivered[-1].position
        assert position is not None
        self.assertEqual(position.offset, 1)
        self.assertNotEqual(position.epoch, epoch)

    async def test_trimmed(self) -> None:
        """Where the history no longer has what is missing, subscribers are told."""
        self.here.namespace = Namespace(">", history_size=3)
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        up = await self.lose_link()
        for payload in (2, 3, 4, 5, 6):
            sent = publication("a", b"%d" % payload)
            await accepted(self.there.broker.publish(sent, self.here.namespace, None))
        await up
        while not self.here.lost:
            await self.redis[0].command("PING")
            self.clock.advance(0)
        await self.publish(7)
        await self.here.have(2)
        self.assertEqual(self.payloads(), [1, 7])
        self.assertEqual(self.here.lost, ["a"])

    async def test_silent_loss(self) -> None:
        """A publication that was lost without a link being lost is found and delivered."""
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        # Accepted, and not told: as the scripts do it, but for the PUBLISH.
        prefix = self.here.prefix
        sent = publication("a", b"2")
        await self.redis[1].command("RENAME", f"{prefix}topic:a", f"{prefix}topic:b")
        await self.redis[1].command("RENAME", f"{prefix}stream:a", f"{prefix}stream:b")
        sent = publication("b", b"2")
        await accepted(self.there.broker.publish(sent, KEPT, None))
        await self.redis[1].command("RENAME", f"{prefix}topic:b", f"{prefix}topic:a")
        await self.redis[1].command("RENAME", f"{prefix}stream:b", f"{prefix}stream:a")
        self.clock.advance(CHECK_SECONDS)
        self.here.broker.advance(self.clock.seconds())
        while len(self.here.delivered) < 2:
            await self.redis[0].command("PING")
            self.clock.advance(ON_ITS_WAY_SECONDS)
        self.assertEqual(self.payloads(), [1, 2])
        self.assertEqual(self.here.counters.broker_repairs, 1)
        self.assertEqual(self.here.lost, [])

    async def test_gap_seen_by_the_next(self) -> None:
        """A publication that shows that others are missing waits for them."""
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        prefix = self.here.prefix
        for old, new in (("a", "b"), ("b", "a")):
            await self.redis[1].command("RENAME", f"{prefix}topic:{old}", f"{prefix}topic:{new}")
            await self.redis[1].command("RENAME", f"{prefix}stream:{old}", f"{prefix}stream:{new}")
            if new == "b":
                await self.publish(2, 3, topic="b")
        await self.publish(4, 5)
        await self.here.have(5)
        self.assertEqual(self.payloads(), [1, 2, 3, 4, 5])

    async def test_refused_by_redis(self) -> None:
        """What Redis refuses is logged, and unavailable to clients."""
        await self.redis[0].command("REPLICAOF", "127.0.0.1", 1)
        with self.assertRaises(Unavailable):
            await self.here.broker.publish(publication(), KEPT, None)
        self.assertEqual(self.here.counters.broker_failures, 1)

    async def foreign(self, offset: int, topic: str = "a") -> None:
        """Have a foreign program claim a position on a topic's channel."""
        page = await answered(
            self.here.broker.history(topic, KEPT, since=None, limit=0, reverse=False)
        )
        message = b"%d %s %s" % (offset, page.position.epoch.encode(), encode_rest(publication()))
        channel = Keys(self.here.prefix).channel(topic)
        await self.redis[1].command("PUBLISH", channel, message)

    async def test_position_of_nobody(self) -> None:
        """What claims a position that the history has not is looked for once, and dropped."""
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        await self.foreign(50)
        while not self.here.lost:
            await self.redis[0].command("PING")
        await self.publish(2, 3)
        await self.here.have(3)
        self.assertEqual(self.payloads(), [1, 2, 3])
        self.assertEqual(self.here.counters.broker_repairs, 1)
        self.assertEqual(self.here.lost, ["a"])

    async def test_left_while_it_is_mended(self) -> None:
        """A topic that is left while what is missing is read is delivered no more."""
        await self.listen()
        await self.foreign(5)
        while not self.here.counters.broker_repairs:
            await self.redis[0].command("PING")
        self.here.broker.unsubscribe("a")
        await self.redis[0].command("PING")
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        self.assertEqual(self.payloads(), [1])
        self.assertEqual(self.here.lost, [])

    async def test_foreign_entry(self) -> None:
        """A history that a foreign program has written to goes on, in another epoch."""
        await self.listen()
        await self.publish(1)
        await self.here.have(1)
        await self.redis[1].command("XADD", f"{self.here.prefix}stream:a", "*", "foreign", "1")
        await self.publish(2, 3)
        await self.here.have(3)
        self.assertEqual(self.payloads(), [1, 2, 3])
        positions = [each.position for each in self.here.delivered if each.position]
        self.assertEqual([each.offset for each in positions], [1, 1, 2])
        self.assertEqual(len({each.epoch for each in positions}), 2)
        page = await answered(
            self.here.broker.history("a", KEPT, since=positions[1], limit=None, reverse=False)
        )
        self.assertEqual(offsets(page.publications), [2])

    async def test_key_while_redis_is_full(self) -> None:
        """A publication with a key that Redis cannot remember is not told either."""
        await self.listen()
        await self.redis[1].command("CONFIG", "SET", "maxmemory", 1)
        for _ in range(2):
            with self.assertRaises(Unavailable):
                sent = publication("a", b"1")
                await accepted(self.there.broker.publish(sent, Namespace(">"), "key"))
        await self.redis[1].command("CONFIG", "SET", "maxmemory", 0)
        for _ in range(2):
            sent = publication("a", b"2")
            await accepted(self.there.broker.publish(sent, Namespace(">"), "key"))
        await self.here.have(1)
        self.assertEqual(self.payloads(), [2])

    async def test_nonsense_on_a_channel(self) -> None:
        """What is no message is logged and dropped."""
        await self.listen()
        channel = Keys(self.here.prefix).channel("a")
        for nonsense in (b"", b"x", b"1 e \xff", b"x y z"):
            await self.redis[1].command("PUBLISH", channel, nonsense)
        await self.publish(1)
        await self.here.have(1)
        self.assertEqual(self.payloads(), [1])
