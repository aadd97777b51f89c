"""Presence on a real Redis."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from realtime.errors import Unavailable
from realtime.interfaces import Deadline, IPresence
from realtime.model import Member
from realtime.presence_redis import BEAT_SECONDS, NODE_TTL, TOPICS_AT_ONCE, RedisPresence
from realtime.redis_client import Redis
from realtime.redis_keys import Keys, decode_message
from realtime.redis_ring import Ring
from realtime.wheel import TimerWheel
from tests.support.peers import START, identity_of
from tests.support.presence import GRACE, NOISY, PresenceContract, decoded
from tests.support.redis import RedisServer, connect, new_prefix, shared_redis

# What is done, on which node, by which of its connections.
ACTS = st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 5))


class RedisPresenceTestCase(TestCase):
    """Nodes on one clock, and one who hears what is announced."""

    def servers(self) -> list[RedisServer]:
        """The servers that the nodes share."""
        return [shared_redis()]

    async def set_up(self) -> None:
        """Begin with no node."""
        self.clock = Clock()
        self.clock.advance(START)
        self.wheel: TimerWheel[Deadline] = TimerWheel(int(START))
        self.prefix = new_prefix()
        self.keys = Keys(self.prefix)
        self.messages: list[tuple[str, bytes]] = []
        self.nodes: list[RedisPresence] = []
        self.links: list[list[Redis]] = []
        self.ears = [await connect(self, server) for server in self.servers()]
        for redis in self.ears:
            await redis.subscribe_pattern(self.prefix.encode() + b"t:*", self.hear)

    def hear(self, channel: bytes, message: bytes) -> None:
        """Note an announcement."""
        topic = self.keys.topic(channel)
        found = decode_message(topic, message)
        assert isinstance(found, bytes)
        self.messages.append((topic, found))

    async def add_node(self, grace: int = GRACE) -> RedisPresence:
        """Add a node with connections of its own."""
        links = [await connect(self, server) for server in self.servers()]
        presence = RedisPresence(
            Ring(links), self.keys, f"node{len(self.nodes)}", self.wheel, self.clock, grace=grace
        )
        presence.start(lambda topic, message: None)
        await presence.open()
        self.nodes.append(presence)
        self.links.append(links)
        return presence

    async def settle(self) -> None:
        """Let what has been noted be told, and what was told be heard."""
        self.clock.advance(0)
        for links in self.links:
            for redis in links:
                await redis.command("PING")
        for redis in self.ears:
            marker: Deferred[None] = Deferred()
            name = new_prefix().encode()
            await redis.subscribe(name, lambda *_, marker=marker: marker.callback(None))
            await redis.command("PUBLISH", name, "")
            await marker
            redis.unsubscribe(name)

    async def announced(self) -> list[dict[str, Any]]:
        """See `PresenceContract`."""
        await self.settle()
        messages, self.messages[:] = self.messages[:], []
        return decoded(messages)

    async def told(self) -> list[tuple[str, str]]:
        """Type and user of what has been announced."""
        return [(each["type"], each["data"]["user_id"]) for each in await self.announced()]

    async def pass_seconds(self, seconds: int) -> None:
        """See `PresenceContract`."""
        for _ in range(seconds):
            self.clock.advance(1)
            for item in self.wheel.advance(int(self.clock.seconds())):
                item.on_deadline(int(self.clock.seconds()))

    async def beat(self, *nodes: RedisPresence) -> None:
        """Let nodes give a sign of life, and do what comes of it."""
        for node in nodes:
            for _ in range(BEAT_SECONDS):
                node.beat()
        for _ in range(40):
            await self.settle()

    async def let_die(self, index: int) -> None:
        """Make Redis believe that a node has given no sign of life for long."""
        for redis in self.ears:
            seen = await redis.command("TIME")
            await redis.command(
                "ZADD", f"{self.prefix}presence-nodes", int(seen[0]) - NODE_TTL - 1, f"node{index}"
            )

    async def left(self) -> list[bytes]:
        """All keys that there are, but for those of nodes that live."""
        found: list[bytes] = []
        for redis in self.ears:
            found += await redis.command("KEYS", f"{self.prefix}*")
        nodes = (f"{self.prefix}presence-{each}".encode() for each in ("nodes", "clearing"))
        return sorted(set(found) - set(nodes))

    def come(self, node: int, connection: str, user: str, topic: str = "t") -> None:
        """A connection of a user subscribes on a node."""
        identity = identity_of(user, username=f"name of {user}")
        self.nodes[node].join(topic, NOISY, connection, identity)

    async def there(self, topic: str = "t") -> list[tuple[str, int]]:
        """Users and their connections; every node says the same."""
        await self.settle()
        pages = [await node.members(topic, limit=100, after=None) for node in self.nodes]
        self.assertEqual(len(set(pages)), 1)
        self.assertEqual(pages[0].users, len(pages[0].members))
        self.assertEqual(pages[0].connections, sum(m.connections for m in pages[0].members))
        return [(member.user_id, member.connections) for member in pages[0].members]


class ContractTests(RedisPresenceTestCase, PresenceContract):  # type: ignore[misc]
    """One node as presence."""

    async def make(self, grace: int = GRACE) -> IPresence:
        """See `PresenceContract`."""
        await self.set_up()
        return await self.add_node(grace)


class OldestRedisTests(ContractTests):
    """On the oldest Redis that is supported."""

    def servers(self) -> list[RedisServer]:
        """One of that version."""
        return [shared_redis(oldest=True)]


class SeveralNodesTests(RedisPresenceTestCase):
    """Several nodes."""

    async def setUp(self) -> None:
        """Make three."""
        await self.set_up()
        for _ in range(3):
            await self.add_node()

    async def test_counted_by_user(self) -> None:
        """A user with connections on several nodes is one, who comes once and goes once."""
        self.come(0, "a", "u1")
        self.come(1, "b", "u1")
        self.come(2, "c", "u2")
        self.assertEqual(await self.there(), [("u1", 2), ("u2", 1)])
        self.assertEqual(sorted(await self.told()), [("Join", "u1"), ("Join", "u2")])
        self.nodes[0].leave_all("a")
        await self.pass_seconds(GRACE)
        self.assertEqual(await self.there(), [("u1", 1), ("u2", 1)])
        self.assertEqual(await self.told(), [])
        self.nodes[1].leave_all("b")
        await self.pass_seconds(GRACE)
        self.assertEqual(await self.there(), [("u2", 1)])
        self.assertEqual(await self.told(), [("Leave", "u1")])

    async def test_all_at_once(self) -> None:
        """However many come and go at once, on all nodes, each is told of once."""
        for _ in range(3):
            for node in range(3):
                self.come(node, f"c{node}", "u1")
            self.assertEqual(await self.told(), [("Join", "u1")])
            for node in range(3):
                self.nodes[node].leave_all(f"c{node}")
            await self.pass_seconds(GRACE)
            self.assertEqual(await self.told(), [("Leave", "u1")])
        self.assertEqual(await self.left(), [])

    async def test_moving(self) -> None:
        """Who comes back on another node within the grace has not been away."""
        self.come(0, "a", "u1")
        await self.nodes[0].set_state("t", "u1", b"1")
        await self.announced()
        self.nodes[0].leave_all("a")
        await self.pass_seconds(GRACE - 1)
        self.come(1, "b", "u1")
        await self.settle()
        await self.pass_seconds(2 * GRACE)
        self.assertEqual(await self.told(), [])
        page = await self.nodes[2].members("t", limit=9, after=None)
        self.assertEqual(page.members, (Member("u1", "name of u1", 1, b"1"),))

    async def test_states_are_everywhere(self) -> None:
        """A state that is set on one node is read on all, and told once."""
        self.come(0, "a", "u1")
        self.come(1, "b", "u1")
        await self.announced()
        await self.nodes[1].set_state("t", "u1", b'"away"')
        self.assertEqual(await self.told(), [("Update", "u1")])
        for node in self.nodes:
            page = await node.members("t", limit=1, after=None)
            self.assertEqual([member.state for member in page.members], [b'"away"'])

    async def test_dead_node(self) -> None:
        """What a dead node leaves is taken away by one of the others, and told once."""
        for number in range(250):
            self.come(0, f"a{number}", f"u{number}", f"t{number % 3}")
        self.come(0, "b", "both", "t0")
        self.come(1, "c", "both", "t0")
        self.assertEqual(len(await self.there("t0")), 85)
        await self.announced()
        await self.let_die(0)
        await self.beat(*self.nodes[1:])
        left = await self.told()
        self.assertEqual(sorted(left), sorted(("Leave", f"u{number}") for number in range(250)))
        self.assertEqual(await self.there("t0"), [("both", 1)])
        self.assertEqual(await self.there("t1"), [])

    async def test_thought_dead(self) -> None:
        """A node that was only away tells all once more."""
        self.come(0, "a", "u1")
        self.come(1, "b", "u2")
        await self.announced()
        await self.let_die(0)
        await self.beat(self.nodes[1])
        self.assertEqual(await self.told(), [("Leave", "u1")])
        await self.beat(self.nodes[0])
        self.assertEqual(await self.told(), [("Join", "u1")])
        self.assertEqual(await self.there(), [("u1", 1), ("u2", 1)])

    async def test_stops_in_good_order(self) -> None:
        """A node that stops takes its own away at once; in the end nothing is left."""
        self.come(0, "a", "u1")
        self.come(0, "b", "u2")
        self.come(1, "c", "u2")
        await self.announced()
        await self.nodes[0].stop()
        self.assertEqual(await self.told(), [("Leave", "u1")])
        await self.nodes[1].stop()
        await self.nodes[2].stop()
        self.assertEqual(await self.told(), [("Leave", "u2")])
        self.assertEqual(await self.left(), [])
        self.assertEqual(len(self.wheel), 0)

    async def test_odd_names(self) -> None:
        """Users and topics may have any names."""
        for user in ("total", "tell", "1", "é b", "*"):
            self.come(0, f"c {user}", user, "a.é")
        self.assertEqual(len(await self.there("a.é")), 5)
        for user in ("total", "tell", "1", "é b", "*"):
            self.nodes[0].leave_all(f"c {user}")
        await self.pass_seconds(GRACE)
        self.assertEqual(await self.there("a.é"), [])
        self.assertEqual(await self.left(), [])

    def test_any_order(self) -> None:
        """Whatever comes in whatever order: who is there is right, and told of in turn."""
        return Deferred.fromCoroutine(self.play_many())  # type: ignore[return-value]

    async def play_many(self) -> None:
        """Let Hypothesis choose the acts, which are played afterwards."""
        plays: list[list[tuple[int, int, int]]] = []

        @settings(max_examples=25)
        @given(st.lists(ACTS, max_size=25))
        def choose(play: list[tuple[int, int, int]]) -> None:
            plays.append(play)

        choose()
        for number, play in enumerate(plays):
            await self.play(f"play{number}", play)

    async def play(self, topic: str, acts: list[tuple[int, int, int]]) -> None:
        """Play; a connection is a node's and a user's."""
        here: set[tuple[int, int]] = set()
        for act, node, connection in acts:
            user = f"u{connection % 3}"
            name = f"{topic} {node} {connection}"
            if act <= 1:
                here.add((node, connection))
                self.come(node, name, user, topic)
            elif act <= 3:
                here.discard((node, connection))
                self.nodes[node].leave_all(name)
            else:
                await self.settle()
        await self.pass_seconds(GRACE)
        expected: dict[str, int] = {}
        for _, connection in here:
            user = f"u{connection % 3}"
            expected[user] = expected.get(user, 0) + 1
        self.assertEqual(await self.there(topic), sorted(expected.items()))
        told: dict[str, list[str]] = {}
        for each in await self.announced():
            told.setdefault(each["data"]["user_id"], []).append(each["type"])
        for user, kinds in told.items():
            self.assertEqual(kinds, (["Join", "Leave"] * len(kinds))[: len(kinds)])
            self.assertEqual(kinds[-1] == "Join", user in expected)
        for node, connection in here:
            self.nodes[node].leave_all(f"{topic} {node} {connection}")
        await self.pass_seconds(GRACE)
        self.assertEqual(await self.there(topic), [])
        await self.announced()


class ShardedTests(SeveralNodesTests):
    """On three servers, among which topics are shared out."""

    def servers(self) -> list[RedisServer]:
        """Three."""
        return [shared_redis(number) for number in range(3)]


class LossTests(RedisPresenceTestCase):
    """Redis goes, and comes back."""

    async def setUp(self) -> None:
        """Make two nodes on a server of the test's own."""
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()
        await self.set_up()
        for _ in range(2):
            await self.add_node()

    def servers(self) -> list[RedisServer]:
        """It."""
        return [self.server]

    async def restart(self, *, forget: bool) -> None:
        """Kill Redis, let something happen meanwhile, start it again."""
        every = [*self.ears, *(redis for links in self.links for redis in links)]
        down = [self.change(redis, False) for redis in every]
        self.server.kill()
        for each in down:
            await each
        self.come(0, "b", "u2")
        self.nodes[0].leave_all("a")
        await self.pass_seconds(GRACE)
        with self.assertRaises(Unavailable):
            await self.nodes[0].members("t", limit=1, after=None)
        with self.assertRaises(Unavailable):
            await self.nodes[0].set_state("t", "u2", b"1")
        up = [self.change(redis, True) for redis in every]
        if forget:
            self.server.forget()
        self.server.start()
        for each in up:
            await each
        for _ in range(10):
            await self.settle()

    def change(self, redis: Redis, up: bool) -> Deferred[None]:
        """Fire when a server has come or gone."""
        changed: Deferred[None] = Deferred()
        (redis.when_up if up else redis.when_down)(
            lambda: None if changed.called else changed.callback(None)
        )
        return changed

    async def evaluated(self) -> int:
        """How many scripts Redis was asked to run."""
        (stats,) = [
            line
            for line in (await self.ears[0].command("INFO", "commandstats")).splitlines()
            if line.startswith(b"cmdstat_evalsha:")
        ]
        return int(stats.split(b"=")[1].split(b",")[0])

    async def test_full(self) -> None:
        """What a full Redis refuses is told again with the next sign of life, and not before."""
        await self.ears[0].command("CONFIG", "SET", "maxmemory", 1)
        for number in range(3 * TOPICS_AT_ONCE):
            self.come(0, "a", "u1", f"t{number}")
        await self.beat(self.nodes[1])
        before = await self.evaluated()
        for _ in range(10):
            await self.settle()
        self.assertEqual(await self.evaluated(), before)
        await self.ears[0].command("CONFIG", "SET", "maxmemory", 0)
        await self.beat(*self.nodes)
        self.assertEqual(await self.there("t0"), [("u1", 1)])
        self.assertEqual(await self.there(f"t{TOPICS_AT_ONCE * 3 - 1}"), [("u1", 1)])

    async def test_shared_out_otherwise(self) -> None:
        """What a dead node has left is found though topics are shared out among more servers."""
        other = RedisServer()
        self.addCleanup(other.remove)
        other.start()
        links = [await connect(self, self.server), await connect(self, other)]
        for number in range(20):
            self.come(0, "a", "u1", f"t{number}")
        await self.announced()
        await self.let_die(0)
        late = RedisPresence(Ring(links), self.keys, "late", self.wheel, self.clock, grace=GRACE)
        self.links.append(links)
        await late.open()
        await self.beat(late)
        self.assertEqual(len(await self.told()), 20)

    async def test_back(self) -> None:
        """What has happened meanwhile is told when Redis is back."""
        self.come(0, "a", "u1")
        self.come(1, "c", "u3")
        await self.announced()
        await self.restart(forget=False)
        self.assertEqual(await self.there(), [("u2", 1), ("u3", 1)])
        self.assertEqual(sorted(await self.told()), [("Join", "u2"), ("Leave", "u1")])

    async def test_back_with_nothing(self) -> None:
        """Where Redis has forgotten all, it is told anew."""
        self.come(0, "a", "u1")
        self.come(1, "c", "u3")
        await self.announced()
        await self.restart(forget=True)
        self.assertEqual(await self.there(), [("u2", 1), ("u3", 1)])
