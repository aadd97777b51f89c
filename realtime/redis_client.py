"""Connections to a Redis server: commands, scripts and subscriptions that outlive every link.

There are two links, one for commands and one for subscriptions; each is made again, with growing
and jittered pauses, whenever it is lost. What cannot be sent now fails at once: nothing waits
for a Redis that is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from hiredis import pack_command
from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import CancelledError as Cancelled
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import RedisProtocol, ResponseError

from realtime.errors import Unavailable
from realtime.redis_channels import Channels, Handler
from realtime.redis_endpoint import RedisEndpoint
from realtime.redis_refusals import Refusals
from realtime.redis_scripts import Arg, Script, Scripts
from realtime.redis_url import RedisAddress

_log = Logger()

# Seconds in which Redis answers, or is given up; and of silence after which a link is asked
# whether it still is one.
ANSWER_SECONDS: Final = 5.0
# Commands that may be under way, and their bytes.
MAX_UNDER_WAY: Final = 20_000
MAX_UNDER_WAY_BYTES: Final = 32 * 1024 * 1024
# Seconds between attempts to connect: from a tenth to three, and up to one more by chance.
_pause = backoffPolicy(0.1, 3.0)


class RedisRefused(Exception):
    """Redis has answered a command with an error, which has been logged."""


def out_of_reach() -> Unavailable:
    """The refusal of what needs a Redis that is away."""
    return Unavailable("The broker is out of reach.", retry_after=1)


class _Link(RedisProtocol):  # type: ignore[misc]
    """A connection for commands. Replies come as Redis sent them, texts as bytes."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._address = redis.address
        self._seconds = redis.seconds
        self._patience = redis.patience
        self._refusals = redis.refusals
        # Who waits for replies, in order: since when, and for how many bytes.
        self._under_way: deque[tuple[Deferred[Any], float, int]] = deque()
        self._bytes = 0
        self._heard = 0.0
        self.on_lost: list[Callable[[], object]] = []
        # Why it was lost, where that is known.
        self.reason: BaseException | None = None

    def connectionMade(self) -> None:
        """Nothing is said before `prepare`."""
        self.connected = 1
        self._heard = self._seconds()
        if self._address.path is None and not self._address.tls:
            self.transport.setTcpNoDelay(True)

    async def prepare(self) -> None:
        """Log in, choose the database, and see that the server answers, and is the right one."""
        address = self._address
        if address.password is not None:
            login = () if address.username is None else (address.username,)
            await self.execute_command("AUTH", *login, address.password)
        if address.db:
            await self.execute_command("SELECT", address.db)
        if address.service is not None and (await self.execute_command("ROLE"))[0] != b"master":
            raise Unavailable("what the sentinels have named is no master")
        await self.execute_command("CLIENT", "SETNAME", "realtime")

    def execute_command(self, *args: Arg, **_: Any) -> Deferred[Any]:
        """Send a command; its reply fires the Deferred. Fails with Unavailable, RedisRefused."""
        reply: Deferred[Any] = Deferred()
        full = len(self._under_way) >= MAX_UNDER_WAY or self._bytes >= MAX_UNDER_WAY_BYTES
        if not self.connected or full:
            reply.errback(out_of_reach())
            return reply
        command = _pack(args)
        self._under_way.append((reply, self._seconds(), len(command)))
        self._bytes += len(command)
        self.transport.write(command)
        return reply

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Note that the server is there."""
        self._heard = self._seconds()
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Any) -> None:
        """Give a reply to who waits for it."""
        if not self._under_way:
            self.give_up(RedisRefused(f"what nobody has asked for: {str(reply)[:100]}"))
            return
        waiting, _, size = self._under_way.popleft()
        self._bytes -= size
        if isinstance(reply, ResponseError):
            if self.on_lost and not str(reply).startswith("NOSCRIPT"):
                self._refusals.note(str(reply))  # Before it stands, its service says why not.
            waiting.errback(RedisRefused(str(reply)))
        else:
            waiting.callback(reply)

    def give_up(self, reason: BaseException) -> None:
        """Drop a link that is of no use."""
        self.reason = reason
        self.transport.abortConnection()

    def check(self) -> None:
        """Give up a server that does not answer; ask one that has been silent."""
        now = self._seconds()
        if self._under_way:
            if now - self._under_way[0][1] > self._patience:
                self.transport.abortConnection()
        elif now - self._heard > self._patience:
            self.execute_command("PING").addErrback(_nothing)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is under way: nobody knows what has become of it."""
        self.connected = 0
        if self.reason is None and not isinstance(reason.value, ConnectionDone):
            self.reason = reason.value
        under_way, self._under_way = self._under_way, deque()
        for callback in self.on_lost:
            callback()
        for waiting, _, _ in under_way:
            waiting.errback(out_of_reach())


