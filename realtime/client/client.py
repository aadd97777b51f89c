"""The client: one connection after the other, and what outlives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from realtime.client.backoff import Backoff
from realtime.client.connection import Connection
from realtime.client.errors import RealtimeError
from realtime.client.events import Events, Handler
from realtime.client.lost import Lost
from realtime.client.outbox import Command, Outbox, refuse
from realtime.client.positions import position_in
from realtime.client.subscribing import Subscribing
from realtime.client.subscription import Message, Reader, Subscription
from realtime.client.token import Tokens, TokenSource

# Events that wait for slow handlers, before the connection is read no further.
WAITING = 10_000
# Seconds that handlers have to come to their end when the client disconnects.
DRAIN_SECONDS = 2.0


class RealtimeClient:
    """Talks to a server, over as many connections as it takes. Times are seconds.

    `url` is that of `/ws`. The token is given, or got by `get_token`, a function or coroutine
    function that is called again when the one before is about to expire. Commands that find no
    connection wait for one; those that were sent when it was lost are sent again, and happen once.

    Handlers are called in the order of events: those of every type of message of the server, with
    its data, and `connected`, `disconnected`, `reconnecting`, `gap` (publications on these topics
    are lost for good) and `error` (a refusal for which nobody waits).
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        get_token: TokenSource | None = None,
        command_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        min_delay: float = 0.5,
        max_delay: float = 30.0,
        stable_after: float = 5.0,
        max_queue: int = 1000,
        ssl: Any = None,
    ) -> None:
        if url.startswith("http"):
            url = "ws" + url.removeprefix("http")
        self.url = url
        self._tokens = Tokens(token, get_token, connect_timeout)
        self._connect_timeout = connect_timeout
        self._ssl = ssl
        self._backoff = Backoff(min_delay, max_delay, stable_after)
        self._outbox = Outbox(max_queue, command_timeout)
        self._subscribing = Subscribing()
        self._events = Events(WAITING)
        self._readers: set[Reader] = set()
        self._connection: Connection | None = None
        self._running: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._ended: RealtimeError | None = None

    # -- life ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the server has welcomed the client, and the connection stands."""
        return self._connection is not None

    @property
    def pending(self) -> int:
        """How many commands have no answer yet."""
        return len(self._outbox)

    async def __aenter__(self) -> RealtimeClient:
        try:
            await self.connect()
        except BaseException:
            await self.disconnect()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    async def connect(self) -> None:
        """Connect, and stay connected until `disconnect`. Returns with the first welcome.

        Raises `RealtimeError` where trying again is of no use; otherwise it is tried again.
        """
        loop = asyncio.get_running_loop()
        if self._running is None or self._ended is not None:
            self._ended = None
            self._first = loop.create_future()
            self._running = loop.create_task(self._run(self._first))
        assert self._first is not None  # noqa: S101
        await asyncio.shield(self._first)

    async def disconnect(self) -> None:
        """End the connection for good; commands without an answer are refused with CLOSED."""
        running, self._running = self._running, None
        was_connected = self.connected
        self._end(RealtimeError("CLOSED", "The client was disconnected"), None)
        if running is not None:
            running.cancel()
            await asyncio.wait((running,))
        close = {"code": 1000, "reason": "", "willReconnect": False}
        last = [("disconnected", close)] if was_connected else []
        await self._events.drain(DRAIN_SECONDS, *last)

    def _end(self, error: RealtimeError, problem: RealtimeError | None) -> None:
        """Refuse what waits or comes, and end iterations, by a problem unless that was wanted."""
        self._ended = error
        if self._first is not None:
            refuse(self._first, error)
        self._outbox.fail_all(error)
        for reader in list(self._readers):
            reader.close(problem)

    async def _run(self, first: asyncio.Future[None]) -> None:
        """Connect again and again, until that is of no use."""
        while True:
            began = time.monotonic()
            try:
                lost, was_connected = await self._live(first), True
            except Lost as problem:
                lost, was_connected = problem, False
            except Exception as problem:  # by what was given, as a token that no header can have
                lost, was_connected = Lost(1006, str(problem), retry=False), False
            lost = self._tokens.judge(lost)
            if was_connected or not lost.retry:
                close = {"code": lost.code, "reason": str(lost), "willReconnect": lost.retry}
                await self._events.put("disconnected", close)
            if not lost.retry:
                error = lost.error or RealtimeError("CLOSED", str(lost), {"close_code": lost.code})
                self._end(error, error)
                await self._events.drain(DRAIN_SECONDS)
                return
            if lost.error is not None:
                await self._events.put("error", lost.error)
            delay = 0.0
            if not lost.at_once:
                lasted = time.monotonic() - began if was_connected else 0.0
                delay = max(self._backoff.delay(lasted), lost.retry_after)
            retrying = {"attempt": self._backoff.attempt, "delay": delay}
            await self._events.put("reconnecting", retrying)
            await asyncio.sleep(delay)

    async def _live(self, first: asyncio.Future[None]) -> Lost:
        """One connection, from its opening to its end. Raises `Lost` where none is made."""
        token = await self._tokens.get()
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await Connection.open(self.url, token, self._ssl)
        except TimeoutError:
            raise Lost(1006, "the server has not answered in time", retry=True) from None
        self._tokens.note(connection.welcome)
        self._connection = connection
        try:
            async with connection:
                # What was subscribed to, then what waits, in the order in which it was said.
                for text in self._subscribing.again(connection.welcome):
                    connection.send(text)
                for command in self._outbox.all():
                    connection.post(command)
                if not first.done():
                    first.set_result(None)
                await self._events.put("connected", connection.welcome)
                return await connection.read(self._take)
        finally:
            self._connection = None

    # -- messages in ---------------------------------------------------------------------------

    async def _take(self, message: dict[str, Any]) -> None:
        """Take in one message of the server's."""
        type, id = message["type"], message.get("id")
        data: dict[str, Any] = message.get("data") or {}
        if type == "Broadcast":
            await self._publish(message)
            return
        command = self._outbox.take(id)
        if type == "Error":
            error = RealtimeError.read(data)
            waits = command is not None or self._outbox.subscribes(error.details.get("topic"))
            if self._subscribing.refused(error):
                self._end_readers(error)
            if command is not None:
                refuse(command.answer, error)
            if isinstance(id, str) and self._connection is not None:
                waits |= self._again(self._connection, id, (), error)
            if not waits:
                await self._events.put("error", error)
        elif type == "Status":
            await self._status(data, message)
        if type != "Error" and command is not None and not command.answer.done():
            command.answer.set_result(data)
        await self._events.put(type, data)

    async def _publish(self, message: dict[str, Any]) -> None:
        data = message["data"]
        topic, position = data["topic"], position_in(data)
        if position is not None and not self._subscribing.positions.move(topic, position):
            return
        publication = Message(
            topic, data["payload"], data["from_user"], message["timestamp"], *(position or ())
        )
        for reader in list(self._readers):
            if reader.wants(topic):
                await reader.put(publication)
        await self._events.put("Broadcast", data)

    async def _status(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        status, id = data.get("status"), message.get("id")
        lost: list[str] = []
        if status == "subscribed":
            lost = self._subscribing.subscribed(data["topics"])
            if isinstance(id, str) and self._connection is not None:
                taken = [each["topic"] for each in data["topics"]]
                self._again(self._connection, id, taken, None)
        elif status == "unsubscribed" and "reason" in data:
            for topic in data["topics"]:
                self._subscribing.positions.remove(topic)
            self._end_readers(
                RealtimeError("FORBIDDEN", "The new token does not permit this", data)
            )
        elif status == "gap":
            lost = data["topics"]
        elif status == "authenticated":
            self._tokens.note(data)
        elif status == "token_expiring" and self._connection is not None:
            left = data["expires_at"] - message["timestamp"] / 1000
            self._connection.start(self._renew(self._tokens.renew_in(left)))
        if lost:
            await self._events.put("gap", {"topics": lost})

    def _end_readers(self, problem: RealtimeError) -> None:
        """End iterations over topics all of which have been taken away."""
        for reader in list(self._readers):
            if reader.is_over(self._subscribing.positions):
                reader.close(problem)

    def _again(
        self,
        connection: Connection,
        id: str,
        taken: Sequence[str],
        error: RealtimeError | None,
    ) -> bool:
        """Subscribe once more to what was not taken of a resubscription, if it is one."""
        rest = self._subscribing.settle(id, taken, error)
        if rest:
            connection.start(self._subscribe_later(connection, rest, error))
        return rest is not None

    async def _subscribe_later(
        self, connection: Connection, topics: Sequence[str], error: RealtimeError | None
    ) -> None:
        wait = error.details.get("retry_after_ms", 1000) if error is not None else 1000
        await asyncio.sleep(wait / 1000)
        for text in self._subscribing.again(connection.welcome, topics):
            connection.send(text)

    async def _renew(self, wait: float) -> None:
        """Give the connection a new token, where there is somebody to give one."""
        try:
            await asyncio.sleep(wait)
            token = await self._tokens.renew()
            if token is not None:
                await self.send("Authenticate", {"token": token})
        except Lost as problem:
            if problem.error is not None:
                await self._events.put("error", problem.error)
        except RealtimeError as error:
            await self._events.put("error", error)

    # -- commands ------------------------------------------------------------------------------

    def on(self, name: str, handler: Handler) -> Callable[[], None]:
        """Have a function or coroutine function called; call what this answers to end it."""
        return self._events.on(name, handler)

    def off(self, name: str, handler: Handler | None = None) -> None:
        """Call a handler no more, or none of that name."""
        self._events.off(name, handler)

    async def send(self, type: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a command; answer the data of its reply. Raises `RealtimeError`."""
        data = data or {}
        if type == "Subscribe":
            return {"status": "subscribed", "topics": await self.subscribe(data.get("topics", ()))}
        if type == "Unsubscribe":
            self._leave(data.get("topics", ()))
        answer = await self._command(type, data).answer
        if type == "Broadcast" and data.get("echo") is False:
            self._subscribing.positions.skip(data["topic"], position_in(answer))
        return answer

    def _command(self, type: str, data: dict[str, Any]) -> Command:
        if self._ended is not None:
            raise RealtimeError("CLOSED", str(self._ended))
        command = self._outbox.add(type, data)
        if self._connection is not None:
            self._connection.post(command)
        return command

    def subscribe(self, topics: str | Iterable[str]) -> Subscription:
        """Subscribe to topics and patterns, for as long as the client lives.

        Await what this answers for the topics' statuses, or iterate over it for what is published.
        """
        names = [topics] if isinstance(topics, str) else list(topics)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[dict[str, Any]]] = loop.create_future()
        new = [name for name in names if name not in self._subscribing.positions]
        try:
            command = self._command("Subscribe", {"topics": names})
        except RealtimeError as error:
            refuse(answer, error)
        else:
            for name in names:
                self._subscribing.positions.add(name)
            command.answer.add_done_callback(
                lambda reply: self._subscribing.answered(names, new, reply, answer)
            )
        return Subscription(names, answer, self._readers, self.unsubscribe)

    async def unsubscribe(self, topics: str | Iterable[str]) -> None:
        """Leave topics and patterns."""
        names = [topics] if isinstance(topics, str) else list(topics)
        self._leave(names)
        if self._ended is None:
            await self._command("Unsubscribe", {"topics": names}).answer

    def _leave(self, topics: Iterable[str]) -> None:
        left = list(topics)
        for name in left:
            self._subscribing.positions.remove(name)
        for reader in list(self._readers):
            if reader.is_of(left):
                reader.close()

    async def broadcast(self, topic: str, payload: Any, *, echo: bool = True) -> dict[str, Any]:
        """Publish on a topic; answer the publication's position, where it has one.

        Without `echo` it does not come back to this client.
        """
        data = {"topic": topic, "payload": payload}
        return await self.send("Broadcast", data if echo else data | {"echo": False})

    publish = broadcast

    async def send_direct_message(self, target_user: str, payload: Any) -> int:
        """Message a user; answer how many connections it went to."""
        data = {"target_user": target_user, "payload": payload}
        delivered: int = (await self.send("DirectMessage", data))["delivered"]
        return delivered

    async def history(
        self,
        topic: str,
        *,
        since: dict[str, Any] | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> dict[str, Any]:
        """Read a page of a topic's history, after a position ({"offset", "epoch"}) if given."""
        data: dict[str, Any] = {"topic": topic}
        if since is not None:
            data["since"] = since
        if limit is not None:
            data["limit"] = limit
        if reverse:
            data["reverse"] = True
        return await self.send("History", data)

    async def presence(self, topic: str, **options: Any) -> dict[str, Any]:
        """Read who is on a topic; with `state`, set one's own there."""
        return await self.send("Presence", {"topic": topic, **options})

    async def ping(self) -> float:
        """Ask for a sign of life; answer the seconds that it took."""
        began = time.monotonic()
        await self.send("Ping")
        return time.monotonic() - began
