"""Sessions on a real Redis: several nodes, some of which share a state directory."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from realtime.accounts import Accounts
from realtime.auth import Auth
from realtime.errors import InvalidCredentials, InvalidToken, Unavailable
from realtime.login_limits_redis import RedisLoginLimits
from realtime.redis_client import Redis
from realtime.redis_keys import Keys
from realtime.session_scripts import REVOKE
from realtime.sessions_redis import KEEP_SECONDS, PAGE, SYNC_SECONDS, RedisSessions
from realtime.sessions_sqlite import POLL_SECONDS, Sessions
from tests.support.identity import (
    PASSWORD,
    START,
    make_clock,
    make_state_dir,
    make_tokens,
    make_workers,
    open_database,
    quick_hasher,
)
from tests.support.redis import RedisServer, connect, new_prefix, oldest_redis, shared_redis
from tests.support.server import environment
from tests.support.sessions import NODES, SessionsContract, identity
from tests.test_redis_client import told as next_time

MONTH = 30 * 86400


class RedisNode:
    """A node's connection to Redis, its database and its sessions."""

    def __init__(self, redis: Redis, keys: Keys, clock: Clock, database: Any) -> None:
        self.redis = redis
        self.database = database
        self.local = Sessions(database, clock, session_ttl=MONTH)
        self.sessions = RedisSessions(redis, keys, clock, session_ttl=MONTH, local=self.local)
        self.told: list[tuple[str, str]] = []
        self._waiting: dict[tuple[str, str], Deferred[None]] = {}
        self._marker = keys.key("marker")
        self._marked: Deferred[None] | None = None

    async def start(self) -> None:
        """Start the sessions, and hear markers."""
        await self.redis.subscribe(self._marker, self._mark)
        await self.sessions.start(self._tell)

    def _tell(self, kind: str, id: str) -> None:
        self.told.append((kind, id))
        if (kind, id) in self._waiting:
            self._waiting.pop((kind, id)).callback(None)

    def is_told(self, kind: str, id: str) -> Deferred[None]:
        """Fire when the listener is told of something."""
        waiting: Deferred[None] = Deferred()
        self._waiting[kind, id] = waiting
        return waiting

    def marked(self) -> Deferred[None]:
        """Fire at the next marker."""
        self._marked = Deferred()
        return self._marked

    def _mark(self, channel: bytes, message: bytes) -> None:
        marked, self._marked = self._marked, None
        if marked is not None:
            marked.callback(None)

    def mark(self) -> Deferred[Any]:
        """Have all nodes hear a marker, after all that was said before."""
        return self.redis.command("PUBLISH", self._marker, "")


