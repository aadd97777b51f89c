"""Connections to a real Redis."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import LogEvent, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from realtime.errors import Unavailable
from realtime.redis_client import Redis, RedisRefused
from realtime.redis_scripts import Script
from realtime.redis_url import read_redis_url
from tests.support.redis import RedisServer, connect, new_prefix, oldest_redis
from tests.support.server import free_port

ECHO = Script("return {KEYS[1], ARGV[1], #ARGV}")


def told(hook: Any) -> Deferred[None]:
    """Fire when a hook's callback is called next."""
    fired: Deferred[None] = Deferred()
    hook(lambda: None if fired.called else fired.callback(None))
    return fired


class CommandTests(TestCase):
    """Commands and scripts."""

    async def test_commands(self) -> None:
        """Replies come as Redis sent them, each to its own command."""
        redis = await connect(self)
        key = new_prefix()
        replies = await gatherResults(
            [
                redis.command("SET", key, b"\x00\xff"),
                redis.command("GET", key),
                redis.command("DEL", key),
                redis.command("GET", key),
                redis.command("LRANGE", key, 0, -1),
            ]
        )
        self.assertEqual(replies, [b"OK", b"\x00\xff", 1, None, []])

    async def test_refused(self) -> None:
        """An error of Redis' fails its own command alone."""
        redis = await connect(self)
        wrong, right = redis.command("SET", "a"), redis.command("PING")
        with capturedLogs() as events, self.assertRaises(RedisRefused):
            await wrong
        self.assertIn("refuses commands: ERR wrong number", formatEvent(events[0]))
        self.assertEqual(await right, b"PONG")

    async def test_large(self) -> None:
        """Values much larger than a read go there and back."""
        redis = await connect(self)
        key, value = new_prefix(), b"\r\n$" * 1_000_000
        await redis.command("SET", key, value, "EX", 60)
        self.assertEqual(await redis.command("GET", key), value)

    async def test_scripts(self) -> None:
        """A script runs with its keys and arguments, in order with commands, even if forgotten."""
        redis = await connect(self)
        self.assertEqual(await redis.run(ECHO, ["k"], ["é", 2]), [b"k", "é".encode(), 2])
        await redis.command("SCRIPT", "FLUSH")
        runs = [redis.run(ECHO, ["k"], [number]) for number in range(3)]
        self.assertEqual([reply[1] for reply in await gatherResults(runs)], [b"0", b"1", b"2"])

    async def test_too_much_under_way(self) -> None:
        """Beyond a bound commands are refused at once, and those before are answered."""
        redis = await connect(self)
        sent = [redis.command("ECHO", b"1" * 1024 * 1024) for _ in range(40)]
        refused = [each for each in sent if each.called]
        self.assertEqual(len(refused), 8)
        for each in refused:
            self.failureResultOf(each, Unavailable)
        await gatherResults(sent[:32])
        self.assertEqual(await redis.command("PING"), b"PONG")


