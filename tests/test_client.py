"""Tests of the parts of realtime.client; `tests/clients/cases.py` has the whole."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.asyncio.server import ServerConnection, serve

from realtime.client import Message, RealtimeClient, RealtimeError, Subscription
from realtime.client.backoff import Backoff
from realtime.client.events import Events
from realtime.client.lost import Lost, is_final
from realtime.client.outbox import Outbox, refuse
from realtime.client.positions import HEARD, Position, Positions
from realtime.client.subscribing import Subscribing
from realtime.client.subscription import WAITING, Reader
from realtime.client.token import Tokens
from realtime.errors import CloseCode

WELCOME = {"max_frame_size": 65536}


def in_loop(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Run a test in an event loop of its own."""

    def run(self: Any) -> None:
        asyncio.run(test(self))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class BackoffTests(SynchronousTestCase):
    """Waiting before the next attempt."""

    def test_full_jitter(self) -> None:
        """It is anything up to a bound that doubles, up to a most."""
        bounds = []

        def uniform(least: float, most: float) -> float:
            bounds.append((least, most))
            return most / 2

        backoff = Backoff(0.5, 8, 5, uniform)
        self.assertEqual([backoff.delay(0) for _ in range(6)], [0.25, 0.5, 1, 2, 4, 4])
        self.assertEqual({least for least, _ in bounds}, {0.0})

    def test_reset(self) -> None:
        """Only a connection that has lasted begins anew."""
        backoff = Backoff(1, 100, 5, lambda least, most: most)
        self.assertEqual([backoff.delay(lasted) for lasted in (0, 4.9, 4.9, 5, 0)], [1, 2, 4, 1, 2])

    def test_for_days(self) -> None:
        """It never overflows."""
        backoff = Backoff(1, 30, 5)
        self.assertTrue(all(0 <= backoff.delay(0) <= 30 for _ in range(3000)))


class PositionsTests(SynchronousTestCase):
    """What is new, and what comes twice."""

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 20))))
    def test_each_once_and_in_order(self, publications: list[tuple[str, int]]) -> None:
        """Of what comes in any order, offsets that are taken rise."""
        positions = Positions()
        positions.add("a")
        taken = [(t, n) for t, n in publications if positions.move(t, Position(n, "x"))]
        for topic in "ab":
            offsets = [number for name, number in taken if name == topic]
            self.assertEqual(offsets, sorted(set(offsets)))

    def test_epoch(self) -> None:
        """Another epoch is another history, whose offsets begin again."""
        positions = Positions()
        positions.add("a")
        self.assertTrue(positions.move("a", Position(9, "x")))
        self.assertTrue(positions.move("a", Position(1, "y")))
        self.assertFalse(positions.move("a", Position(1, "y")))

    def test_left(self) -> None:
        """Of a topic that was left nothing is known."""
        positions = Positions()
        positions.add("a")
        positions.set("a", Position(5, "x"))
        positions.remove("a")
        positions.add("a")
        self.assertIsNone(positions.of("a"))
        self.assertTrue(positions.move("a", Position(1, "x")))

    def test_skip(self) -> None:
        """One's own publication that does not come is no gap where it is what comes next."""
        positions = Positions()
        positions.add("a")
        positions.skip("a", Position(1, "e"))
        self.assertIsNone(positions.of("a"))
        positions.set("a", Position(1, "e"))
        for position in (Position(3, "e"), Position(2, "f"), None):
            positions.skip("a", position)
        self.assertEqual(positions.of("a"), Position(1, "e"))
        positions.skip("a", Position(2, "e"))
        self.assertEqual(positions.of("a"), Position(2, "e"))

    def test_bounded(self) -> None:
        """Topics that patterns bring are remembered so many."""
        positions = Positions()
        for number in range(HEARD + 1):
            positions.set(f"t{number}", Position(1, "x"))
        self.assertTrue(positions.move("t0", Position(1, "x")))
        self.assertFalse(positions.move(f"t{HEARD}", Position(1, "x")))


