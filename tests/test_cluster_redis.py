"""Nodes that know of each other, on a real Redis."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from realtime.cluster_redis import ANSWER_SECONDS, BEAT_SECONDS, NODE_TTL, RedisCluster
from realtime.errors import Unavailable
from realtime.metrics import Counters
from realtime.redis_keys import Keys
from realtime.redis_ring import Ring
from tests.support.redis import RedisServer, connect, new_prefix, shared_redis


class Node:
    """A node's end of the cluster."""

    def __init__(self, name: str, servers: list[Any], prefix: str, clock: Any) -> None:
        self.name = name
        self.servers = servers
        self.counters = Counters()
        self.got: list[tuple[str, bytes]] = []
        self.asked: list[tuple[str, list[Any]]] = []
        self.cluster = RedisCluster(Ring(servers), Keys(prefix), name, clock, self.counters)
        self.cluster.start(self.take, self.answer, lambda: {"node_id": name})

    def take(self, user: str, message: bytes) -> None:
        self.got.append((user, message))

    async def answer(self, question: str, args: list[Any]) -> Any:
        self.asked.append((question, args))
        if question == "fail":
            raise ValueError(question)
        if question == "never":
            await Deferred()
        return [self.name, *args]


class ClusterTestCase(TestCase):
    """Three nodes."""

    def servers(self) -> list[RedisServer]:
        """The servers that they share."""
        return [shared_redis()]

    async def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.prefix = new_prefix()
        self.nodes = [await self.make(f"node{number}") for number in range(3)]

    async def make(self, name: str) -> Node:
        """Make a node."""
        links = [await connect(self, server) for server in self.servers()]
        node = Node(name, links, self.prefix, self.clock)
        await node.cluster.open()
        return node

    async def settle(self) -> None:
        """Let all be told and heard."""
        for _ in range(3):
            self.clock.advance(0)
            for node in self.nodes:
                for redis in node.servers:
                    await redis.command("PING")
                    marker: Deferred[None] = Deferred()
                    name = new_prefix().encode()
                    await redis.subscribe(name, lambda *_, m=marker: m.callback(None))
                    await redis.command("PUBLISH", name, "")
                    await marker
                    redis.unsubscribe(name)

    async def send(self, node: int, target: str, key: str | None = None) -> int:
        """Send a direct message."""
        await self.settle()
        scope = None if key is None else (target, "sender", key)
        sent = await self.nodes[node].cluster.direct(target, b"hello", scope)
        await self.settle()
        return sent

    def got(self) -> list[int]:
        """How many messages each node got since the last asking."""
        numbers = [len(node.got) for node in self.nodes]
        for node in self.nodes:
            node.got.clear()
        return numbers

    def beat(self, *nodes: Node) -> None:
        """Give a sign of life."""
        for node in nodes:
            for _ in range(BEAT_SECONDS):
                node.cluster.beat()