class Case(TestCase):
    """Three nodes: two that share a state directory, and one with a copy of it."""

    def server(self) -> RedisServer:
        """The Redis to use."""
        return shared_redis()

    async def setUp(self) -> None:
        self.redis_server = self.server()
        self.clock = make_clock()
        self.prefix = new_prefix()
        self.keys = Keys(self.prefix)
        first = os.path.join(make_state_dir(self), "realtime.sqlite3")
        copy = os.path.join(make_state_dir(self), "realtime.sqlite3")
        # Another process on the first file, as the command line is.
        self.accounts = Accounts(
            await open_database(self, first),
            quick_hasher(),
            make_workers(self),
            self.clock.seconds,
        )
        self.user_id = (await self.accounts.create("alice", PASSWORD)).user_id
        with closing(sqlite3.connect(first)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        self.all = [await self.start_node(path) for path in (first, first, copy)]
        self.nodes = [node.sessions for node in self.all]
        self.told = [node.told for node in self.all]
        self.path = first

    async def start_node(self, path: str | None) -> RedisNode:
        """Start a node on a database; stopped after the test."""
        database = await open_database(self, path)
        redis = await connect(self, self.redis_server)
        node = RedisNode(redis, self.keys, self.clock, database)
        self.addCleanup(lambda: Deferred.fromCoroutine(node.sessions.stop()))
        await node.start()
        return node

    async def poll(self) -> None:
        """Let the time for a poll come, and wait until what it found is told to Redis."""
        self.clock.advance(POLL_SECONDS)
        for node in self.all * 2:
            await node.database.read(lambda c: None)

    async def tick(self) -> None:
        """As `poll`, and wait until all nodes have heard what was told."""
        await self.poll()
        for node in self.all:
            heard = gatherResults([each.marked() for each in self.all])
            await node.mark()
            await heard

    async def remove_user(self) -> None:
        """See `SessionsContract`."""
        await self.accounts.remove(self.user_id)

    async def change_password(self) -> None:
        """See `SessionsContract`."""
        await self.accounts.set_password(self.user_id, "battery staple")

    async def ask(self, *args: Any) -> Any:
        """Ask Redis."""
        return await self.all[0].redis.command(*args)

    async def lifetimes(self) -> dict[str, int]:
        """The keys there are, and how many milliseconds they have left."""
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, keys = await self.ask("SCAN", cursor, "MATCH", f"{self.prefix}*")
            found.update(keys)
            if cursor == b"0":
                break
        skip = len(self.prefix)
        return {key.decode()[skip:]: await self.ask("PTTL", key) for key in found}


class RedisSessionsTests(Case, SessionsContract):
    """The contract, and what is particular to Redis."""

    async def test_at_once(self) -> None:
        """A session that ends on one node ends on the others without waiting for anything."""
        session_id = await self.begin()
        told = [node.is_told("session", session_id) for node in self.all]
        await self.nodes[1].end(session_id)
        self.assertTrue(self.refuses(session_id, node=1))
        await gatherResults(told)
        self.assertEqual(self.all_refuse(session_id), [True] * NODES)

    async def test_login_during_change_elsewhere(self) -> None:
        """A login that saw the former password begins nowhere, even with other accounts."""
        since = self.clock.seconds()
        self.clock.advance(1)
        await self.change_password()
        await self.tick()
        with self.assertRaises(InvalidCredentials):
            await self.begin(node=2, since=since)

    async def test_new_session_after_revocation(self) -> None:
        """A session begun after a revocation is not hit by it when that becomes known."""
        await self.change_password()
        self.clock.advance(0.5)
        session_id = await self.begin()
        self.assertIn(("user", self.user_id), self.told[0])
        told = list(self.told[0])
        await self.tick()
        self.assertEqual(self.told[0], told)
        self.assertEqual(self.all_refuse(session_id, START + 0.5), [False] * NODES)
        self.assertIsNotNone(await self.nodes[2].get(session_id))

    async def test_disable_and_enable(self) -> None:
        """A disabled user is refused on all nodes until enabled, whenever tokens were issued."""
        session_id = await self.begin()
        await self.accounts.set_disabled(self.user_id, True)
        await self.tick()
        later = self.clock.seconds() + 99
        self.assertEqual(self.all_refuse(None, later), [True] * NODES)
        for node in range(NODES):
            with self.assertRaises(InvalidCredentials):
                await self.begin(node=node)
        await self.accounts.set_disabled(self.user_id, False)
        await self.tick()
        now = self.clock.seconds()
        self.assertEqual(self.all_refuse(None, now - POLL_SECONDS), [True] * NODES)
        self.assertEqual(self.all_refuse(None, now), [False] * NODES)
        self.assertIsNone(await self.sessions.get(session_id))
        await self.begin(node=2)

    async def test_late_news(self) -> None:
        """What a node tells late of a user does not undo what came after it."""
        names = [self.keys.key(*name) for name in (("revocations",), ("revocations", "expiry"))]
        keys = [*names, self.keys.key("revoked")]
        prefixes = [self.keys.key(sort) + b":" for sort in ("session", "sessions")]
        disabled = ["user", "u", "inf", repr(START + 99), repr(START)]
        enabled = ["user", "u", repr(START + 1), repr(START + 99), repr(START + 1)]
        for row in (disabled, enabled, disabled):
            await self.all[0].redis.run(REVOKE, keys, [repr(START), *prefixes, *row])
        row = await self.ask("HGET", names[0], "user:u")
        self.assertEqual(row.decode().split(), enabled[2:])

    async def test_restart(self) -> None:
        """A node that starts knows what was revoked before, and tells nobody of it."""
        kept, ended = await self.begin(), await self.begin()
        await self.sessions.end(ended)
        self.clock.advance(1)
        await self.accounts.set_disabled(self.user_id, True)
        await self.tick()
        node = await self.start_node(None)
        for session_id in (kept, ended, None):
            self.assertTrue(node.sessions.is_revoked(identity(self.user_id, session_id), START))
        self.assertEqual(node.told, [])

    async def test_revoked_before_start(self) -> None:
        """What the command line did while its node was down is told when it starts."""
        for node in self.all[:2]:
            await node.sessions.stop()
        session_id = await self.begin(node=2)
        told = self.all[2].is_told("user", self.user_id)
        await self.remove_user()
        await self.start_node(self.path)
        await told
        self.assertTrue(self.refuses(session_id, self.clock.seconds() + 99, node=2))
        self.assertIsNone(await self.nodes[2].get(session_id))

    async def test_unknown_user(self) -> None:
        """No session begins of a user whom the node's accounts do not know."""
        with self.assertRaises(InvalidCredentials):
            await self.sessions.create("user_x", refresh_id="r1", access_until=START + 99)

    async def test_begun_before_told(self) -> None:
        """A session begun after a change that its node has not heard of yet goes on."""
        await self.change_password()
        self.clock.advance(1)
        session_id = await self.begin(node=2)
        await self.tick()
        self.assertEqual(self.all_refuse(session_id, START), [True] * NODES)
        self.assertEqual(self.all_refuse(session_id, START + 1), [False] * NODES)
        self.assertIsNotNone(await self.nodes[0].get(session_id))

    async def test_rotated_session_stays_the_users(self) -> None:
        """A session that rotation keeps beyond its first end ends with its user."""
        session_id = await self.begin("r1")
        for refresh_id in ("r1", "r2"):
            self.clock.advance(20 * 86400)
            await self.renew(session_id, refresh_id, next_refresh_id=f"r{int(refresh_id[1]) + 1}")
        await self.begin()
        await self.change_password()
        await self.tick()
        self.assertEqual(self.all_refuse(session_id, self.clock.seconds()), [True] * NODES)

    async def test_command_line(self) -> None:
        """What the command line does to a user reaches nodes that have other accounts."""
        session_id = await self.begin(node=2)
        told = [node.is_told("user", self.user_id) for node in self.all]
        state = os.path.dirname(self.path)
        command = ("-m", "realtime", "--state", state, "user", "remove", "alice")
        _, problems, status = await getProcessOutputAndValue(sys.executable, command, environment())
        self.assertEqual((problems, status), (b"", 0))
        self.clock.advance(POLL_SECONDS)
        await gatherResults(told)
        self.assertEqual(self.all_refuse(session_id, self.clock.seconds()), [True] * NODES)
        self.assertIsNone(await self.nodes[2].get(session_id))

    async def test_unheard(self) -> None:
        """What no channel has told is found after some minutes."""
        keys = (self.keys.key("revocations"), self.keys.key("revocations", "expiry"), "elsewhere")
        prefixes = [self.keys.key(sort) + b":" for sort in ("session", "sessions")]
        row = ["session", "ext", "0", repr(START + 9999), "0"]
        await self.all[0].redis.run(REVOKE, keys, [repr(START), *prefixes, *row])
        await self.tick()
        self.assertEqual(self.all_refuse("ext"), [False] * NODES)
        told = [node.is_told("session", "ext") for node in self.all]
        self.clock.advance(SYNC_SECONDS)
        await gatherResults(told)

    async def test_many_revocations(self) -> None:
        """Revocations are read page by page."""
        many = [f"ext-{number}" for number in range(2 * PAGE + 1)]
        until = START + 99
        await gatherResults(
            [Deferred.fromCoroutine(self.sessions.end(each, access_until=until)) for each in many]
        )
        node = await self.start_node(None)
        self.assertEqual(len(node.sessions.revocations), len(many))

    async def test_lifetimes(self) -> None:
        """Nothing is in Redis for good, or for longer than it is of use."""
        session_id = await self.begin("r1")
        for left in (await self.lifetimes()).values():
            self.assertTrue(0 < left <= MONTH * 1000)
        await self.renew(session_id, "r1", next_refresh_id="r2")
        self.assertEqual(
            set(await self.lifetimes()), {f"session:{session_id}", f"sessions:{self.user_id}"}
        )
        for left in (await self.lifetimes()).values():
            self.assertTrue(0 < left <= MONTH * 1000)
        await self.sessions.end(session_id)
        found = await self.lifetimes()
        self.assertEqual(set(found), {"revocations", "revocations:expiry"})
        for left in found.values():
            self.assertTrue(0 < left <= 3700 * 1000)
        await self.begin()
        await self.sessions.end("ext", access_until=START * 1000)
        await self.accounts.set_disabled(self.user_id, True)
        await self.tick()
        found = await self.lifetimes()
        self.assertEqual(set(found), {"revocations", "revocations:expiry"})
        for left in found.values():
            self.assertTrue(0 < left <= KEEP_SECONDS * 1000)

    async def test_expiry(self) -> None:
        """What has expired by the nodes' clock leaves Redis and the memory."""
        for _ in range(3):
            await self.sessions.end(await self.begin())
        self.assertEqual(len(self.sessions.revocations), 3)
        self.clock.advance(3700 + SYNC_SECONDS)
        await self.tick()
        self.assertEqual(len(self.sessions.revocations), 0)
        other = await self.begin()
        await self.sessions.end(other)
        self.assertEqual(
            await self.ask("HKEYS", self.keys.key("revocations")), [f"session:{other}".encode()]
        )
        self.assertEqual(await self.ask("ZCARD", self.keys.key("revocations", "expiry")), 1)
        index = self.keys.key("sessions", self.user_id)
        await self.begin()
        self.clock.advance(MONTH)
        last = await self.begin()
        self.assertEqual(await self.ask("ZRANGE", index, 0, -1), [last.encode()])

    async def test_listener_fails(self) -> None:
        """A listener that raises is logged, and the revocation holds."""

        def listener(kind: str, id: str) -> None:
            raise KeyError(id)

        self.all[0].sessions._listener = listener
        session_id = await self.begin()
        self.assertTrue(await self.sessions.end(session_id))
        self.assertTrue(self.refuses(session_id))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_stop(self) -> None:
        """Stopping leaves nothing scheduled, and may be repeated."""
        for node in self.nodes * 2:
            await node.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


@cache
def old_redis() -> RedisServer:
    """A server of the oldest version that is supported."""
    server = RedisServer(binary=oldest_redis())
    server.start()
    return server


class OldestRedisTests(RedisSessionsTests):
    """The same on the oldest Redis."""

    def server(self) -> RedisServer:
        return old_redis()


class LossTests(Case):
    """A Redis that goes and comes back."""

    begin = SessionsContract.begin
    renew = SessionsContract.renew
    refuses = SessionsContract.refuses
    all_refuse = SessionsContract.all_refuse

    def server(self) -> RedisServer:
        server = RedisServer()
        self.addCleanup(server.remove)
        server.start()
        return server

    async def down(self) -> None:
        """Kill Redis, and wait until all nodes know."""
        gone = [next_time(node.redis.when_down) for node in self.all]
        self.redis_server.kill()
        await gatherResults(gone)

    async def test_missed_while_not_subscribed(self) -> None:
        """What is revoked while a node hears nothing is applied when it hears again."""
        session_id = await self.begin()
        told = [node.is_told("session", session_id) for node in self.all]
        # In one turn, so that nobody is subscribed again between the two.
        killed = self.ask("CLIENT", "KILL", "TYPE", "pubsub")
        killed, ended = await gatherResults(
            [Deferred.fromCoroutine(each) for each in (killed, self.nodes[0].end(session_id))]
        )
        self.assertEqual((killed, ended), (NODES, True))
        await gatherResults(told)
        self.assertEqual(self.all_refuse(session_id), [True] * NODES)
        self.assertEqual(self.told, [[("session", session_id)]] * NODES)

    async def test_away(self) -> None:
        """Without Redis nothing begins, is renewed or ends, and what is known is refused."""
        kept, ended = await self.begin(), await self.begin()
        await self.nodes[0].end(ended)
        await self.tick()
        await self.down()
        node = self.nodes[0]
        for attempt in (
            lambda: self.begin(),
            lambda: self.renew(kept, "r1"),
            lambda: node.get(kept),
            lambda: node.end(kept),
            lambda: node.end("ext", access_until=START + 99),
        ):
            with self.assertRaises(Unavailable):
                await attempt()
        self.assertEqual(self.all_refuse(ended), [True] * NODES)
        self.assertEqual(self.all_refuse(kept), [False] * NODES)

    async def test_revoked_while_away(self) -> None:
        """What the command line does without Redis holds on its node, then on all."""
        session_id = await self.begin()
        await self.down()
        await self.remove_user()
        await self.poll()
        later = self.clock.seconds() + 99
        self.assertEqual(self.all_refuse(None, later), [True, True, False])
        told = [
            self.all[2].is_told(*each) for each in (("user", self.user_id), ("session", session_id))
        ]
        up = next_time(self.all[2].redis.when_up)
        self.redis_server.start()
        await gatherResults([*told, up])
        self.assertEqual(self.all_refuse(session_id, later), [True] * NODES)
        with self.assertRaises(InvalidToken):
            await self.renew(session_id, "r1", node=2)

    async def test_back(self) -> None:
        """Sessions and revocations outlive Redis' process, and all goes on as before."""
        kept, ended = await self.begin(), await self.begin()
        await self.nodes[0].end(ended)
        await self.down()
        up = [next_time(node.redis.when_up) for node in self.all]
        self.redis_server.start()
        await gatherResults(up)
        await self.renew(kept, "r1", node=1)
        told = [node.is_told("session", kept) for node in self.all]
        await self.nodes[2].end(kept)
        await gatherResults(told)
        node = await self.start_node(None)
        for session_id in (kept, ended):
            self.assertTrue(node.sessions.is_revoked(identity("u", session_id), START))

    async def test_forgetful(self) -> None:
        """A Redis that has lost everything is told again what must be refused."""
        ended = await self.begin()
        await self.nodes[0].end(ended)
        await self.change_password()
        await self.tick()
        await self.down()
        self.redis_server.forget()
        self.redis_server.start()
        redis = await connect(self, self.redis_server)
        # No sleep: asked over and over until the test's time is up.
        while await redis.command("HLEN", self.keys.key("revocations")) < 2:
            pass
        node = await self.start_node(None)
        self.assertTrue(node.sessions.is_revoked(identity("u", ended), START))
        self.assertTrue(node.sessions.is_revoked(identity(self.user_id, None), START))

    async def test_full(self) -> None:
        """While Redis refuses to write no session begins; revocations are told later."""
        await self.ask("CONFIG", "SET", "maxmemory", "1")
        with self.assertRaises(Unavailable):
            await self.begin()
        await self.remove_user()
        await self.tick()
        self.assertEqual(self.all_refuse(None), [True, True, False])
        told = self.all[2].is_told("user", self.user_id)
        await self.ask("CONFIG", "SET", "maxmemory", "0")
        self.clock.advance(POLL_SECONDS)
        await told

    async def test_nonsense(self) -> None:
        """What another program has written among what is revoked is left out."""
        await self.ask("HSET", self.keys.key("revocations"), "session:a", "nonsense")
        await self.ask("HSET", self.keys.key("revocations"), "nonsense", "0 x 0")
        await self.ask("PUBLISH", self.keys.key("revoked"), "nonsense")
        ended = await self.begin()
        await self.nodes[0].end(ended)
        node = await self.start_node(None)
        self.assertTrue(node.sessions.is_revoked(identity("u", ended), START))

    async def test_no_start_without(self) -> None:
        """Without Redis nothing starts."""
        await self.nodes[2].stop()
        await self.down()
        with self.assertRaises(Unavailable):
            await self.nodes[2].start(print)
        await self.nodes[2].stop()


class AuthTests(Case):
    """Authentication on Redis alone."""

    def auth(self, node: RedisNode) -> Auth:
        """Make a node's authentication."""
        workers = make_workers(self)
        return Auth(
            make_tokens(self.clock.seconds),
            Accounts(node.database, quick_hasher(), workers, self.clock.seconds),
            node.sessions,
            self.clock,
            print,
            login_limits=RedisLoginLimits(node.redis, self.keys, 1 / 60, 3),
            rotate_refresh_tokens=True,
        )

    async def test_over_nodes(self) -> None:
        """A login of one node is renewed by the next and ended by a third, and then refused."""
        first, second, third = (self.auth(node) for node in self.all)
        login = await first.login("alice", PASSWORD, "192.0.2.1")
        renewal = await second.refresh(login.refresh_token)
        told = [node.is_told("session", login.session_id) for node in self.all]
        await third.end_session(third.authenticate(renewal.access_token), login.session_id)
        await gatherResults(told)
        for auth in (first, second, third):
            for token in (login.access_token, renewal.access_token):
                self.assertRaises(InvalidToken, auth.authenticate, token)
        assert renewal.refresh_token is not None
        with self.assertRaises(InvalidToken):
            await first.refresh(renewal.refresh_token)