class _Subscriptions(_Link):
    """A connection for subscriptions."""

    def __init__(self, redis: Redis, channels: Channels) -> None:
        super().__init__(redis)
        self._channels = channels
        self._note = redis.note

    def send(self, *args: Arg) -> None:
        """Send what is answered by other means than a reply."""
        self.transport.write(_pack(args))

    def replyReceived(self, reply: Any) -> None:
        """Give a message to who hears the channel."""
        if self.reason is not None:
            return  # What comes after a refusal is no proof of anything.
        if isinstance(reply, ResponseError) and self._channels.is_asking:
            refusal = RedisRefused(str(reply))
            self._note(refusal)
            if not self._channels.refused():
                self.give_up(refusal)
        elif type(reply) is not list or not self._channels.take(reply):
            super().replyReceived(reply)


class Redis:
    """One Redis server. `up` is whether both links stand and all subscriptions hold.

    It is given up when it does not answer for `patience` seconds. `reconnects` counts how often
    it came back.
    """

    def __init__(
        self, address: RedisAddress, reactor: Any, *, patience: float = ANSWER_SECONDS
    ) -> None:
        self.address = address
        self.seconds = reactor.seconds
        self.patience = patience
        self.refusals = Refusals(address, reactor.seconds)
        self.up = False
        self.reconnects = -1
        self._reactor = reactor
        self._channels = Channels(lambda flush: reactor.callLater(0, flush))
        self._commands: _Link | None = None
        self._scripts = Scripts(self.command)
        # Those that are ready.
        self._links: list[_Link] = []
        self._on_up: list[Callable[[], object]] = []
        self._on_down: list[Callable[[], object]] = []
        self._services = [
            self._service(lambda: _Link(self), self._commands_ready),
            self._service(lambda: _Subscriptions(self, self._channels), self._subscriptions_ready),
        ]
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        self._first: Deferred[None] | None = None
        self._why = "it does not answer"
        # Links in a row that could not be made ready.
        self._useless = 0

    def when_up(self, callback: Callable[[], object]) -> None:
        """Call a function whenever the server has come back, and at first."""
        self._on_up.append(callback)

    def when_down(self, callback: Callable[[], object]) -> None:
        """Call a function whenever the server has gone."""
        self._on_down.append(callback)

    async def start(self, *, patience: float = 10.0) -> None:
        """Connect; raises `Unavailable` with the reason when that takes longer than `patience`."""
        self._first = Deferred()
        for service in self._services:
            service.startService()
        self._checks.start(min(1.0, self.patience / 4), now=False)
        first = self._first.addTimeout(patience, self._reactor)
        try:
            await first
        except Exception:
            await self.stop()
            raise Unavailable(f"Redis at {self.address}: {self._why}") from None

    async def stop(self) -> None:
        """Drop the links; what is under way fails. May be called twice."""
        self._first = None
        if self._checks.running:
            self._checks.stop()
        for service in self._services:
            if service.running:
                await service.stopService()

    def command(self, *args: Arg) -> Deferred[Any]:
        """Send a command; its reply fires the Deferred, with texts as bytes.

        Fails with `Unavailable` when nobody knows whether it was obeyed, with `RedisRefused`
        when it was not.
        """
        if self._commands is None:
            refused: Deferred[Any] = Deferred()
            refused.errback(out_of_reach())
            return refused
        return self._commands.execute_command(*args)

    def run(
        self, script: Script, keys: Sequence[Arg] = (), args: Sequence[Arg] = ()
    ) -> Deferred[Any]:
        """Run a script; as `command`."""
        return self._scripts.run(script, keys, args)

    def subscribe(self, channel: bytes, handler: Handler) -> Deferred[None] | None:
        """Hear a channel, from when the Deferred fires; None where it is heard already.

        `handler(channel, message)` is called for each message. Fails with `Unavailable` when the
        server goes first; the channel is heard then when it is back. One handler a channel.
        """
        return self._channels.add(channel, handler)

    def unsubscribe(self, channel: bytes) -> None:
        """Hear a channel no more."""
        self._channels.remove(channel)

    def subscribe_pattern(self, glob: bytes, handler: Handler) -> Deferred[None] | None:
        """As `subscribe`, for all channels that a glob matches; see `hears`."""
        return self._channels.add(glob, handler, pattern=True)

    def unsubscribe_pattern(self, glob: bytes) -> None:
        """Undo `subscribe_pattern`."""
        self._channels.remove(glob, pattern=True)

    def hears(self, channel: bytes) -> bool:
        """Whether a channel is heard by its own name now; exact while a message is handled."""
        return self._channels.hears(channel)

    def hears_pattern(self, glob: bytes) -> bool:
        """As `hears`, of a glob."""
        return self._channels.hears(glob, pattern=True)

    # -- the links ---------------------------------------------------------------------------

    def _service(self, make: Callable[[], _Link], ready: Callable[[Any], Any]) -> ClientService:
        factory = Factory.forProtocol(make)
        factory.noisy = False
        return ClientService(
            RedisEndpoint(
                self.address, self._reactor, self.patience, lambda: _Link(self), self.note
            ),
            factory,
            # A server that takes connections and is of no use is no better than one that is away.
            retryPolicy=lambda attempt: _pause(max(attempt, self._useless)),
            clock=self._reactor,
            prepareConnection=lambda link: self._prepare(link, ready),
        )

    def _prepare(self, link: Any, ready: Callable[[Any], Any]) -> None:
        """Make a link ready; when that fails it is dropped, and another is made later."""
        self._useless += 1
        # The service, which cannot be stopped while it waits for this, does not.
        prepared = Deferred.fromCoroutine(self._make_ready(link, ready))
        prepared.addTimeout(self.patience, self._reactor)
        prepared.addErrback(self._give_up, link)

    def _give_up(self, failure: Failure, link: _Link) -> None:
        self.note(link.reason or failure.value)
        link.transport.abortConnection()

    def note(self, problem: BaseException | None) -> None:
        """Say why there is no link, once."""
        silent = isinstance(problem, TimeoutError)
        why = "it does not answer" if silent else str(problem) or type(problem).__name__
        if self._services[0].running and why != self._why and not isinstance(problem, Cancelled):
            self._why = why
            _log.error("Redis at {address}: {why}", address=self.address, why=why)

    async def _make_ready(self, link: Any, ready: Callable[[Any], Any]) -> None:
        await link.prepare()
        await ready(link)

    async def _commands_ready(self, link: _Link) -> None:
        for script in Script.known:
            await link.execute_command("SCRIPT", "LOAD", script.source)
        self._commands = link
        self._stands(link)

    async def _subscriptions_ready(self, link: _Subscriptions) -> None:
        """Hear all channels again; what comes after them, the answer to a PING, is the proof."""
        link.on_lost.append(self._channels.detach)
        self._channels.attach(link.send)
        await link.execute_command("PING")
        self._stands(link)

    def _stands(self, link: _Link) -> None:
        link.on_lost.append(lambda: self._lost(link))
        self._links.append(link)
        if len(self._links) < len(self._services):
            return
        self.up = True
        self.reconnects += 1
        self._useless = 0
        self._why = ""
        if self.reconnects:
            _log.info("Redis at {address} is back", address=self.address)
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)
        for callback in self._on_up:
            callback()

    def _lost(self, link: _Link) -> None:
        self._links.remove(link)
        if link is self._commands:
            self._commands = None
        if self.up:
            self.up = False
            if self._services[0].running:
                _log.error("Redis at {address} is out of reach", address=self.address)
            for callback in self._on_down:
                callback()

    def _check(self) -> None:
        for link in self._links:
            link.check()


def _pack(args: tuple[Arg, ...]) -> bytes:
    packed: bytes = pack_command(args)  # type: ignore[arg-type]
    return packed


def _nothing(*_: object) -> None:
    pass
