"""The scenarios that each client of ours has to pass, against real servers.

A client is a driver: a program that reads one JSON object a line, `{"n": 1, "do": NAME, ...}`, and
answers `{"n": 1, "ok": RESULT}` or `{"n": 1, "error": {"code", "message", "details"}}`, and tells
what the client's handlers are told as `{"event": NAME, "data": DATA}`. See `driver.py`.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.driver import Driver, Refused
from tests.support.proxy import Proxy
from tests.support.redis import new_prefix, shared_redis
from tests.support.server import Server, free_port, wait_until

CONFIG = """
[[topic]]
pattern = "kept.>"
history_size = 20000
durable = true

[[topic]]
pattern = "short.>"
history_size = 5

[[topic]]
pattern = "closed.>"
subscribe = ["nobody"]
publish = ["nobody"]

[[topic]]
pattern = "room.>"
history_size = 20000
presence = true
join_leave = true
"""
QUICK = {"min_delay": 0.05, "max_delay": 0.5}
# Of the long run through disconnects.
MESSAGES = 10_000
DISCONNECTS = 50


class TransportCases(SynchronousTestCase):
    """What every client does by every transport; a subclass says how its driver is started."""

    def command(self) -> list[str]:
        """The driver's program and arguments."""
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """What the driver finds in its environment beside that of tests."""
        return {}

    def serve(self, *options: str, **more: Any) -> Server:
        """Start a server on a port that it keeps when it is started again."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        config = Path(folder.name, "config.toml")
        config.write_text(CONFIG)
        state = Path(folder.name, "state")
        state.mkdir(mode=0o700)
        more.setdefault("state", str(state))
        server = Server("--config", str(config), *options, port=free_port(), **more).start()
        self.addCleanup(server.stop)
        return server

    def token(self, server: Server, user: str = "admin", seconds: int = 3600) -> str:
        """An access token that expires so soon."""
        return server.make_token(user, seconds)

    def client(
        self, url: str, token: str | None = None, tokens: list[str] | None = None, **options: Any
    ) -> Driver:
        """Start a client, which is not yet connected."""
        driver = Driver(self, self.command(), self.environ())
        given = {"tokens": tokens} if tokens else {"token": token}
        driver.ask("new", url=url, **given, options=QUICK | options)
        return driver

    def connect(self, server: Server, *topics: str, **options: Any) -> Driver:
        """A connected client that has subscribed to topics."""
        driver = self.client(server.ws_url, self.token(server), **options)
        driver.ask("connect")
        if topics:
            driver.ask("subscribe", topics=list(topics))
        return driver

    def assert_refused(self, driver: Driver, number: int) -> Refused:
        """What was begun is refused."""
        return self.assertRaises(Refused, driver.result, number)

    def assert_idle(self, driver: Driver) -> None:
        """A client that has ended does nothing any more, soon."""
        idle = {"connected": False, "pending": 0, "timers": 0}
        wait_until(lambda: driver.ask("state") == idle)

    # -- talking -------------------------------------------------------------------------------

    def test_talk(self) -> None:
        """Topics, direct messages, presence, history, ping: each command has its answer."""
        server = self.serve()
        driver = self.connect(server)
        (status,) = driver.ask("subscribe", topics=["room.a"])
        self.assertEqual((status["topic"], status["offset"]), ("room.a", 0))
        payloads: list[Any] = [1, "zwölf €", None, {"a": [True, 1.5]}, "x" * 30_000]
        acks = [driver.ask("broadcast", topic="room.a", payload=each) for each in payloads]
        self.assertEqual([ack["offset"] for ack in acks], [1, 2, 3, 4, 5])
        self.assertEqual(driver.until_payloads(5), payloads)
        self.assertEqual(driver.ask("direct", user="admin", payload="hi"), 1)
        self.assertEqual(driver.until("DirectMessage")["payload"], "hi")
        self.assertEqual(driver.ask("direct", user="nobody", payload="hi"), 0)
        self.assertEqual(driver.ask("presence", topic="room.a")["users"], 1)
        page = driver.ask("history", topic="room.a", limit=2)
        self.assertEqual([each["payload"] for each in page["publications"]], payloads[:2])
        self.assertGreaterEqual(driver.ask("ping"), 0)
        driver.ask("unsubscribe", topics=["room.a"])
        driver.ask("broadcast", topic="room.a", payload="unheard")
        driver.ask("ping")
        self.assertEqual(len(driver.payloads()), 5)

    def test_refused(self) -> None:
        """A refusal is the command's own, with the server's code; other topics take effect."""
        server = self.serve()
        driver = self.connect(server)
        refused = self.assert_refused(
            driver, driver.begin("broadcast", topic="closed.a", payload=1)
        )
        self.assertEqual((refused.code, refused.details), ("FORBIDDEN", {"topic": "closed.a"}))
        number = driver.begin("subscribe", topics=["room.a", "closed.a", "room.b"])
        refused = self.assert_refused(driver, number)
        self.assertEqual((refused.code, refused.details), ("FORBIDDEN", {"topic": "closed.a"}))
        refused = self.assert_refused(driver, driver.begin("subscribe", topics=["a..b"]))
        self.assertEqual(refused.code, "INVALID_REQUEST")
        for topic in ("room.a", "room.b"):
            driver.ask("broadcast", topic=topic, payload=topic)
        self.assertEqual(driver.until_payloads(2), ["room.a", "room.b"])
        # What was refused is not tried again. A server that stops may refuse connections.
        server.stop()
        server.start()
        driver.until("connected", 2)
        driver.ask("ping")
        codes = {each["code"] for each in driver.of("error")}
        self.assertLessEqual(codes, {"UNAVAILABLE"})

    def test_too_large(self) -> None:
        """What is larger than the server takes is refused here, and ends nothing."""
        server = self.serve()
        driver = self.connect(server)
        number = driver.begin("broadcast", topic="room.a", payload="x" * 70_000)
        self.assertEqual(self.assert_refused(driver, number).code, "TOO_LARGE")
        self.assertGreaterEqual(driver.ask("ping"), 0)
        self.assertEqual(driver.of("disconnected"), [])

    # -- losses --------------------------------------------------------------------------------

    def test_restart(self) -> None:
        """What is published while the server restarts, and before, comes once and in order."""
        for with_signal in (signal.SIGTERM, signal.SIGKILL):
            server = self.serve()
            driver = self.connect(server, "kept.a")
            publisher = self.connect(server)
            for number in range(5):
                publisher.ask("broadcast", topic="kept.a", payload=number)
            driver.until_payloads(5)
            server.stop(with_signal)
            lost = driver.until("disconnected")
            self.assertEqual(lost["willReconnect"], True)
            self.assertEqual(lost["code"], 1012 if with_signal == signal.SIGTERM else 1006)
            waiting = [
                publisher.begin("broadcast", topic="kept.a", payload=number)
                for number in range(5, 10)
            ]
            server.start()
            for number in waiting:
                publisher.result(number)
            self.assertEqual(driver.until_payloads(10), list(range(10)))
            self.assertEqual(driver.of("gap"), [])
            for each in (driver, publisher):
                each.stop()

    def test_many_disconnects(self) -> None:
        """Of 10,000 messages through 50 disconnects none is lost, doubled or out of order."""
        server = self.serve("--message-rate=100000", "--message-burst=100000")
        down, up = Proxy(self, server.port), Proxy(self, server.port)
        token = self.token(server)
        driver = self.client(down.ws_url, token, command_timeout=60)
        publisher = self.client(up.ws_url, token, command_timeout=60)
        driver.ask("connect")
        driver.ask("subscribe", topics=["room.a"])
        publisher.ask("connect")
        chance = random.Random(5)
        part = MESSAGES // DISCONNECTS
        for step in range(DISCONNECTS):
            flood = publisher.begin("flood", topic="room.a", count=part, window=50)
            driver.until_payloads(step * part + chance.randrange(part * 3 // 4), 60)
            chance.choice((down, up)).cut()
            publisher.result(flood, 60)
        found = [each["i"] for each in driver.until_payloads(MESSAGES, 60)]
        driver.ask("ping")
        self.assertEqual(len(driver.payloads()), MESSAGES)
        self.assertEqual(found, list(range(part)) * DISCONNECTS)
        self.assertEqual(driver.of("gap"), [])
        losses = len(driver.of("disconnected")) + len(publisher.of("disconnected"))
        self.assertGreaterEqual(losses, DISCONNECTS * 8 // 10)

    def test_lost_answer(self) -> None:
        """What the server has taken while its answer was lost is not published twice."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        driver = self.connect(server, "room.a")
        publisher = self.client(proxy.ws_url, self.token(server))
        publisher.ask("connect")
        # Of streams one request at a time goes out, with all that is said at once.
        proxy.deaf = True
        flood = publisher.begin("flood", topic="room.a", count=3, window=10)
        numbers = [{"i": 0}, {"i": 1}, {"i": 2}]
        self.assertEqual(driver.until_payloads(3), numbers)
        proxy.cut()
        proxy.deaf = False
        publisher.result(flood)
        proxy.deaf = True
        message = publisher.begin("direct", user="admin", payload="once")
        driver.until("DirectMessage")
        proxy.cut()
        proxy.deaf = False
        self.assertEqual(publisher.result(message), 2)
        ack = publisher.ask("broadcast", topic="room.a", payload="last")
        self.assertEqual(ack["offset"], 4)
        self.assertEqual(driver.until_payloads(4), [*numbers, "last"])
        self.assertEqual(len(driver.of("DirectMessage")), 1)

    def test_gap(self) -> None:
        """Where the history does not reach back the client says so, and goes on."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["short.a", "room.a"])
        proxy.target = None
        proxy.cut()
        driver.until("disconnected")
        publisher = self.connect(server)
        for number in range(10):
            publisher.ask("broadcast", topic="short.a", payload=number)
        publisher.ask("broadcast", topic="room.a", payload="kept")
        proxy.target = server.port
        self.assertEqual(driver.until("gap"), {"topics": ["short.a"]})
        publisher.ask("broadcast", topic="short.a", payload="next")
        self.assertEqual(driver.until_payloads(2), ["kept", "next"])

    def test_without_echo(self) -> None:
        """What is not to come back does not do so by a recovery."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["room.a"])
        driver.ask("broadcast", topic="room.a", payload="own", echo=False)
        proxy.cut()
        driver.until("connected", 2)
        driver.ask("broadcast", topic="room.a", payload="echoed")
        self.assertEqual(driver.until_payloads(1), ["echoed"])

    # -- tokens and ends -----------------------------------------------------------------------

    def test_fixed_token_expires(self) -> None:
        """A token that cannot be replaced is the end."""
        server = self.serve()
        driver = self.client(server.ws_url, self.token(server, seconds=2))
        driver.ask("connect")
        lost = driver.until("disconnected")
        self.assertEqual((lost["code"], lost["willReconnect"]), (4001, False))
        self.assertEqual(driver.ask("state")["connected"], False)

    def test_bad_token(self) -> None:
        """A token that is none of this server's is refused for good."""
        server = self.serve()
        for given in ({"token": "e30.e30.nonsense"}, {"tokens": ["e30.e30.nonsense"]}):
            driver = self.client(server.ws_url, **given)  # type: ignore[arg-type]
            refused = self.assert_refused(driver, driver.begin("connect"))
            self.assertEqual(refused.code, "INVALID_TOKEN")
            self.assert_idle(driver)

    def test_revoked(self) -> None:
        """A session that is ended ends its client, which does not come back."""
        server = self.serve()
        session = server.login("admin", server.admin_password)
        driver = self.client(server.ws_url, session["access_token"])
        driver.ask("connect")
        status, _, _ = server.request(
            *("DELETE", f"/sessions/{session['session_id']}"),
            Authorization=f"Bearer {session['access_token']}",
        )
        self.assertEqual(status, 204)
        lost = driver.until("disconnected")
        self.assertEqual((lost["code"], lost["willReconnect"]), (4500, False))
        refused = self.assert_refused(driver, driver.begin("broadcast", topic="a", payload=1))
        self.assertEqual(refused.code, "CLOSED")
        self.assert_idle(driver)
        refused = self.assert_refused(driver, driver.begin("connect"))
        self.assertEqual(refused.code, "INVALID_TOKEN")

    def test_forced(self) -> None:
        """A connection that an operator closes stays closed; `connect` begins anew."""
        server = self.serve()
        driver = self.connect(server, "room.a")
        id = driver.of("connected")[0]["connection_id"]
        token = self.token(server)
        status, _, _ = server.request(
            "DELETE", f"/connections/{id}", Authorization=f"Bearer {token}"
        )
        self.assertEqual(status, 204)
        self.assertEqual(driver.until("disconnected")["code"], 4501)
        driver.ask("connect")
        driver.ask("broadcast", topic="room.a", payload="again")
        self.assertEqual(driver.until_payloads(1), ["again"])

    # -- waiting -------------------------------------------------------------------------------

    def test_disconnect(self) -> None:
        """Who disconnects stays so, with nothing left behind; what waits is told."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["room.a"])
        proxy.deaf = True
        waiting = driver.begin("broadcast", topic="room.a", payload=1)
        driver.ask("disconnect")
        self.assertEqual(self.assert_refused(driver, waiting).code, "CLOSED")
        self.assert_idle(driver)
        proxy.deaf = False
        taken = proxy.taken
        time.sleep(1)  # longer than any delay
        self.assertEqual(proxy.taken, taken)
        driver.ask("connect")
        self.assertEqual(driver.ask("state")["connected"], True)

    def test_disconnect_while_connecting(self) -> None:
        """Who disconnects before the welcome is not connected later."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        proxy.deaf = True
        driver = self.client(proxy.ws_url, self.token(server))
        connecting = driver.begin("connect")
        wait_until(lambda: proxy.taken > 0)
        driver.ask("disconnect")
        self.assertEqual(self.assert_refused(driver, connecting).code, "CLOSED")
        proxy.deaf = False
        time.sleep(0.5)
        self.assert_idle(driver)
        self.assertEqual(driver.of("connected"), [])