class ClusterTests(ClusterTestCase):
    """`RedisCluster`."""

    async def test_direct(self) -> None:
        """A message reaches the nodes where the user is, once each, and counts connections."""
        self.nodes[0].cluster.changed("u1", "Anna", 2)
        self.nodes[1].cluster.changed("u1", "Anna", 1)
        self.assertEqual(await self.send(2, "u1"), 3)
        self.assertEqual(self.nodes[0].got, [("u1", b"hello")])
        self.assertEqual(self.got(), [1, 1, 0])
        self.nodes[0].cluster.changed("u1", "Anna", 0)
        self.assertEqual(await self.send(0, "u1"), 1)
        self.assertEqual(self.got(), [0, 1, 0])
        self.assertEqual(await self.send(0, "nobody"), 0)

    async def test_by_name(self) -> None:
        """Who is not known by an id is known by a name, as it counts as the same."""
        self.nodes[1].cluster.changed("u1", "Anna", 1)
        for name in ("Anna", "aNNA"):
            self.assertEqual(await self.send(0, name), 1)
            self.assertEqual(self.nodes[1].got, [("u1", b"hello")])
            self.got()
        self.nodes[1].cluster.changed("u1", "Anna", 0)
        self.assertEqual(await self.send(0, "Anna"), 0)

    async def test_key(self) -> None:
        """A key used again, on whichever node, sends nothing again, and answers the same."""
        self.nodes[0].cluster.changed("u1", "Anna", 2)
        for target in ("u1", "Anna"):
            self.assertEqual(await self.send(1, target, "k"), 2)
            self.got()
            for node in range(3):
                self.assertEqual(await self.send(node, target, "k"), 2)
            self.assertEqual(self.got(), [0, 0, 0])
            self.assertEqual(await self.send(1, target, "other"), 2)
        self.assertEqual(await self.send(1, "u2", "k"), 0)
        self.nodes[0].cluster.changed("u2", None, 1)
        self.assertEqual(await self.send(2, "u2", "k"), 0)

    async def test_questions(self) -> None:
        """A question is answered by all nodes, or by the one that is asked."""
        cluster = self.nodes[0].cluster
        answers = await cluster.ask("topics", "a", 1)
        self.assertEqual(sorted(answers), [[f"node{n}", "a", 1] for n in range(3)])
        self.assertEqual(await cluster.ask("end", "x", node="node2"), [["node2", "x"]])
        self.assertEqual(await cluster.ask("end", "x", node="gone"), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_no_answer(self) -> None:
        """Who does not answer in time is left out; who fails says so in its log."""
        for question in ("never", "fail"):
            asked = Deferred.fromCoroutine(self.nodes[0].cluster.ask(question))
            await self.settle()
            self.assertNoResult(asked)
            self.clock.advance(ANSWER_SECONDS)
            self.assertEqual(await asked, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    async def test_nodes(self) -> None:
        """Nodes say what they are; who stops in good order is gone at once."""
        self.beat(*self.nodes)
        await self.settle()
        nodes = await self.nodes[0].cluster.nodes()
        self.assertEqual(sorted(node["node_id"] for node in nodes), ["node0", "node1", "node2"])
        self.nodes[1].cluster.changed("u1", None, 1)
        await self.settle()
        await self.nodes[1].cluster.stop()
        nodes = await self.nodes[0].cluster.nodes()
        self.assertEqual(sorted(node["node_id"] for node in nodes), ["node0", "node2"])
        self.assertEqual(await self.send(0, "u1"), 0)

    async def test_nonsense_about_nodes(self) -> None:
        """What says nothing of a node is left out."""
        redis = self.nodes[0].servers[0]
        for name, about in (("node1", b"\xc1"), ("node2", b"\x01")):
            await redis.command("SET", f"{self.prefix}about:{name}", about)
        self.assertEqual(await self.nodes[0].cluster.nodes(), [{"node_id": "node0"}])

    async def test_lag(self) -> None:
        """A node's own beat comes back, and tells how long it took."""
        self.beat(self.nodes[0])
        self.clock.advance(0.25)
        await self.settle()
        self.assertAlmostEqual(self.nodes[0].counters.broker_lag_seconds, 0.25)

    async def test_dead_node(self) -> None:
        """What a node has told goes by itself; a node that lives tells it again."""
        self.nodes[0].cluster.changed("u1", "Anna", 1)
        self.nodes[1].cluster.changed("u1", "Anna", 1)
        await self.settle()
        key = f"{self.prefix}users:node0"
        for redis in self.nodes[2].servers:
            if await redis.command("EXISTS", key):
                self.assertLessEqual(await redis.command("TTL", key), NODE_TTL)
                self.assertGreater(await redis.command("TTL", key), 0)
            await redis.command("DEL", key)
            seen = await redis.command("TIME")
            long_ago = int(seen[0]) - NODE_TTL - 1
            await redis.command("ZADD", f"{self.prefix}nodes", long_ago, "node0")
        self.beat(self.nodes[1])
        await self.settle()
        self.assertEqual(await self.send(2, "u1"), 1)
        self.assertEqual(len(await self.nodes[2].cluster.nodes()), 2)
        self.got()
        self.beat(self.nodes[0])
        await self.settle()
        self.assertEqual(await self.send(2, "Anna"), 2)
        self.assertEqual(self.got(), [1, 1, 0])

    async def test_killed_node(self) -> None:
        """Connections of a node that has died without a word do not count from then on."""
        for node in self.nodes[:2]:
            node.cluster.changed("u1", "Anna", 1)
        self.assertEqual(await self.send(2, "u1"), 2)
        for redis in self.nodes.pop(0).servers:
            await redis.stop()
        self.assertEqual(await self.send(1, "u1"), 1)
        self.assertEqual(await self.send(1, "Anna", "key"), 1)
        self.assertEqual(await self.send(1, "Anna", "key"), 1)
        self.assertEqual(self.got(), [3, 0])

    async def test_nonsense(self) -> None:
        """What is no message is logged and dropped."""
        for message in (b"", b"\xc1", b"\x93\x01\x02\x03", b"\x91\x00", b"\x91\x03"):
            await self.nodes[1].servers[0].command("PUBLISH", f"{self.prefix}node:node0", message)
        await self.settle()
        self.nodes[0].cluster.changed("u1", None, 1)
        self.assertEqual(await self.send(1, "u1"), 1)

    async def test_many_users(self) -> None:
        """However many users come at once, all are known, and in the end none is left."""
        node = self.nodes[0].cluster
        for number in range(1500):
            node.changed(f"u{number}", f"name {number}", 1)
        await self.settle()
        self.assertEqual(await self.send(1, "u1499"), 1)
        for number in range(1500):
            node.changed(f"u{number}", f"name {number}", 0)
        await self.settle()
        for each in self.nodes[0].servers:
            self.assertEqual(await each.command("EXISTS", f"{self.prefix}users:node0"), 0)


class OldestRedisTests(ClusterTests):
    """On the oldest Redis that is supported."""

    def servers(self) -> list[RedisServer]:
        """One of that version."""
        return [shared_redis(oldest=True)]


class ShardedTests(ClusterTests):
    """On several servers."""

    def servers(self) -> list[RedisServer]:
        """Two."""
        return [shared_redis(number) for number in range(2)]


class LossTests(ClusterTestCase):
    """Redis goes, and comes back."""

    def servers(self) -> list[RedisServer]:
        """One of the test's own."""
        return [self.server]

    async def setUp(self) -> None:
        """Start it."""
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()
        await super().setUp()

    async def test_back_with_nothing(self) -> None:
        """All is told again to a Redis that has forgotten it."""
        self.nodes[0].cluster.changed("u1", "Anna", 1)
        await self.restart(forget=True)
        self.assertEqual(await self.send(1, "u1"), 1)
        self.assertEqual(await self.send(1, "bob"), 1)

    async def test_back_with_the_old(self) -> None:
        """Who has come and gone meanwhile is told to a Redis that knows as many others."""
        self.nodes[0].cluster.changed("u3", "Carl", 1)
        await self.restart(forget=False)
        self.assertEqual(await self.send(1, "u3"), 0)
        self.assertEqual(await self.send(1, "bob"), 1)

    async def test_told_while_redis_is_full(self) -> None:
        """What a full Redis has refused to know is told again when it is not."""
        node = self.nodes[0]
        await node.servers[0].command("CONFIG", "SET", "maxmemory", 1)
        node.cluster.changed("u1", "Anna", 1)
        self.beat(node)
        await self.settle()
        self.assertTrue(node.cluster.refused)
        node.cluster.changed("u3", "Carl", 0)
        await node.servers[0].command("CONFIG", "SET", "maxmemory", 0)
        self.beat(node)
        await self.settle()
        self.assertFalse(node.cluster.refused)
        self.assertEqual(await self.send(1, "u1"), 1)

    async def test_no_right_to_publish(self) -> None:
        """A Redis that lets a node publish nothing refuses it."""
        self.server.tell("ACL", "SETUSER", "default", "-publish")
        self.beat(self.nodes[0])
        await self.settle_commands()
        self.assertTrue(self.nodes[0].cluster.refused)

    async def settle_commands(self) -> None:
        """Let all be answered."""
        for node in self.nodes:
            await node.servers[0].command("PING")

    async def test_key_while_redis_is_full(self) -> None:
        """A message whose key Redis cannot remember is not sent."""
        self.nodes[0].cluster.changed("u1", "Anna", 1)
        await self.settle()
        await self.nodes[2].servers[0].command("CONFIG", "SET", "maxmemory", 1)
        with self.assertRaises(Unavailable):
            await self.send(1, "u1", "key")
        await self.nodes[2].servers[0].command("CONFIG", "SET", "maxmemory", 0)
        self.assertEqual(self.got(), [0, 0, 0])
        self.assertEqual(await self.send(1, "u1", "key"), 1)
        self.assertEqual(self.got(), [1, 0, 0])

    async def restart(self, *, forget: bool) -> None:
        """Kill Redis, have Bob come and Carl go, and start it again."""
        await self.settle()
        every = [node.servers[0] for node in self.nodes]
        up: list[Deferred[None]] = []
        for redis in every:
            back: Deferred[None] = Deferred()
            redis.when_up(lambda back=back: None if back.called else back.callback(None))
            up.append(back)
        gone: Deferred[None] = Deferred()
        every[1].when_down(lambda: None if gone.called else gone.callback(None))
        self.server.kill()
        await gone
        with self.assertRaises(Unavailable):
            await self.nodes[1].cluster.direct("u1", b"x", None)
        with self.assertRaises(Unavailable):
            await self.nodes[1].cluster.ask("topics")
        self.assertEqual(await self.nodes[1].cluster.nodes(), [{"node_id": "node1"}])
        self.nodes[0].cluster.changed("u2", "Bob", 1)
        self.nodes[0].cluster.changed("u3", "Carl", 0)
        self.clock.advance(0)
        if forget:
            self.server.forget()
        self.server.start()
        await gatherResults(up)