class SubscribingTests(SynchronousTestCase):
    """Subscribing again."""

    def setUp(self) -> None:
        """Subscribe to some."""
        self.subscribing = Subscribing()
        self.positions = self.subscribing.positions

    def again(self, welcome: dict[str, Any] = WELCOME) -> list[dict[str, Any]]:
        """The commands."""
        return [json.loads(text) for text in self.subscribing.again(welcome)]

    def test_commands(self) -> None:
        """All topics, with the positions that are known."""
        for topic in ("a", "b", "c.*"):
            self.positions.add(topic)
        self.positions.set("b", Position(3, "x"))
        (command,) = self.again()
        self.assertEqual(
            command["data"],
            {"topics": ["a", "b", "c.*"], "recover": {"b": {"offset": 3, "epoch": "x"}}},
        )

    def test_size(self) -> None:
        """Many and long names are spread over commands that fit a frame."""
        topics = [f"{number:03}" + "ä" * 120 for number in range(200)]
        for topic in topics:
            self.positions.add(topic)
            self.positions.set(topic, Position(2**60, "e" * 30))
        for size in (4096, 65536):
            commands = self.again({"max_frame_size": size})
            named = [topic for command in commands for topic in command["data"]["topics"]]
            self.assertEqual(named, topics)
            texts = [json.dumps(command).encode() for command in commands]
            self.assertLess(max(map(len, texts)), max(size, 20_000))

    def test_passing_trouble(self) -> None:
        """What is refused for now is tried again; what is refused for good is left."""
        for topic in "abcd":
            self.positions.add(topic)
        (command,) = self.again()
        denied = RealtimeError("FORBIDDEN", "no", {"topic": "b"})
        self.subscribing.refused(denied)
        rest = self.subscribing.settle(command["id"], ["a"], None)
        self.assertEqual(rest, ["c", "d"])
        self.assertIsNone(self.subscribing.settle(command["id"], [], None))
        (command,) = self.again()
        busy = RealtimeError("RATE_LIMITED", "later", {"retry_after_ms": 5})
        self.assertEqual(self.subscribing.settle(command["id"], [], busy), ["a", "c", "d"])
        (command,) = self.again()
        bad = RealtimeError("INVALID_REQUEST", "no")
        self.assertEqual(self.subscribing.settle(command["id"], [], bad), [])
        self.assertEqual(self.again(), [])

    @in_loop
    async def test_taken_after_all(self) -> None:
        """What was refused on a former connection counts no more once it is taken."""
        self.positions.add("a")
        self.again()
        self.subscribing.refused(RealtimeError("FORBIDDEN", "no", {"topic": "a"}))
        self.positions.add("a")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[dict[str, Any]] = loop.create_future()
        answer: asyncio.Future[list[dict[str, Any]]] = loop.create_future()
        reply.set_result({"topics": [{"topic": "a"}]})
        self.subscribing.answered(["a"], ["a"], reply, answer)
        self.assertEqual(await answer, [{"topic": "a"}])

    def test_lost(self) -> None:
        """Statuses move positions, and tell what is lost."""
        self.positions.add("a")
        statuses = [
            {"topic": "a", "offset": 7, "epoch": "x", "recovered": False},
            {"topic": "b", "recovered": True},
        ]
        self.assertEqual(self.subscribing.subscribed(statuses), ["a"])
        self.assertEqual(self.positions.of("a"), Position(7, "x"))


class OutboxTests(SynchronousTestCase):
    """Commands that wait."""

    @in_loop
    async def test_keys(self) -> None:
        """What is published or sent to a user has a key of its own, unless it is given one."""
        outbox = Outbox(10, 10)
        commands = [outbox.add("Broadcast", {"topic": "a"}) for _ in range(2)]
        keys = {command.data["key"] for command in commands}
        self.assertEqual(len(keys), 2)
        self.assertEqual(outbox.add("DirectMessage", {"key": "mine"}).data["key"], "mine")
        self.assertNotIn("key", outbox.add("History", {"topic": "a"}).data)
        outbox.fail_all(RealtimeError("CLOSED", ""))

    @in_loop
    async def test_bounds(self) -> None:
        """So many wait, for so long; what is no JSON is not taken."""
        outbox = Outbox(2, 0.01)
        command = outbox.add("Ping", {})
        self.assertRaises(ValueError, outbox.add, "Broadcast", {"payload": float("nan")})
        self.assertRaises(TypeError, outbox.add, "Broadcast", {"payload": b"x"})
        self.assertRaises(ValueError, outbox.add, "Broadcast", {"payload": "\ud800"})
        outbox.add("Ping", {})
        error = self.assertRaises(RealtimeError, outbox.add, "Ping", {})
        self.assertEqual(error.code, "QUEUE_FULL")
        with self.assertRaises(RealtimeError) as raised:
            await command.answer
        self.assertEqual(raised.exception.code, "TIMEOUT")
        self.assertIsNone(outbox.take(command.id))

    @in_loop
    async def test_nobody_waits(self) -> None:
        """Who gives up waiting leaves nothing behind, and an answer that comes late is no harm."""
        outbox = Outbox(2, 10)
        command = outbox.add("Ping", {})
        command.answer.cancel()
        await asyncio.sleep(0)
        self.assertEqual(len(outbox), 0)
        refuse(command.answer, RealtimeError("CLOSED", ""))


