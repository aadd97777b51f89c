"""Presence over all nodes, in Redis: counted by user, and gone with a dead node.

A node keeps who is connected to it in memory and tells Redis what changes, a turn's changes of a
topic in one script, which announces who has come or gone. There is one sign of life a node; what a
node leaves behind that gives none any more is taken away by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realtime.envelope import encode_message
from realtime.errors import Unavailable
from realtime.interfaces import Deadline, IPresence
from realtime.model import Identity, Member, Namespace, PresencePage
from realtime.presence_scripts import BEAT, MEMBERS, SET_STATE, TELL
from realtime.redis_client import Redis, RedisRefused
from realtime.redis_keys import Keys
from realtime.redis_ring import Ring
from realtime.wheel import TimerWheel

_log = Logger()

# Seconds between signs of life, and after which a node without any is dead.
BEAT_SECONDS: Final = 3
NODE_TTL: Final = 15
# Seconds for which one node alone clears up after a dead one.
CLEARING_SECONDS: Final = 30
# Users told in one script, topics in one turn, and users at most that wait to be told.
USERS_AT_ONCE: Final = 100
TOPICS_AT_ONCE: Final = 500
MAX_UNTOLD: Final = 100_000


class _User:
    """A user on a topic here. `due` is when their absence counts, without a connection."""

    __slots__ = ("connections", "due", "on_deadline", "username")

    def __init__(self, username: str | None, on_deadline: Callable[[int], None]) -> None:
        self.username = username
        self.connections = 0
        self.due: int | None = None
        self.on_deadline = on_deadline


class _Topic:
    __slots__ = ("join_leave", "users")

    def __init__(self, join_leave: bool) -> None:
        self.users: dict[str, _User] = {}
        self.join_leave = join_leave


@implementer(IPresence)
class RedisPresence:
    """See `IPresence`. `grace` is in seconds; `beat` is to be called once a second."""

    def __init__(
        self,
        ring: Ring,
        keys: Keys,
        node_id: str,
        deadlines: TimerWheel[Deadline],
        clock: IReactorTime,
        *,
        grace: int,
    ) -> None:
        self._ring = ring
        self._keys = keys
        self._node_id = node_id
        self._deadlines = deadlines
        self._clock = clock
        self._grace = grace
        self._topics: dict[str, _Topic] = {}
        # By connection: its topics, and whose it is.
        self._connections: dict[str, dict[str, str]] = {}
        # What Redis has to be told of, by topic, and what is to be told of who has gone.
        self._untold: dict[str, dict[str, None]] = {}
        self._refused: dict[str, dict[str, None]] = {}
        self._gone: dict[tuple[str, str], str | None] = {}
        self._scheduled = False
        self._beats = 0
        self._clearing: dict[Redis, Deferred[None]] = {}
        self._open = False
        for redis in ring.all:
            redis.when_up(partial(self._came_back, redis))

    def start(self, announce: Callable[[str, bytes], object]) -> None:
        """See `IPresence.start`; here, the scripts announce."""

    async def open(self) -> None:
        """Join the other nodes."""
        self._open = True
        for redis in self._ring.all:
            await self._beat(redis)

    async def stop(self) -> None:
        """Leave the others, with all that is here, if Redis is there."""
        self._open = False
        for topic, there in self._topics.items():
            for user_id, user in there.users.items():
                if user.due is not None:
                    self._deadlines.cancel(user, user.due)
                self._gone[topic, user_id] = user.username
                self._untold.setdefault(topic, {})[user_id] = None
        self._topics.clear()
        self._connections.clear()
        try:
            for told in self._tell(list(self._untold)):
                await told
            for clearing in list(self._clearing.values()):
                await clearing
            for redis in self._ring.all:
                await redis.command("ZREM", self._keys.key("presence-nodes"), self._node_id)
        except (Unavailable, RedisRefused) as error:
            _log.info("The others could not be told who has gone: {why}", why=str(error))

    # -- here --------------------------------------------------------------------------------

    def join(
        self, topic: str, namespace: Namespace, connection_id: str, identity: Identity
    ) -> None:
        """See `IPresence.join`; told at the end of the turn."""
        topics = self._connections.setdefault(connection_id, {})
        if topic in topics:
            return
        user_id = identity.user_id
        topics[topic] = user_id
        there = self._topics.get(topic)
        if there is None:
            there = self._topics[topic] = _Topic(namespace.join_leave)
        user = there.users.get(user_id)
        if user is None:
            user = _User(identity.username, lambda tick: self._forget(topic, user_id))
            there.users[user_id] = user
        elif user.due is not None:
            self._deadlines.cancel(user, user.due)
            user.due = None
        user.connections += 1
        self._note(topic, user_id)

    def leave(self, topic: str, connection_id: str) -> None:
        """See `IPresence.leave`."""
        topics = self._connections.get(connection_id, {})
        user_id = topics.pop(topic, None)
        if not topics:
            self._connections.pop(connection_id, None)
        if user_id is None:
            return
        user = self._topics[topic].users[user_id]
        user.connections -= 1
        if user.connections == 0:
            if self._grace:
                due = int(self._clock.seconds()) + self._grace
                user.due = self._deadlines.schedule(user, due)
            else:
                self._forget(topic, user_id)
        self._note(topic, user_id)

    def leave_all(self, connection_id: str) -> None:
        """See `IPresence.leave_all`."""
        for topic in list(self._connections.get(connection_id, ())):
            self.leave(topic, connection_id)

    def _forget(self, topic: str, user_id: str) -> None:
        there = self._topics[topic]
        user = there.users.pop(user_id)
        if not there.users:
            del self._topics[topic]
        self._gone[topic, user_id] = user.username
        self._note(topic, user_id)

    def _note(self, topic: str, user_id: str) -> None:
        self._untold.setdefault(topic, {})[user_id] = None
        self._schedule()

    # -- telling -----------------------------------------------------------------------------

    def _tell_some(self) -> None:
        """Tell what has changed, some of it in a turn."""
        self._scheduled = False
        # A server that is away is told when it is back.
        topics = (topic for topic in self._untold if self._ring.of(topic).up)
        some = list(islice(topics, TOPICS_AT_ONCE))
        self._tell(some)
        if len(some) == TOPICS_AT_ONCE:
            self._schedule()
        elif len(self._gone) > MAX_UNTOLD:
            # Of so many who have gone meanwhile it is not told; they go with this node.
            self._gone.clear()
            self._untold.clear()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._tell_some)

    def _tell(self, topics: Sequence[str]) -> list[Deferred[None]]:
        told = []
        for topic in topics:
            users = list(self._untold.pop(topic, ()))
            for start in range(0, len(users), USERS_AT_ONCE):
                told.append(self._tell_of(topic, users[start : start + USERS_AT_ONCE]))
        return told

    def _tell_of(self, topic: str, users: Sequence[str]) -> Deferred[None]:
        there = self._topics.get(topic)
        entries: list[tuple[str, int, str | None]] = []
        for user_id in users:
            user = None if there is None else there.users.get(user_id)
            if user is None:
                entries.append((user_id, -1, self._gone.pop((topic, user_id), None)))
            else:
                self._gone.pop((topic, user_id), None)
                entries.append((user_id, user.connections, user.username))
        join_leave = "" if there is None else str(int(there.join_leave))
        redis = self._ring.of(topic)
        told = self._run_tell(redis, self._node_id, topic, join_leave, entries)
        return told.addErrback(self._not_told, topic, entries)

    def _run_tell(
        self,
        redis: Redis,
        node_id: str,
        topic: str,
        join_leave: str,
        entries: Iterable[tuple[str, int, str | None]],
        alone: bool = False,
    ) -> Deferred[Any]:
        keys, now = self._keys, int(self._clock.seconds() * 1000)
        args: list[str | bytes | int] = []
        for user_id, connections, username in entries:
            data = {"topic": topic, "user_id": user_id}
            if username is not None:
                data["username"] = username
            news = encode_message("Leave" if connections < 0 else "Join", data, now)
            args += (user_id, connections, "" if username is None else f"u{username}", news)
        return redis.run(
            TELL,
            (
                *self._of(topic),
                keys.key("presence-on", f"{node_id}:{topic}"),
                keys.key("presence-at", node_id),
                keys.key("presence-nodes"),
            ),
            (keys.channel(topic), topic, join_leave, node_id if alone else "", NODE_TTL, *args),
        )

    def _of(self, topic: str) -> tuple[bytes, bytes]:
        """What is kept of a topic: the users by id, and about them."""
        return self._keys.key("presence", topic), self._keys.key("presence-about", topic)

    def _not_told(
        self, failure: Failure, topic: str, entries: Sequence[tuple[str, int, str | None]]
    ) -> None:
        # What has been refused would be again: it waits for the next sign of life.
        untold = self._untold if isinstance(failure.value, Unavailable) else self._refused
        there = self._topics.get(topic)
        for user_id, _, username in entries:
            untold.setdefault(topic, {})[user_id] = None
            if there is None or user_id not in there.users:
                self._gone.setdefault((topic, user_id), username)

    def _tell_all(self, redis: Redis) -> None:
        for topic, there in self._topics.items():
            if self._ring.of(topic) is redis:
                self._untold.setdefault(topic, {}).update(dict.fromkeys(there.users))
        self._schedule()

    # -- signs of life -----------------------------------------------------------------------

    def beat(self) -> None:
        """Give a sign of life now and then, and clear up after nodes that give none."""
        self._beats += 1
        if self._beats % BEAT_SECONDS == 0 and self._open:
            for redis in self._ring.all:
                self._beat(redis)
            refused, self._refused = self._refused, {}
            for topic, users in refused.items():
                self._untold.setdefault(topic, {}).update(users)
            if self._untold:
                self._schedule()

    def _came_back(self, redis: Redis) -> None:
        if self._open:
            self._beat(redis)
            self._tell_all(redis)

    def _beat(self, redis: Redis) -> Deferred[None]:
        beaten = redis.run(
            BEAT,
            (self._keys.key("presence-nodes"), self._keys.key("presence-clearing")),
            (self._node_id, NODE_TTL, CLEARING_SECONDS),
        )
        return beaten.addCallback(self._look_around, redis).addErrback(self._no_beat)

    def _no_beat(self, failure: Failure) -> None:
        if not isinstance(failure.value, (Unavailable, RedisRefused)):
            _log.failure("A sign of life could not be given", failure)

    def _look_around(self, answer: list[Any], redis: Redis) -> None:
        """Tell all again where this node was thought dead; clear up after one that is."""
        known, *dead = answer
        if not known:
            self._tell_all(redis)
        if dead and redis not in self._clearing and self._open:
            clearing = Deferred.fromCoroutine(self._clear(redis, dead[0].decode()))
            self._clearing[redis] = clearing
            clearing.addErrback(self._no_beat)
            clearing.addCallback(lambda _: self._clearing.pop(redis))

    async def _clear(self, redis: Redis, node_id: str) -> None:
        """Take away what a dead node has left, while it is dead."""
        keys = self._keys
        at = keys.key("presence-at", node_id)
        while topics := await redis.command("SRANDMEMBER", at, USERS_AT_ONCE):
            for topic in (each.decode() for each in topics):
                on = keys.key("presence-on", f"{node_id}:{topic}")
                cursor: Any = 0
                while True:
                    cursor, found = await redis.command("HSCAN", on, cursor, "COUNT", 100)
                    users = [each.decode() for each in found[::2]]
                    names = await self._usernames(redis, topic, users)
                    entries = [(user, -1, name) for user, name in zip(users, names, strict=True)]
                    cleared = await self._run_tell(
                        # Where it is, though topics may be shared out otherwise by now.
                        *(redis, node_id, topic, ""),
                        entries,
                        alone=True,
                    )
                    if not cleared:
                        return  # It has come back.
                    if int(cursor) == 0:
                        break
        await redis.command("ZREM", keys.key("presence-nodes"), node_id)
        _log.info("Who was present by the lost node {node} is gone", node=node_id)

    async def _usernames(
        self, redis: Redis, topic: str, users: Sequence[str]
    ) -> Sequence[str | None]:
        if not users:
            return ()
        fields = [f"u{user}" for user in users]
        found = await redis.command("HMGET", self._of(topic)[1], *fields)
        return [None if each is None else each.decode() for each in found]

    # -- asking ------------------------------------------------------------------------------

    async def members(self, topic: str, *, limit: int, after: str | None) -> PresencePage:
        """See `IPresence.members`; raises `Unavailable`."""
        self._tell([topic])
        answer = await self._run(
            MEMBERS, topic, (limit + 1 if limit else 0, "-" if after is None else f"({after}")
        )
        users, connections, *found = answer
        members = [
            Member(user.decode(), None if name is None else name.decode(), int(count or 0), state)
            for user, name, count, state in zip(
                found[::4], found[1::4], found[2::4], found[3::4], strict=True
            )
        ]
        last = members[limit - 1].user_id if len(members) > limit else None
        return PresencePage(users, int(connections or 0), tuple(members[:limit]), last)

    async def set_state(self, topic: str, user_id: str, state: bytes | None) -> Member | None:
        """See `IPresence.set_state`; raises `Unavailable`."""
        self._tell([topic])
        there = self._topics.get(topic)
        user = None if there is None else there.users.get(user_id)
        data: dict[str, Any] = {"topic": topic, "user_id": user_id}
        if user is not None and user.username is not None:
            data["username"] = user.username
        data["state"] = None if state is None else Raw(state)
        news = encode_message("Update", data, int(self._clock.seconds() * 1000))
        answer = await self._run(
            SET_STATE, topic, (self._keys.channel(topic), user_id, state or b"", news)
        )
        if not answer:
            return None
        name, count = answer
        return Member(user_id, None if name is None else name.decode(), int(count or 0), state)

    async def _run(self, script: Any, topic: str, args: Sequence[Any]) -> Any:
        try:
            return await self._ring.of(topic).run(script, self._of(topic), args)
        except RedisRefused:
            raise Unavailable("Presence is not available now.") from None
