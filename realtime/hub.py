"""Who is connected here and what they subscribe to, and the writing to them.

What a reactor turn publishes is queued in order and written once, at its end: publications
that follow one another on a topic go to each subscriber in a single write. A write to many
subscribers is cut into slices, so that no turn of the reactor is long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from realtime.envelope import encode_broadcast
from realtime.frames import text_frame
from realtime.interfaces import Holdable, Subscriber
from realtime.metrics import Counters
from realtime.model import Piece, Publication, SlowConsumers
from realtime.names import MAX_BYTES, connection_number, username_key
from realtime.patterns import PatternIndex
from realtime.topics import is_pattern

# Writes in one turn of the reactor, about 10 ms of them.
SLICE = 1000
# Bytes that may be merged into one write to each subscriber.
MERGE = 64 * 1024
# Bytes of queued frames above which publishers are held, and below which they go on.
HIGH_WATER = 1024 * 1024
LOW_WATER = HIGH_WATER // 2
# Members that are kept together of topics that patterns match, all in all.
MAX_ROUTED = 200_000


S = TypeVar("S", bound=Subscriber)
_Queued: TypeAlias = tuple[dict[S, None], bytes, str | None]


class _Topic(Generic[S]):
    """The members of a topic. A queued write refers to `members`: it is copied on change then."""

    __slots__ = ("members", "queued_in")

    def __init__(self) -> None:
        self.members: dict[S, None] = {}
        self.queued_in = -1


class Hub(Generic[S]):
    """The subscribers of this node. `call_soon` runs a function at the turn's end."""

    def __init__(self, counters: Counters, call_soon: Callable[[Callable[[], None]], object]):
        self._counters = counters
        self._call_soon = call_soon
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
        # Members, a frame, and the topic where it is a publication.
        self._queue: deque[_Queued[S]] = deque()
        self._queue_bytes = 0
        # Members that a write too large for one slice has still to reach, and its bytes.
        self._rest: Iterator[S] | None = None
        self._data = b""
        self._parts: Sequence[_Queued[S]] = ()
        # What becomes of a topic's publications where clients read slowly; set by the node.
        self.slow_consumers: Callable[[str], SlowConsumers] = lambda topic: "close"
        # Whether so much is queued that publishers have to be held.
        self.congested = False
        self._turn = 0
        self._replies: dict[S, list[bytes]] = {}
        self._scheduled = False
        self._held: dict[Holdable, None] = {}

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
        vacated = [
            topic for topic in list(subscriber.topics) if self.unsubscribe(subscriber, topic)
        ]
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
        self._replies.pop(subscriber, None)
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
        if entry.queued_in == self._turn:
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
        entry.queued_in = self._turn
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
            entry.queued_in = self._turn
        if publication.exclude is not None:
            members = self._without(members, publication.exclude)
        self._counters.messages_sent += len(members)
        frame = text_frame(encode_broadcast(publication))
        # As `_enqueue`.
        self._queue.append((members, frame, publication.topic))
        self._queue_bytes += len(frame)
        if self._queue_bytes > HIGH_WATER:
            self.congested = True
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def announce(self, name: str, message: bytes) -> None:
        """Queue a message of the server's for the present subscribers of a topic, or a pattern."""
        entry = self._patterns.get(name) if is_pattern(name) else None
        members = self._members(name) if entry is None else dict(entry.members)
        if members is not None:
            self._enqueue(members, text_frame(message))

    def _without(self, members: dict[S, None], connection_id: str) -> dict[S, None]:
        """All of `members` but one connection."""
        excluded = self.connection(connection_id)
        if excluded is None or excluded not in members:
            return members
        rest = members.copy()
        del rest[excluded]
        return rest

    def deliver_to(self, subscribers: Iterable[S], *messages: bytes) -> None:
        """Queue messages for some connections, in order with what is queued already."""
        members = dict.fromkeys(subscribers)
        if members and messages:
            self._enqueue(members, b"".join(map(text_frame, messages)))

    def _enqueue(self, members: dict[S, None], frame: bytes) -> None:
        self._queue.append((members, frame, None))
        self._queue_bytes += len(frame)
        if self._queue_bytes > HIGH_WATER:
            self.congested = True
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def reply(self, subscriber: S, message: bytes) -> None:
        """Answer a connection: at once, or after what this turn has for it."""
        frame = text_frame(message)
        if self._scheduled:
            self._replies.setdefault(subscriber, []).append(frame)
        else:
            _write(subscriber, frame)

    def greet(self, subscriber: S, message: bytes) -> None:
        """Write to a new connection before all that may be queued for it."""
        _write(subscriber, text_frame(message))

    def finish(self, subscriber: S) -> None:
        """Write what is queued for a connection that is about to end; not while writing."""
        if self._rest is not None:  # it may have had what the others still get, or not
            return
        frames = [frame for members, frame, _ in self._queue if subscriber in members]
        frames += self._replies.pop(subscriber, ())
        if frames:
            _write(subscriber, b"".join(frames))

    def hold(self, publisher: Holdable) -> None:
        """Read no more of a publisher until the queue has drained."""
        if publisher not in self._held:
            self._held[publisher] = None
            publisher.hold()

    def flush(self) -> None:
        """Write all that is queued now, however long it takes."""
        while self._queue or self._rest is not None or self._replies:
            self._write_slice()

    def _flush(self) -> None:
        self._scheduled = False
        self._write_slice()
        if (self._queue or self._rest is not None) and not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)
        if self.congested and self._queue_bytes <= LOW_WATER:
            self.congested = False
            held, self._held = self._held, {}
            for publisher in held:
                publisher.release()

    def _write_slice(self) -> None:
        """Write what is queued, up to about `SLICE` writes; then the replies."""
        queue = self._queue
        budget = SLICE
        while budget > 0:
            if self._rest is not None:
                data = self._data
                part = list(islice(self._rest, budget))
                if len(part) < budget:
                    self._rest = None
                budget -= self._write_all(part, data, self._parts)
            elif queue:
                queued = queue.popleft()
                members, data, _ = queued
                parts: Sequence[_Queued[S]] = (queued,)
                if queue and queue[0][0] is members:
                    parts = self._merge(queued)
                    data = b"".join([frame for _, frame, _ in parts])
                self._queue_bytes -= len(data)
                if len(members) <= budget:
                    budget -= self._write_all(members, data, parts)
                else:
                    self._rest = iter(members)
                    self._data, self._parts = data, parts
            else:
                self._turn += 1
                break
        if self._replies:
            replies, self._replies = self._replies, {}
            for subscriber, frames in replies.items():
                _write(subscriber, b"".join(frames))

    def _merge(self, first: _Queued[S]) -> list[_Queued[S]]:
        """Take off the queue what follows `first` to the same members, to be written with it."""
        queue = self._queue
        members, data, _ = first
        parts = [first]
        size = len(data)
        while queue and queue[0][0] is members and size < MERGE:
            queued = queue.popleft()
            parts.append(queued)
            size += len(queued[1])
        return parts

    def _write_all(self, members: Collection[S], data: bytes, parts: Sequence[_Queued[S]]) -> int:
        """Write to each of `members` what `parts` are together; answer how many they are."""
        size = len(data)
        stuck: list[tuple[S, int]] | None = None
        for subscriber in members:
            try:
                sent = subscriber.send(data)
                if sent == size:
                    continue
            except OSError:
                sent = 0
            if stuck is None:
                stuck = []
            stuck.append((subscriber, sent))
        if stuck is not None:
            pieces = self._pieces(parts)
            for subscriber, sent in stuck:
                subscriber.unsent(data, sent, pieces)
        return len(members)

    def _pieces(self, parts: Sequence[_Queued[S]]) -> Sequence[Piece]:
        """What may be dropped of what was to be written: nothing, or pieces that say so."""
        pieces = []
        for _, frame, topic in parts:
            policy = "close" if topic is None else self.slow_consumers(topic)
            if policy == "close":
                pieces.append(Piece(frame))
            else:
                pieces.append(Piece(frame, topic, policy == "latest"))
        return pieces if any(piece.topic is not None for piece in pieces) else ()


def _write(subscriber: Subscriber, data: bytes) -> None:
    try:
        sent = subscriber.send(data)
    except OSError:
        sent = 0
    if sent != len(data):
        subscriber.unsent(data, sent)