class EventsTests(SynchronousTestCase):
    """Handlers."""

    @in_loop
    async def test_order(self) -> None:
        """Functions and coroutine functions are called in order, each to its end."""
        events, seen = Events(10), []

        async def slowly(data: int) -> None:
            await asyncio.sleep(0.01)
            seen.append(("slow", data))

        events.on("x", slowly)
        events.on("x", lambda data: seen.append(("quick", data)))
        for number in range(2):
            await events.put("x", number)
        await events.drain(1)
        self.assertEqual(seen, [("slow", 0), ("quick", 0), ("slow", 1), ("quick", 1)])

    @in_loop
    async def test_add_and_remove(self) -> None:
        """A handler is called once however often it was added, and not once it is removed."""
        events, seen = Events(10), []
        for _ in range(2):
            remove = events.on("x", seen.append)
        await events.put("x", 1)
        await events.drain(1)
        remove()
        await events.put("x", 2)
        events.on("x", seen.append)
        events.off("x")
        await events.put("x", 3)
        await events.drain(1)
        self.assertEqual(seen, [1])

    @in_loop
    async def test_failure(self) -> None:
        """A handler that fails is told to the log, and harms no other."""
        events, seen = Events(10), []
        events.on("x", lambda data: 1 / data)
        events.on("x", seen.append)
        with self.assertLogs("realtime.client") as logs:
            await events.put("x", 0)
            await events.put("x", 1)
            await events.drain(1)
        self.assertEqual((seen, len(logs.records)), ([0, 1], 1))

    @in_loop
    async def test_never_ending(self) -> None:
        """A handler that does not come to its end is ended with the client."""
        events = Events(10)
        events.on("x", lambda data: asyncio.sleep(1000))
        await events.put("x", 1)
        with self.assertLogs("realtime.client"):
            await events.drain(0.01)
        await asyncio.sleep(0.01)
        self.assertEqual(len(asyncio.all_tasks()), 1)

    @in_loop
    async def test_no_room(self) -> None:
        """Where there is no room for the last event, drain ends all the same, in a handler too."""
        events, ended = Events(1), asyncio.Event()

        async def leave(_: object) -> None:
            await asyncio.sleep(0.01)
            await events.drain(0.01, ("last", None))
            ended.set()

        events.on("last", print)
        events.on("x", leave)
        await events.put("x", 1)
        full = asyncio.ensure_future(events.put("x", 2))
        waiting = asyncio.ensure_future(events.put("x", 3))
        await ended.wait()
        await full
        waiting.cancel()
        events = Events(1)
        events.on("x", lambda data: asyncio.sleep(1000))
        events.on("last", print)
        for number in range(2):
            await events.put("x", number)
            await asyncio.sleep(0)
        with self.assertLogs("realtime.client"):
            await events.drain(0.01, ("last", None))