class ClientCases(TransportCases):
    """These, and what has nothing to do with the transport: all that every client does alike."""

    def test_messages_of_the_reference(self) -> None:
        """Messages in the reference's own form work, and are subscriptions as good as others."""
        server = self.serve()
        driver = self.connect(server)
        driver.ask("send", message={"type": "Subscribe", "data": {"topics": ["kept.a"]}})
        broadcast = {"topic": "kept.a", "payload": 1}
        driver.ask("send", message={"type": "Broadcast", "data": broadcast})
        self.assertEqual(driver.until_payloads(1), [1])
        server.stop()
        server.start()
        driver.until("connected", 2)
        driver.ask("broadcast", topic="kept.a", payload=2)
        self.assertEqual(driver.until_payloads(2), [1, 2])

    def test_node_killed(self) -> None:
        """A client of a node that is killed goes on at another, and misses nothing."""
        prefix, redis = new_prefix(), shared_redis().url
        one = self.serve("--redis", redis, "--redis-prefix", prefix)
        two = self.serve("--redis", redis, "--redis-prefix", prefix, state=one.state)
        proxy = Proxy(self, one.port)
        driver = self.client(proxy.ws_url, self.token(one))
        driver.ask("connect")
        driver.ask("subscribe", topics=["room.a"])
        publisher = self.connect(two)
        numbers = iter(range(100))
        for _ in range(30):
            publisher.ask("broadcast", topic="room.a", payload=next(numbers))
        proxy.target = two.port
        one.stop(signal.SIGKILL)
        for number in numbers:
            publisher.ask("broadcast", topic="room.a", payload=number)
        self.assertEqual(driver.until_payloads(100), list(range(100)))
        self.assertEqual(len(driver.of("connected")), 2)

    def test_slow_network(self) -> None:
        """Over a slow network all comes, in order, and commands have their answers."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        proxy.bytes_per_second = 60_000
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["room.a"])
        publisher = self.connect(server)
        for number in range(40):
            publisher.ask("broadcast", topic="room.a", payload=[number, "x" * 4000])
        driver.ask("ping")
        found = driver.until_payloads(40, 60)
        self.assertEqual([each[0] for each in found], list(range(40)))
        self.assertEqual(driver.of("disconnected"), [])

    def test_patterns(self) -> None:
        """What a pattern and a name bring, before and after a loss, comes once."""
        server = self.serve()
        proxy = Proxy(self, server.port)
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        driver.ask("subscribe", topics=["kept.*", "kept.a"])
        publisher = self.connect(server)
        for number in range(3):
            publisher.ask("broadcast", topic="kept.a", payload=number)
        driver.until_payloads(3)
        proxy.cut()
        driver.until("connected", 2)
        for number in range(3, 6):
            publisher.ask("broadcast", topic="kept.a", payload=number)
        self.assertEqual(driver.until_payloads(6), list(range(6)))
        driver.ask("ping")
        self.assertEqual(len(driver.payloads()), 6)

    def test_renewal(self) -> None:
        """A token that is about to expire is replaced, and the connection stays."""
        server = self.serve()
        # Long enough for a client to start on a busy machine.
        life = 8
        end = time.time() + life
        tokens = [self.token(server, seconds=life), self.token(server, seconds=600)]
        driver = self.client(server.ws_url, tokens=tokens)
        driver.ask("connect")
        driver.wait(lambda: any(each["status"] == "authenticated" for each in driver.of("Status")))
        time.sleep(max(0.0, end + 2 - time.time()))  # past the end of the first
        driver.ask("ping")
        self.assertEqual(driver.of("disconnected"), [])
        self.assertEqual(len(driver.of("getToken")), 2)

    def test_expired_elsewhere(self) -> None:
        """A token that the server refuses is replaced before the next attempt."""
        server = self.serve()
        tokens = [self.token(server, seconds=1), self.token(server)]
        driver = self.client(server.ws_url, tokens=tokens)
        driver.ask("connect")
        proxy_less = driver.until("connected")
        self.assertEqual(proxy_less["username"], "admin")

    def test_before_the_server(self) -> None:
        """A client waits for a server that is not there yet, and sends what was said meanwhile."""
        server = self.serve()
        token = self.token(server)
        server.stop()
        driver = self.client(server.ws_url, token)
        connecting = driver.begin("connect")
        subscribing = driver.begin("subscribe", topics=["kept.a"])
        publishing = driver.begin("broadcast", topic="kept.a", payload=1)
        driver.until("reconnecting", 3)
        delays = [each["delay"] for each in driver.of("reconnecting")]
        self.assertTrue(all(0 <= delay <= 0.5 for delay in delays), delays)
        server.start()
        for number in (connecting, subscribing, publishing):
            driver.result(number)
        self.assertEqual(driver.until_payloads(1), [1])

    def test_bounds(self) -> None:
        """Commands that find no connection wait, so many and so long."""
        server = self.serve()
        token = self.token(server)
        server.stop()
        driver = self.client(server.ws_url, token, max_queue=3, command_timeout=1)
        driver.begin("connect")
        waiting = [driver.begin("broadcast", topic="a", payload=1) for _ in range(4)]
        codes = [self.assert_refused(driver, each).code for each in reversed(waiting)]
        self.assertEqual(codes, ["QUEUE_FULL", "TIMEOUT", "TIMEOUT", "TIMEOUT"])
        self.assertEqual(driver.ask("state")["pending"], 0)

    def test_rate_limit(self) -> None:
        """Above the rate a command is refused; subscribing again after a loss is not lost to it."""
        server = self.serve("--message-rate=5", "--message-burst=5")
        proxy = Proxy(self, server.port)
        driver = self.client(proxy.ws_url, self.token(server))
        driver.ask("connect")
        topics = [f"room.{number}" for number in range(150)]
        driver.ask("subscribe", topics=topics[:75])
        time.sleep(1)  # so that there is room for as many again
        driver.ask("subscribe", topics=topics[75:])
        waiting = [driver.begin("ping") for _ in range(20)]
        refused = 0
        for each in waiting:
            try:
                driver.result(each)
            except Refused as error:
                self.assertEqual(error.code, "RATE_LIMITED")
                refused += 1
        self.assertGreater(refused, 5)
        proxy.cut()
        driver.until("connected", 2)
        publisher = self.connect(server)
        for topic in (topics[0], topics[-1]):
            publisher.ask("broadcast", topic=topic, payload=topic)
        self.assertEqual(driver.until_payloads(2), [topics[0], topics[-1]])