class LoginTests(TestCase):
    """What an address says besides where."""

    async def test_password_and_database(self) -> None:
        """A password and a database hold for both links."""
        server = RedisServer("--requirepass", "secret")
        self.addCleanup(server.remove)
        server.start()
        url = f"redis://:secret@127.0.0.1:{server.port}/3"
        redis = Redis(read_redis_url(url), reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
        await redis.start()
        await redis.command("SET", "a", "1")
        self.assertIn(b"db3", await redis.command("INFO", "keyspace"))

    async def test_wrong_password(self) -> None:
        """A wrong password is said at the start, and is not shown."""
        server = RedisServer("--requirepass", "secret")
        self.addCleanup(server.remove)
        server.start()
        redis = Redis(read_redis_url(f"redis://:wrong@127.0.0.1:{server.port}"), reactor)
        with self.assertRaises(Unavailable) as caught:
            await redis.start(patience=3.0)
        self.assertIn("WRONGPASS", str(caught.exception))
        self.assertNotIn("wrong@", str(caught.exception))

    async def test_user(self) -> None:
        """A user and password of Redis' access lists log in."""
        server = RedisServer("--user", "me", "on", ">secret", "~*", "&*", "+@all")
        self.addCleanup(server.remove)
        server.start()
        redis = Redis(read_redis_url(f"redis://me:secret@127.0.0.1:{server.port}"), reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
        await redis.start()
        self.assertEqual(await redis.command("ACL", "WHOAMI"), b"me")

    async def test_nobody_there(self) -> None:
        """Where there is no server, starting fails with a reason."""
        server = RedisServer()
        self.addCleanup(server.remove)
        redis = Redis(read_redis_url(server.url), reactor)
        with self.assertRaises(Unavailable) as caught:
            await redis.start(patience=3.0)
        self.assertIn("refused", str(caught.exception))

    async def test_unix_socket(self) -> None:
        """A Unix socket does as well."""
        server = RedisServer("--unixsocket", "redis.sock")
        self.addCleanup(server.remove)
        server.start()
        redis = Redis(read_redis_url(f"unix://{server.folder}/redis.sock?db=1"), reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
        await redis.start()
        self.assertEqual(await redis.command("PING"), b"PONG")

    async def test_oldest(self) -> None:
        """The oldest supported Redis serves commands and subscriptions."""
        server = RedisServer(binary=oldest_redis())
        self.addCleanup(server.remove)
        server.start()
        redis = await connect(self, server)
        self.assertIn(b"redis_version:6.2", await redis.command("INFO", "server"))
        self.assertEqual(await redis.run(ECHO, ["k"], ["a"]), [b"k", b"a", 1])


class TlsTests(TestCase):
    """Redis over TLS."""

    def setUp(self) -> None:
        """Start a server with a certificate of its own making."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.authorities, key = folder / "crt", folder / "key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", key, "-out", self.authorities),
            ],
            check=True,
            capture_output=True,
        )
        self.port = free_port()
        server = RedisServer(
            *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self.authorities), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(self.authorities)),
        )
        self.addCleanup(server.remove)
        server.start()

    async def connect(self, query: str) -> None:
        """Connect, and use both links."""
        redis = Redis(read_redis_url(f"rediss://localhost:{self.port}{query}"), reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
        await redis.start(patience=3.0)
        heard: Deferred[bytes] = Deferred()
        await redis.subscribe(b"a", lambda channel, message: heard.callback(message))
        await redis.command("PUBLISH", "a", "x")
        self.assertEqual(await heard, b"x")

    async def test_authorities(self) -> None:
        """Who is named as an authority is believed."""
        await self.connect(f"?ssl_ca_certs={self.authorities}")

    async def test_anybody(self) -> None:
        """Anybody is believed where the address says so."""
        await self.connect("?ssl_cert_reqs=none")

    async def test_nobody(self) -> None:
        """A certificate that nobody has signed is refused otherwise."""
        with self.assertRaises(Unavailable) as caught:
            await self.connect("")
        self.assertIn("certificate", str(caught.exception).lower())

    async def test_no_authorities(self) -> None:
        """A file of authorities that is none is the operator's mistake."""
        for path, problem in (("/nowhere", "No such file"), (__file__, "no certificate")):
            with self.assertRaises(Unavailable) as caught:
                await self.connect(f"?ssl_ca_certs={path}")
            self.assertIn(problem, str(caught.exception))


class SubscriptionTests(TestCase):
    """Subscriptions."""

    async def test_messages(self) -> None:
        """Channels and patterns that are heard bring what is published after that."""
        redis = await connect(self)
        prefix = new_prefix().encode()
        seen: list[tuple[bytes, bytes]] = []
        ends: list[Deferred[None]] = [Deferred(), Deferred()]

        def handle(channel: bytes, message: bytes) -> None:
            seen.append((channel, message))
            if message.startswith(b"end"):
                ends[int(message[3:])].callback(None)

        await gatherResults(
            [
                redis.subscribe(prefix + b"a", handle),
                redis.subscribe_pattern(prefix + b"b*", handle),
                redis.subscribe(prefix + b"z", handle),
            ]
        )
        self.assertTrue(redis.hears(prefix + b"a"))
        self.assertIsNone(redis.subscribe(prefix + b"a", handle))
        for channel in (b"a", b"b1", b"c", b"a"):
            await redis.command("PUBLISH", prefix + channel, channel)
        await redis.command("PUBLISH", prefix + b"z", b"end0")
        await ends[0]
        redis.unsubscribe(prefix + b"a")
        redis.unsubscribe_pattern(prefix + b"b*")
        self.assertFalse(redis.hears(prefix + b"a"))
        for channel in (b"a", b"b1"):
            await redis.command("PUBLISH", prefix + channel, b"late")
        await redis.command("PUBLISH", prefix + b"z", b"end1")
        await ends[1]
        del seen[3]
        self.assertEqual(seen[:-1], [(prefix + each, each) for each in (b"a", b"b1", b"a")])


class AccessTests(TestCase):
    """A user of Redis' access lists that may not hear everything."""

    async def setUp(self) -> None:
        """Start a server that lets one channel be heard."""
        self.server = RedisServer("--user", "default", "on", "nopass", "~*", "&a", "+@all")
        self.addCleanup(self.server.remove)
        self.server.start()
        self.redis = await connect(self, self.server)

    async def test_refused(self) -> None:
        """A channel or pattern that may not be heard fails alone, and the link goes on."""
        heard: Deferred[bytes] = Deferred()
        await self.redis.subscribe(b"a", lambda channel, message: heard.callback(message))
        for _ in range(2):
            waiting = self.redis.subscribe_pattern(b"*", print)
            assert waiting is not None
            with self.assertRaises(Unavailable):
                await waiting
            self.redis.unsubscribe_pattern(b"*")
        await self.redis.command("PUBLISH", "a", "1")
        self.assertEqual(await heard, b"1")
        self.assertEqual((self.redis.up, self.redis.reconnects), (True, 0))

    async def test_revoked(self) -> None:
        """While what is heard may be heard no more, Redis counts as gone."""
        await self.redis.subscribe(b"a", lambda channel, message: None)
        down, up = told(self.redis.when_down), told(self.redis.when_up)
        refused: Deferred[None] = Deferred()

        def observe(event: LogEvent) -> None:
            if "NOPERM" in formatEvent(event) and not refused.called:
                refused.callback(None)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.server.tell("ACL", "SETUSER", "default", "resetchannels", "&b")
        await down
        await refused
        self.server.tell("ACL", "SETUSER", "default", "&a")
        await up
        self.assertTrue(self.redis.hears(b"a"))
        self.assertEqual(self.redis.reconnects, 1)


class LossTests(TestCase):
    """Links and servers that go and come back."""

    def setUp(self) -> None:
        """Start a server of the test's own."""
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()

    async def subscribed(self, redis: Redis) -> list[bytes]:
        """Hear two channels; answer what is heard."""
        seen: list[bytes] = []
        await gatherResults(
            [
                redis.subscribe(b"a", lambda channel, message: seen.append(message)),
                redis.subscribe_pattern(b"b*", lambda channel, message: seen.append(message)),
            ]
        )
        return seen

    async def heard(self, redis: Redis, seen: list[bytes]) -> None:
        """See that both are heard."""
        marker: Deferred[None] = Deferred()
        await redis.subscribe(b"z", lambda channel, message: marker.callback(None))
        seen.clear()
        for channel in ("a", "b1", "z"):
            await redis.command("PUBLISH", channel, channel)
        await marker
        redis.unsubscribe(b"z")
        self.assertEqual(seen, [b"a", b"b1"])

    async def test_killed(self) -> None:
        """A killed server fails what is under way; when it is back, all is as before."""
        redis = await connect(self, self.server)
        seen = await self.subscribed(redis)
        down, up = told(redis.when_down), told(redis.when_up)
        under_way = redis.command("BLPOP", "nothing", 0)
        self.server.kill()
        await down
        self.assertFalse(redis.up)
        with self.assertRaises(Unavailable):
            await under_way
        self.failureResultOf(redis.command("PING"), Unavailable)
        self.failureResultOf(redis.subscribe(b"c", print), Unavailable)
        self.server.start()
        await up
        self.assertTrue(redis.up)
        self.assertEqual(redis.reconnects, 1)
        await self.heard(redis, seen)
        self.assertTrue(redis.hears(b"c"))

    async def test_subscriptions_killed(self) -> None:
        """A lost link for subscriptions is made again, and commands go on all the while."""
        redis = await connect(self, self.server)
        seen = await self.subscribed(redis)
        down, up = told(redis.when_down), told(redis.when_up)
        self.assertEqual(await redis.command("CLIENT", "KILL", "TYPE", "pubsub"), 1)
        await down
        self.assertFalse(redis.hears(b"a"))
        self.assertEqual(await redis.command("PING"), b"PONG")
        await up
        await self.heard(redis, seen)

    async def test_silent(self) -> None:
        """A server that does not answer is given up; when it goes on, all is as before."""
        redis = await connect(self, self.server, patience=1.0)
        seen = await self.subscribed(redis)
        down, up = told(redis.when_down), told(redis.when_up)
        self.server.pause()
        with self.assertRaises(Unavailable):
            await redis.command("PING")
        await down
        self.server.resume()
        await up
        await self.heard(redis, seen)

    async def test_silent_while_idle(self) -> None:
        """That a server has gone silent is noticed though nothing is asked of it."""
        redis = await connect(self, self.server, patience=1.0)
        down, up = told(redis.when_down), told(redis.when_up)
        self.server.pause()
        await down
        self.server.resume()
        await up

    async def test_stop_is_quiet(self) -> None:
        """Stopping fails what is under way, and may be done twice."""
        redis = await connect(self, self.server)
        await self.subscribed(redis)
        under_way = redis.command("BLPOP", "nothing", 0)
        await redis.stop()
        with self.assertRaises(Unavailable):
            await under_way
        await redis.stop()


class SentinelTests(TestCase):
    """Servers that sentinels name."""

    async def test_master(self) -> None:
        """The sentinels' master is found, though one sentinel is away."""
        server = RedisServer()
        self.addCleanup(server.remove)
        server.start()
        config = Path(self.mktemp())
        config.write_text(  # noqa: ASYNC240
            f"sentinel monitor main 127.0.0.1 {server.port} 1\n"
        )
        sentinel = RedisServer(str(config), "--sentinel")
        self.addCleanup(sentinel.remove)
        sentinel.start()
        with_gap = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/2"
        redis = Redis(read_redis_url(with_gap), reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
        await redis.start()
        await redis.command("SET", "a", "1")
        self.assertIn(b"db2", await redis.command("INFO", "keyspace"))
        unknown = Redis(
            read_redis_url(f"redis+sentinel://127.0.0.1:{sentinel.port}/other"), reactor
        )
        with self.assertRaises(Unavailable) as caught:
            await unknown.start(patience=3.0)
        self.assertIn("no sentinel knows of other", str(caught.exception))