class TokensTests(SynchronousTestCase):
    """When another token is needed."""

    refused = Lost(1006, "no", error=RealtimeError("INVALID_TOKEN", "no"), retry=False)
    expired = Lost(int(CloseCode.TOKEN_EXPIRED), "expired", retry=True)

    def test_none(self) -> None:
        """A client has a token, or somebody to ask."""
        self.assertRaises(ValueError, Tokens, None, None)

    @in_loop
    async def test_fixed(self) -> None:
        """One that cannot be replaced ends the client when it is refused or expires."""
        tokens = Tokens("t", None)
        self.assertEqual(await tokens.get(), "t")
        for lost in (self.refused, self.expired):
            judged = tokens.judge(lost)
            self.assertEqual((judged.retry, judged.error is None), (False, False))
        self.assertIsNone(await tokens.renew())

    @in_loop
    async def test_asked_for(self) -> None:
        """It is asked for again once it is refused, expired or about to."""
        given = iter("abcdefg")
        tokens = Tokens(None, lambda: next(given))
        self.assertEqual(await tokens.get(), "a")
        self.assertEqual(await tokens.get(), "a")
        judged = tokens.judge(self.refused)
        self.assertEqual((judged.retry, judged.at_once), (True, True))
        self.assertEqual(await tokens.get(), "b")
        # A new one that is refused is no better than the next.
        self.assertFalse(tokens.judge(self.refused).retry)
        self.assertTrue(tokens.judge(self.expired).retry)
        self.assertEqual(await tokens.get(), "c")
        tokens.note({"expires_at": time.time() + 1})
        self.assertEqual(await tokens.get(), "d")
        self.assertEqual(await tokens.renew(), "e")

    @in_loop
    async def test_trouble(self) -> None:
        """When there is none to be had it is tried again later; coroutines are waited for."""

        async def fail() -> str:
            raise OSError("the backend is down")

        with self.assertRaises(Lost) as raised:
            await Tokens(None, fail).get()
        assert raised.exception.error is not None
        self.assertEqual((raised.exception.retry, raised.exception.error.code), (True, "NO_TOKEN"))

    @in_loop
    async def test_hanging(self) -> None:
        """Who asks for one is not waited for without end."""
        with self.assertRaises(Lost) as raised:
            await Tokens(None, asyncio.Event().wait, 0.01).get()  # type: ignore[arg-type]
        self.assertTrue(raised.exception.retry)

    @in_loop
    async def test_no_token(self) -> None:
        """What no header can have is not sent."""
        for token in ("read from a file\n", "a\r\nb", "€", ""):
            with self.assertRaises(Lost) as raised:
                await Tokens(token, None).get()
            assert raised.exception.error is not None
            self.assertEqual(raised.exception.error.code, "INVALID_TOKEN")
            self.assertFalse(raised.exception.retry)

    @in_loop
    async def test_when_to_renew(self) -> None:
        """At once, or some seconds after the last one was got where tokens live for less."""
        tokens = Tokens("t", lambda: "u")
        self.assertEqual(tokens.renew_in(60), 0)
        await tokens.renew()
        for left, most in ((60, 10), (8, 4)):
            self.assertGreater(tokens.renew_in(left), most - 1)
            self.assertLessEqual(tokens.renew_in(left), most)

    def test_other_losses(self) -> None:
        """Other losses are not the token's."""
        lost = Lost(1006, "", retry=True)
        self.assertIs(Tokens("t", None).judge(lost), lost)


class CodesTests(SynchronousTestCase):
    """The close-code table."""

    def test_final(self) -> None:
        """What the table and its ranges say."""
        for code in CloseCode:
            self.assertEqual(is_final(int(code)), not code.reconnect)
        found = {code: is_final(code) for code in (1006, 1011, 1013, 4000, 4499, 4500, 4999)}
        self.assertEqual([code for code, final in found.items() if final], [4500, 4999])


class SubscriptionTests(SynchronousTestCase):
    """Iterating."""

    def message(self, topic: str, payload: Any = None) -> Message:
        """A publication."""
        return Message(topic, payload, "u", 1)

    @in_loop
    async def test_iteration(self) -> None:
        """It has what is published on the topics and patterns, and ends when they are left."""
        readers: set[Reader] = set()
        answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        answer.set_result([])

        async def leave(topics: Any) -> None:
            for reader in readers:
                reader.close()

        subscription = Subscription(["a", "b.*"], answer, readers, leave)
        iteration = aiter(subscription)
        (reader,) = readers
        for topic in ("a", "b", "b.c"):
            if reader.wants(topic):
                await reader.put(self.message(topic))
        found = [(await anext(iteration)).topic for _ in range(2)]
        self.assertEqual(found, ["a", "b.c"])
        await subscription.unsubscribe()
        self.assertEqual([message async for message in iteration], [])
        self.assertEqual(readers, set())

    @in_loop
    async def test_waiting_given_up(self) -> None:
        """Who gives up waiting for the answer, or for the next, may wait anew."""
        readers: set[Reader] = set()
        answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        iteration = aiter(Subscription(["a"], answer, readers, asyncio.sleep))
        for taken in (False, True):
            if taken:
                answer.set_result([])
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(anext(iteration), 0.01)
        (reader,) = readers
        await reader.put(self.message("a", 1))
        self.assertEqual((await anext(iteration)).payload, 1)

    @in_loop
    async def test_left(self) -> None:
        """Who leaves a loop, or never began one, is read for no more."""
        readers: set[Reader] = set()
        answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        answer.set_result([])
        subscription = Subscription(["a"], answer, readers, asyncio.sleep)
        iteration = aiter(subscription)
        (reader,) = readers
        for _ in range(WAITING):
            await reader.put(self.message("a"))
        blocked = asyncio.ensure_future(reader.put(self.message("a")))
        await asyncio.sleep(0)
        del iteration
        await blocked
        self.assertEqual(readers, set())

    @in_loop
    async def test_bounded(self) -> None:
        """Who does not read holds the reading up, until they do or go."""
        reader = Reader(["a"])
        for number in range(WAITING):
            await reader.put(self.message("a", number))
        waiting = asyncio.ensure_future(reader.put(self.message("a", "last")))
        await asyncio.sleep(0)
        self.assertFalse(waiting.done())
        await reader.get()
        await waiting
        blocked = asyncio.ensure_future(reader.put(self.message("a")))
        await asyncio.sleep(0)
        reader.close()
        await blocked

    @in_loop
    async def test_problem(self) -> None:
        """What ends the client is raised once all that came has been read."""
        reader = Reader(["a"])
        await reader.put(self.message("a", 1))
        reader.close(RealtimeError("CLOSED", "ended"))
        self.assertIsNotNone(await reader.get())
        with self.assertRaises(RealtimeError):
            await reader.get()


