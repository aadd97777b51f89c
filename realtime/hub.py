"""Who is connected here, and what they subscribe to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from realtime.envelope import encode_broadcast
from realtime.fanout import PIECE, Fanout
from realtime.frames import text_frame
from realtime.interfaces import Subscriber
from realtime.metrics import Counters
from realtime.model import Publication
from realtime.names import MAX_BYTES, connection_number, username_key
from realtime.patterns import PatternIndex
from realtime.topics import is_pattern

# Members that are kept together of topics that patterns match, all in all.
MAX_ROUTED = 200_000

S = TypeVar("S", bound=Subscriber)


class _Topic(Generic[S]):
    """The members of a topic. A queued write refers to `members`: it is copied on change then."""

    __slots__ = ("members", "queued_in")

    def __init__(self) -> None:
        self.members: dict[S, None] = {}
        self.queued_in = -1


class Hub(Fanout[S]):
    """The subscribers of this node. `call_soon` runs a function at the turn's end."""

    def __init__(self, counters: Counters, call_soon: Callable[[Callable[[], None]], object]):
        super().__init__(call_soon)
        self._counters = counters
        self._topics: dict[str, _Topic[S]] = {}
        self._patterns: PatternIndex[_Topic[S]] = PatternIndex()
        self._has_patterns = False
        # Topics with members of several kinds: each member once. Forgotten when one changes.
        self._routes: dict[str, dict[S, None]] = {}
        self._routed = 0
        self._users: dict[str, dict[S, None]] = {}
        # Who a username stands for, and how many connections say so.
        self._usernames: dict[str, list[Any]] = {}
        self._connections: dict[int, S] = {}

    # -- connections -----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, subscriber: S) -> None:
        """Take in a new connection."""
        identity = subscriber.identity
        self._connections[subscriber.number] = subscriber
        self._users.setdefault(identity.user_id, {})[subscriber] = None
        if identity.username is not None and identity.username != identity.user_id:
            key = username_key(identity.username)
            named = self._usernames.setdefault(key, [identity.user_id, 0])
            if named[0] == identity.user_id:
                named[1] += 1

    def remove(self, subscriber: S) -> list[str]:
        """Forget a connection; answer the topics that it leaves without subscribers here."""
        if self._connections.pop(subscriber.number, None) is None:
            return []
        vacated = [name for name in list(subscriber.topics) if self.unsubscribe(subscriber, name)]
        identity = subscriber.identity
        connections = self._users[identity.user_id]
        del connections[subscriber]
        if not connections:
            del self._users[identity.user_id]
        key = username_key(identity.username or "")
        named = self._usernames.get(key)
        if named is not None and named[0] == identity.user_id:
            named[1] -= 1
            if named[1] == 0:
                del self._usernames[key]
        self.forget(subscriber)
        return vacated

    def connections(self) -> list[S]:
        """All connections."""
        return list(self._connections.values())

    def connection(self, connection_id: str) -> S | None:
        """The connection of that id."""
        found = self._connections.get(connection_number(connection_id))
        return found if found is not None and found.connection_id == connection_id else None

    def count(self, user_id: str) -> int:
        """How many connections a user has here."""
        return len(self._users.get(user_id, ()))

    def connections_of(self, user: str) -> list[S]:
        """The connections of a user, by id or, failing that, by username."""
        if user not in self._users:
            user = self._usernames.get(username_key(user[:MAX_BYTES]), ("",))[0]
        return list(self._users.get(user, ()))

    # -- subscriptions ---------------------------------------------------------------------

    def subscribe(self, subscriber: S, name: str) -> bool:
        """Add a subscription to a topic or pattern; answer whether it is the first here."""
        if name in subscriber.topics:
            return False
        entry = self._entry(name)
        first = entry is None
        if entry is None:
            entry = _Topic()
            if is_pattern(name):
                self._patterns.add(name, entry)
                self._has_patterns = True
            else:
                self._topics[name] = entry
        self._members_to_change(name, entry)[subscriber] = None
        subscriber.topics[name] = None
        self._counters.subscriptions += 1
        return first

    def unsubscribe(self, subscriber: S, name: str) -> bool:
        """Drop a subscription; answer whether the topic or pattern has no more here."""
        if name not in subscriber.topics:
            return False
        del subscriber.topics[name]
        self._counters.subscriptions -= 1
        entry = self._entry(name)
        assert entry is not None  # noqa: S101
        members = self._members_to_change(name, entry)
        del members[subscriber]
        if members:
            return False
        if is_pattern(name):
            self._patterns.remove(name)
            self._has_patterns = len(self._patterns) > 0
        else:
            del self._topics[name]
        return True

    def _entry(self, name: str) -> _Topic[S] | None:
        entry = self._topics.get(name)
        if entry is None and self._has_patterns:
            entry = self._patterns.get(name)
        return entry

    def _members_to_change(self, name: str, entry: _Topic[S]) -> dict[S, None]:
        if self._routes:
            if is_pattern(name):
                self._routes.clear()
                self._routed = 0
            else:
                self._routed -= len(self._routes.pop(name, ()))
        if entry.queued_in == self.turn:
            entry.members = entry.members.copy()
            entry.queued_in = -1
        return entry.members

    def _members(self, topic: str) -> dict[S, None] | None:
        """Who gets what is published on a topic now, by its name or by patterns."""
        entry = self._topics.get(topic)
        if self._has_patterns:
            members = self._routes.get(topic)
            if members is not None:
                return members
            entries = self._patterns.match(topic)
            if entries:
                if entry is not None:
                    entries.append(entry)
                if len(entries) > 1:
                    return self._route(topic, entries)
                entry = entries[0]
        if entry is None:
            return None
        entry.queued_in = self.turn
        return entry.members

    def _route(self, topic: str, entries: list[_Topic[S]]) -> dict[S, None]:
        members: dict[S, None] = {}
        for entry in entries:
            members |= entry.members
        if self._routed + len(members) > MAX_ROUTED:
            self._routes.clear()
            self._routed = 0
        self._routed += len(members)
        self._routes[topic] = members
        return members

    def subscribers(self, topic: str) -> int:
        """How many connections here have subscribed to a topic by its name."""
        return len(self._topics[topic].members) if topic in self._topics else 0

    def topics(self) -> list[str]:
        """The topics that have subscribers here by their names."""
        return list(self._topics)

    def has(self, name: str) -> bool:
        """Whether a topic or pattern has subscribers here."""
        return self._entry(name) is not None

    # -- writing ---------------------------------------------------------------------------

    def deliver(self, publication: Publication) -> None:
        """Queue a publication for the present subscribers of its topic."""
        if self._has_patterns:
            members = self._members(publication.topic)
            if members is None:
                return
        else:  # as `_members`, whose call every publication would pay for
            entry = self._topics.get(publication.topic)
            if entry is None:
                return
            members = entry.members
            entry.queued_in = self.turn
        if publication.exclude is not None:
            members = self._without(members, publication.exclude)
        self._counters.messages_sent += len(members)
        frame = text_frame(encode_broadcast(publication))
        # As `enqueue`, whose call every publication would pay for.
        writes = len(members)
        if len(frame) >= PIECE:
            writes *= 1 + len(frame) // PIECE
        self._queue.append((members, frame, publication.topic, writes))
        self._queued += writes
        if self._queued > self.high_water:
            self.congested = True
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def announce(self, name: str, message: bytes) -> None:
        """Queue a message of the server's for the present subscribers of a topic, or a pattern."""
        entry = self._patterns.get(name) if is_pattern(name) else None
        members = self._members(name) if entry is None else dict(entry.members)
        if members is not None:
            self.enqueue(members, text_frame(message))

    def _without(self, members: dict[S, None], connection_id: str) -> dict[S, None]:
        """All of `members` but one connection."""
        excluded = self.connection(connection_id)
        if excluded is None or excluded not in members:
            return members
        rest = members.copy()
        del rest[excluded]
        return rest
