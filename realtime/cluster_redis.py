"""The nodes of a service on Redis: who there is, who is connected where, and what they ask.

Each node has one key with what it says of itself, one with the users that are connected to it, and
one channel. One script a few seconds keeps them alive; they go by themselves when the node does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from itertools import count
from typing import Any, Final

from msgspec import DecodeError, msgpack
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.cluster_scripts import ASK_ALL, BEAT, DESCRIBE, DIRECT, USER_NAMED
from realtime.errors import Unavailable
from realtime.metrics import Counters
from realtime.names import MAX_BYTES, username_key
from realtime.redis_client import Redis, RedisRefused
from realtime.redis_keys import Keys
from realtime.redis_ring import Ring

_log = Logger()

# Seconds between signs of life, after which a node without any is dead, and for answers.
BEAT_SECONDS: Final = 3
NODE_TTL: Final = 15
ANSWER_SECONDS: Final = 2.0
# Seconds for which the key of a direct message is remembered, and users told in one command.
DIRECT_TTL: Final = 300
TOLD_AT_ONCE: Final = 500

_DIRECT_MESSAGE, _QUESTION, _ANSWER, _OWN_BEAT = range(4)


class _Question:
    """Answers that have come so far, of as many as are expected."""

    __slots__ = ("answers", "done", "expected")

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.expected: int | None = None
        self.done: Deferred[None] = Deferred()

    def settle(self) -> None:
        """Fire when all have come."""
        enough = self.expected is not None and len(self.answers) >= self.expected
        if enough and not self.done.called:
            self.done.callback(None)


class RedisCluster:
    """See `interfaces.Cluster`. `beat` is to be called once a second."""

    def __init__(
        self, ring: Ring, keys: Keys, node_id: str, clock: IReactorTime, counters: Counters
    ) -> None:
        self._ring = ring
        self._keys = keys
        self._node_id = node_id
        self._clock = clock
        self._counters = counters
        self._deliver: Callable[[str, bytes], object] = _not_started
        self._answer: Callable[[str, list[Any]], Coroutine[Any, Any, Any]] = _not_started
        self._describe: Callable[[], dict[str, Any]] = dict
        # What each server is to know: by field, a number of connections or a user's id.
        self._fields: dict[Redis, dict[str, str]] = {redis: {} for redis in ring.all}
        self._changed: dict[Redis, dict[str, None]] = {redis: {} for redis in ring.all}
        self._named: dict[str, str] = {}
        self._scheduled = False
        self._beats = 0
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}
        self._open = False
        self._refusing: set[Redis] = set()
        for redis in ring.all:
            redis.when_up(partial(self._came_back, redis))

    def start(
        self,
        deliver: Callable[[str, bytes], object],
        answer: Callable[[str, list[Any]], Coroutine[Any, Any, Any]],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        """Begin: `deliver` takes direct messages, a user's id and the text.

        `answer` answers other nodes' questions; `describe` what the node says of itself.
        """
        self._deliver = deliver
        self._answer = answer
        self._describe = describe

    @property
    def refused(self) -> bool:
        """See `Cluster.refused`."""
        return bool(self._refusing)

    async def open(self) -> None:
        """Join the others."""
        self._open = True
        for redis in self._ring.all:
            heard = redis.subscribe(self._keys.key("node", self._node_id), self._take)
            if heard is not None:
                await heard
        await gatherResults([self._beat(redis) for redis in self._ring.all])

    async def stop(self) -> None:
        """Leave the others, if Redis is there."""
        self._open = False
        for redis in self._ring.all:
            redis.unsubscribe(self._keys.key("node", self._node_id))
            try:
                await redis.command("ZREM", self._keys.key("nodes"), self._node_id)
                await redis.command(
                    "DEL",
                    self._keys.key("users", self._node_id),
                    self._keys.key("about", self._node_id),
                )
            except (Unavailable, RedisRefused) as error:
                _log.info("The other nodes could not be told of the end: {why}", why=str(error))

    # -- signs of life -----------------------------------------------------------------------

    def beat(self) -> None:
        """Give a sign of life now and then."""
        self._beats += 1
        if self._beats % BEAT_SECONDS == 0 and self._open:
            for redis in self._ring.all:
                self._beat(redis)

    def _beat(self, redis: Redis) -> Deferred[None]:
        self._flush_one(redis)
        keys = self._keys
        beaten = redis.run(
            BEAT,
            (keys.key("nodes"), *(keys.key(sort, self._node_id) for sort in ("about", "users"))),
            (
                self._node_id,
                msgpack.encode(self._describe()),
                NODE_TTL,
                keys.key("node", self._node_id),
                msgpack.encode([_OWN_BEAT, self._clock.seconds()]),
            ),
        )
        told = len(self._fields[redis])
        beaten.addCallback(self._compare, redis, told)
        return beaten.addErrback(self._not_beaten, redis)

    def _compare(self, there: int, redis: Redis, told: int) -> None:
        """Tell all once more where Redis does not know what it has been told, or refused it."""
        missed = redis in self._refusing
        self._refusing.discard(redis)
        if (missed or there != told) and self._open:
            self._tell_all(redis)

    def _came_back(self, redis: Redis) -> None:
        # What was told meanwhile has been lost, though the number of users may be the same.
        if self._open:
            self._tell_all(redis)
            self._beat(redis)

    def _not_beaten(self, failure: Failure, redis: Redis) -> None:
        if isinstance(failure.value, RedisRefused):
            self._refusing.add(redis)
        self._not_told(failure)

    def _not_told(self, failure: Failure) -> None:
        # When Redis is back, all is told again.
        if not isinstance(failure.value, (Unavailable, RedisRefused)):
            _log.failure("The other nodes were not told", failure)

    # -- who is where ------------------------------------------------------------------------

    def changed(self, user_id: str, username: str | None, connections: int) -> None:
        """See `Cluster.changed`; told at the end of the turn."""
        self._set(user_id, f"u{user_id}", str(connections) if connections else None)
        if username is not None and username != user_id:
            key = username_key(username)
            # The first who has a name keeps it while connected.
            if connections:
                if self._named.setdefault(key, user_id) == user_id:
                    self._set(key, f"n{key}", user_id)
            elif self._named.get(key) == user_id:
                del self._named[key]
                self._set(key, f"n{key}", None)

    def _set(self, name: str, field: str, value: str | None) -> None:
        redis = self._ring.of(name)
        fields = self._fields[redis]
        if value is None:
            fields.pop(field, None)
        else:
            fields[field] = value
        self._changed[redis][field] = None
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for redis in self._ring.all:
            self._flush_one(redis)

    def _flush_one(self, redis: Redis) -> None:
        changed = self._changed[redis]
        if not changed:
            return
        self._changed[redis] = {}
        fields, key = self._fields[redis], self._keys.key("users", self._node_id)
        gone = [field for field in changed if field not in fields]
        if gone:
            redis.command("HDEL", key, *gone).addErrback(self._not_told)
        self._tell(redis, (field for field in changed if field in fields))

    def _tell_all(self, redis: Redis) -> None:
        key = self._keys.key("users", self._node_id)
        redis.command("DEL", key).addErrback(self._not_told)
        self._tell(redis, list(self._fields[redis]))

    def _tell(self, redis: Redis, names: Iterable[str]) -> None:
        fields, key = self._fields[redis], self._keys.key("users", self._node_id)
        flat: list[str] = []
        for name in names:
            flat += (name, fields[name])
        for start in range(0, len(flat), 2 * TOLD_AT_ONCE):
            part = flat[start : start + 2 * TOLD_AT_ONCE]
            redis.command("HSET", key, *part).addErrback(self._not_told)
        if flat:
            # A key that is made between two beats has an end, too.
            redis.command("EXPIRE", key, NODE_TTL).addErrback(self._not_told)

    # -- direct messages ---------------------------------------------------------------------

    def direct(
        self, target_user: str, message: bytes, scope: tuple[str, str, str] | None
    ) -> Deferred[int]:
        """See `Cluster.direct`."""
        sent = Deferred.fromCoroutine(self._direct(target_user, message, scope))
        return sent.addErrback(_unavailable)

    async def _direct(self, target: str, message: bytes, scope: tuple[str, str, str] | None) -> int:
        sent = await self._direct_to(target, message, scope, False)
        if sent:
            return sent
        key = username_key(target[:MAX_BYTES])
        named = await self._ring.of(key).run(
            USER_NAMED, (self._keys.key("nodes"),), (self._keys.beginning("users"), f"n{key}")
        )
        if named is not None:
            return await self._direct_to(named.decode(), message, scope, True)
        return await self._direct_to(target, message, scope, True) if scope else 0

    async def _direct_to(
        self, user_id: str, message: bytes, scope: tuple[str, str, str] | None, last: bool
    ) -> int:
        keys = self._keys
        sent: int = await self._ring.of(user_id).run(
            DIRECT,
            (keys.key("nodes"), keys.key("direct", "\0".join(scope or ()))),
            (
                keys.beginning("users"),
                keys.beginning("node"),
                f"u{user_id}",
                msgpack.encode([_DIRECT_MESSAGE, user_id, message]),
                DIRECT_TTL if scope else 0,
                "1" if last else "0",
            ),
        )
        return sent

    # -- questions ---------------------------------------------------------------------------

    async def ask(self, question: str, *args: Any, node: str | None = None) -> list[Any]:
        """See `Cluster.ask`. Raises `Unavailable`."""
        redis, keys = self._ring.first, self._keys
        number, asked = next(self._numbers), _Question()
        message = msgpack.encode([_QUESTION, self._node_id, number, question, args])
        self._questions[number] = asked
        try:
            if node is None:
                sent = redis.run(ASK_ALL, (keys.key("nodes"),), (keys.beginning("node"), message))
            else:
                sent = redis.command("PUBLISH", keys.key("node", node), message)
            asked.expected = await sent.addErrback(_unavailable)
            asked.settle()
            patience = self._clock.callLater(ANSWER_SECONDS, asked.done.callback, None)
            await asked.done
            if patience.active():
                patience.cancel()
        finally:
            del self._questions[number]
        return asked.answers

    async def nodes(self) -> list[dict[str, Any]]:
        """See `Cluster.nodes`; this one alone where Redis is away."""
        found = self._ring.first.run(
            DESCRIBE, (self._keys.key("nodes"),), (self._keys.beginning("about"),)
        )
        known = {self._node_id: self._describe()}
        try:
            for each in await found.addErrback(_unavailable):
                _describe_one(known, each)
        except Unavailable:
            pass
        return [known[node_id] for node_id in sorted(known)]

    def _take(self, channel: bytes, message: bytes) -> None:
        """Handle what another node sends, or this one."""
        try:
            kind, *rest = msgpack.decode(message)
            if kind == _DIRECT_MESSAGE:
                self._deliver(*rest)
            elif kind == _QUESTION:
                self._be_asked(*rest)
            elif kind == _ANSWER:
                number, answer = rest
                asked = self._questions.get(number)
                if asked is not None:
                    asked.answers.append(answer)
                    asked.settle()
            elif kind == _OWN_BEAT:
                self._counters.broker_lag_seconds = self._clock.seconds() - rest[0]
        except (DecodeError, LookupError, ValueError, TypeError) as error:
            _log.error("What is no message came to the node: {why}", why=str(error))

    def _be_asked(self, node: str, number: int, question: str, args: list[Any]) -> None:
        answered = Deferred.fromCoroutine(self._answer(question, args))
        answered.addCallback(lambda answer: self._send(node, [_ANSWER, number, answer]))
        answered.addErrback(lambda failure: _log.failure("A question was not answered", failure))

    def _send(self, node: str, message: list[Any]) -> None:
        sent = self._ring.first.command(
            "PUBLISH", self._keys.key("node", node), msgpack.encode(message)
        )
        sent.addErrback(self._not_told)


def _describe_one(known: dict[str, dict[str, Any]], about: bytes | None) -> None:
    try:
        read = msgpack.decode(about or b"", type=dict[str, Any])
        known.setdefault(str(read["node_id"]), read)
    except (DecodeError, LookupError):
        pass  # It has just ended, or another program has written there.


def _unavailable(failure: Failure) -> Failure:
    if isinstance(failure.value, RedisRefused):
        raise Unavailable("The broker does not take this now.") from None
    return failure


def _not_started(*_: Any) -> Any:
    raise RuntimeError("used before start")