class RealtimeClientTests(SynchronousTestCase):
    """The client without a server."""

    def test_url(self) -> None:
        """The address may be that of a page."""
        for url, expected in (
            ("http://h/ws", "ws://h/ws"),
            ("https://h/ws", "wss://h/ws"),
            ("wss://h/ws", "wss://h/ws"),
        ):
            self.assertEqual(RealtimeClient(url, "t").url, expected)

    @in_loop
    async def test_nonsense(self) -> None:
        """An address that is none is refused at once, and by `async with` as well."""
        client = RealtimeClient("nonsense", "t")
        with self.assertRaises(RealtimeError):
            await client.connect()
        with self.assertRaises(RealtimeError):
            async with client:
                raise AssertionError("connected")
        self.assertEqual(len(asyncio.all_tasks()), 1)

    @in_loop
    async def test_bad_arguments(self) -> None:
        """What makes connecting impossible is told, and not waited for."""
        client = RealtimeClient("ws://127.0.0.1:1/ws", "t", ssl=ssl.create_default_context())
        with self.assertRaises(RealtimeError):
            await client.connect()
        self.assertEqual(len(asyncio.all_tasks()), 1)

    @in_loop
    async def test_another_server(self) -> None:
        """A server that greets otherwise is an error, and its connection is closed."""
        closed = asyncio.Event()

        async def greet(socket: ServerConnection) -> None:
            await socket.send("Hello!")
            await socket.wait_closed()
            closed.set()

        async with serve(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = RealtimeClient(f"ws://127.0.0.1:{port}/ws", "t")
            errors: asyncio.Queue[RealtimeError] = asyncio.Queue()
            client.on("error", errors.put_nowait)
            connecting = asyncio.ensure_future(client.connect())
            self.assertIn("another server", (await errors.get()).message)
            await closed.wait()
            await client.disconnect()
            with self.assertRaises(RealtimeError):
                await connecting

    @in_loop
    async def test_nobody_waits_for_a_subscription(self) -> None:
        """An answer that comes when nobody waits any more is taken in all the same."""
        loop = asyncio.get_running_loop()
        troubles: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, trouble: troubles.append(trouble))
        subscribing = Subscribing()
        reply: asyncio.Future[dict[str, Any]] = loop.create_future()
        answer: asyncio.Future[list[dict[str, Any]]] = loop.create_future()
        reply.add_done_callback(lambda reply: subscribing.answered(["a"], ["a"], reply, answer))
        answer.cancel()
        reply.set_result({"topics": [{"topic": "a"}]})
        await asyncio.sleep(0.01)
        self.assertEqual(troubles, [])

    @in_loop
    async def test_disconnect_before(self) -> None:
        """Who was never connected can disconnect; what waited is refused."""
        client = RealtimeClient("ws://127.0.0.1:1/ws", "t")
        waiting = asyncio.ensure_future(client.broadcast("a", 1))
        await asyncio.sleep(0)
        await client.disconnect()
        with self.assertRaises(RealtimeError) as raised:
            await waiting
        self.assertEqual(raised.exception.code, "CLOSED")
        with self.assertRaises(RealtimeError):
            await client.subscribe("a")
