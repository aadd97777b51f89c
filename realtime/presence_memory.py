"""Presence on one node, in memory."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest
from typing import Any

from msgspec import Raw
from zope.interface import implementer

from realtime.envelope import encode_message
from realtime.interfaces import Deadline, IPresence
from realtime.model import Identity, Member, Namespace, PresencePage
from realtime.wheel import TimerWheel


class _Present:
    """A user on a topic. `due` is when their absence counts, where they have no connection."""

    __slots__ = ("connections", "due", "on_deadline", "state", "username")

    def __init__(self, username: str | None, on_deadline: Callable[[int], None]) -> None:
        self.username = username
        self.connections = 0
        self.state: bytes | None = None
        self.due: int | None = None
        self.on_deadline = on_deadline


class _Topic:
    __slots__ = ("connections", "join_leave", "users")

    def __init__(self, join_leave: bool) -> None:
        self.users: dict[str, _Present] = {}
        self.connections = 0
        self.join_leave = join_leave


@implementer(IPresence)
class MemoryPresence:
    """See `IPresence`. `grace` is in seconds, `now` tells Unix seconds."""

    def __init__(
        self, deadlines: TimerWheel[Deadline], now: Callable[[], float], *, grace: int
    ) -> None:
        self._deadlines = deadlines
        self._now = now
        self._grace = grace
        self._announce: Callable[[str, bytes], object] = _not_started
        self._topics: dict[str, _Topic] = {}
        # By connection: its topics, and whose it is.
        self._connections: dict[str, dict[str, str]] = {}

    def start(self, announce: Callable[[str, bytes], object]) -> None:
        """See `IPresence.start`."""
        self._announce = announce

    def join(
        self, topic: str, namespace: Namespace, connection_id: str, identity: Identity
    ) -> None:
        """See `IPresence.join`."""
        topics = self._connections.setdefault(connection_id, {})
        if topic in topics:
            return
        user_id = identity.user_id
        topics[topic] = user_id
        there = self._topics.get(topic)
        if there is None:
            there = self._topics[topic] = _Topic(namespace.join_leave)
        there.connections += 1
        user = there.users.get(user_id)
        if user is None:
            user = _Present(identity.username, lambda tick: self._gone(topic, user_id))
            there.users[user_id] = user
            self._tell(topic, there, "Join", user_id, user)
        elif user.due is not None:
            self._deadlines.cancel(user, user.due)
            user.due = None
        user.connections += 1

    def leave(self, topic: str, connection_id: str) -> None:
        """See `IPresence.leave`."""
        topics = self._connections.get(connection_id, {})
        user_id = topics.pop(topic, None)
        if not topics:
            self._connections.pop(connection_id, None)
        if user_id is None:
            return
        there = self._topics[topic]
        there.connections -= 1
        user = there.users[user_id]
        user.connections -= 1
        if user.connections:
            return
        if self._grace:
            user.due = self._deadlines.schedule(user, int(self._now()) + self._grace)
        else:
            self._gone(topic, user_id)

    def leave_all(self, connection_id: str) -> None:
        """See `IPresence.leave_all`."""
        for topic in list(self._connections.get(connection_id, ())):
            self.leave(topic, connection_id)

    async def members(self, topic: str, *, limit: int, after: str | None) -> PresencePage:
        """See `IPresence.members`."""
        there = self._topics.get(topic)
        if there is None:
            return PresencePage(0, 0, (), None)
        users = there.users
        # By id, so that a page goes on where one ended whose last user has left since.
        rest = users if after is None else [user_id for user_id in users if user_id > after]
        ids = nsmallest(limit + 1, rest) if limit else []
        found = [
            Member(user_id, user.username, user.connections, user.state)
            for user_id, user in ((user_id, users[user_id]) for user_id in ids[:limit])
        ]
        last = ids[limit - 1] if len(ids) > limit else None
        return PresencePage(len(users), there.connections, tuple(found), last)

    async def set_state(self, topic: str, user_id: str, state: bytes | None) -> Member | None:
        """See `IPresence.set_state`."""
        there = self._topics.get(topic)
        user = there.users.get(user_id) if there is not None else None
        if there is None or user is None:
            return None
        if user.state != state:
            user.state = state
            self._tell(topic, there, "Update", user_id, user)
        return Member(user_id, user.username, user.connections, state)

    def _gone(self, topic: str, user_id: str) -> None:
        there = self._topics[topic]
        user = there.users.pop(user_id)
        if not there.users:
            del self._topics[topic]
        self._tell(topic, there, "Leave", user_id, user)

    def _tell(self, topic: str, there: _Topic, type: str, user_id: str, user: _Present) -> None:
        if not there.join_leave:
            return
        data: dict[str, Any] = {"topic": topic, "user_id": user_id}
        if user.username is not None:
            data["username"] = user.username
        if type == "Update":
            data["state"] = None if user.state is None else Raw(user.state)
        self._announce(topic, encode_message(type, data, int(self._now() * 1000)))


def _not_started(topic: str, message: bytes) -> None:
    raise RuntimeError("join before start")
