"""Who is connected here and what they subscribe to, and the writing to them.

What a reactor turn publishes is queued in order and written once, at its end: publications
that follow one another on a topic go to each subscriber in a single write. A write to many
subscribers is cut into slices, so that no turn of the reactor is long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from realtime.frames import text_frame
from realtime.interfaces import Pausable, Subscriber
from realtime.metrics import Counters

# Writes in one turn of the reactor, about 10 ms of them.
SLICE = 1000
# Bytes that may be merged into one write to each subscriber.
MERGE = 64 * 1024
# Bytes of queued frames above which publishers are held, and below which they go on.
HIGH_WATER = 1024 * 1024
LOW_WATER = HIGH_WATER // 2


S = TypeVar("S", bound=Subscriber)


class _Topic(Generic[S]):
    """The members of a topic. A queued write refers to `members`: it is copied on change then."""

    __slots__ = ("members", "queued_in")

    def __init__(self) -> None:
        self.members: dict[S, None] = {}
        self.queued_in = -1


class _Write(Generic[S]):
    """Frames that go to each of `members`, in order."""

    __slots__ = ("frames", "members", "rest", "size")

    def __init__(self, members: dict[S, None], frame: bytes) -> None:
        self.members = members
        self.frames = [frame]
        self.size = len(frame)
        self.rest: Iterator[S] | None = None


class Hub(Generic[S]):
    """The subscribers of this node. `call_soon` runs a function at the turn's end."""

    def __init__(self, counters: Counters, call_soon: Callable[[Callable[[], None]], object]):
        self._counters = counters
        self._call_soon = call_soon
        self._topics: dict[str, _Topic[S]] = {}
        self._users: dict[str, dict[S, None]] = {}
        # Who a username stands for, and how many connections say so.
        self._usernames: dict[str, list[Any]] = {}
        self._connections: dict[int, S] = {}
        self._queue: deque[_Write[S]] = deque()
        self._queue_bytes = 0
        self._turn = 0
        self._replies: dict[S, list[bytes]] = {}
        self._scheduled = False
        self._held: dict[Pausable, None] = {}

    # -- connections -----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, subscriber: S) -> None:
        """Take in a new connection."""
        identity = subscriber.identity
        self._connections[subscriber.number] = subscriber
        self._users.setdefault(identity.user_id, {})[subscriber] = None
        if identity.username is not None and identity.username != identity.user_id:
            named = self._usernames.setdefault(identity.username, [identity.user_id, 0])
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
        named = self._usernames.get(identity.username or "")
        if named is not None and named[0] == identity.user_id:
            named[1] -= 1
            if named[1] == 0:
                del self._usernames[identity.username or ""]
        self._replies.pop(subscriber, None)
        return vacated

    def connections(self) -> list[S]:
        """All connections."""
        return list(self._connections.values())

    def connection(self, number: int) -> S | None:
        """The connection of that number."""
        return self._connections.get(number)

    def connections_of(self, user: str) -> list[S]:
        """The connections of a user, by id or, failing that, by username."""
        connections = self._users.get(user)
        if connections is None:
            connections = self._users.get(self._usernames.get(user, ("",))[0])
        return list(connections or ())

    # -- subscriptions ---------------------------------------------------------------------

    def subscribe(self, subscriber: S, topic: str) -> bool:
        """Add a subscription; answer whether it is the topic's first here."""
        if topic in subscriber.topics:
            return False
        entry = self._topics.get(topic)
        first = entry is None
        if entry is None:
            entry = self._topics[topic] = _Topic()
        self._members_to_change(entry)[subscriber] = None
        subscriber.topics[topic] = None
        self._counters.subscriptions += 1
        return first

    def unsubscribe(self, subscriber: S, topic: str) -> bool:
        """Drop a subscription; answer whether the topic has no more here."""
        if topic not in subscriber.topics:
            return False
        del subscriber.topics[topic]
        self._counters.subscriptions -= 1
        entry = self._topics[topic]
        members = self._members_to_change(entry)
        del members[subscriber]
        if members:
            return False
        del self._topics[topic]
        return True

    def _members_to_change(self, entry: _Topic[S]) -> dict[S, None]:
        if entry.queued_in == self._turn:
            entry.members = entry.members.copy()
            entry.queued_in = -1
        return entry.members

    def has_topic(self, topic: str) -> bool:
        """Whether anybody here subscribes to `topic`."""
        return topic in self._topics

    def topic_count(self) -> int:
        """How many topics have subscribers here."""
        return len(self._topics)

    # -- writing ---------------------------------------------------------------------------

    def deliver(self, topic: str, message: bytes) -> None:
        """Queue a message for the present subscribers of `topic`."""
        entry = self._topics.get(topic)
        if entry is None:
            return
        members = entry.members
        frame = text_frame(message)
        self._counters.messages_sent += len(members)
        entry.queued_in = self._turn
        queue = self._queue
        if queue:
            last = queue[-1]
            if last.members is members and last.rest is None and last.size < MERGE:
                last.frames.append(frame)
                last.size += len(frame)
                self._queue_bytes += len(frame)
                return
        queue.append(_Write(members, frame))
        self._queue_bytes += len(frame)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def deliver_to(self, subscribers: Iterable[S], message: bytes) -> None:
        """Queue a message for some connections, in order with what is queued already."""
        members = dict.fromkeys(subscribers)
        if members:
            frame = text_frame(message)
            self._queue.append(_Write(members, frame))
            self._queue_bytes += len(frame)
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

    @property
    def congested(self) -> bool:
        """Whether so much is queued that publishers have to be held."""
        return self._queue_bytes > HIGH_WATER

    def hold(self, transport: Pausable) -> None:
        """Pause a publisher's transport until the queue has drained."""
        if transport not in self._held:
            self._held[transport] = None
            transport.pauseProducing()

    def flush(self) -> None:
        """Write all that is queued now, however long it takes."""
        while self._queue or self._replies:
            self._write_slice()
        self._resume_held()

    def _flush(self) -> None:
        self._scheduled = False
        self._write_slice()
        if self._queue:
            self._scheduled = True
            self._call_soon(self._flush)
        if self._held:
            self._resume_held()

    def _resume_held(self) -> None:
        if self._queue_bytes <= LOW_WATER:
            held, self._held = self._held, {}
            for transport in held:
                transport.resumeProducing()

    def _write_slice(self) -> None:
        """Write what is queued, up to about `SLICE` writes; then the replies."""
        queue = self._queue
        budget = SLICE
        stuck: list[tuple[S, bytes, int]] = []
        while queue and budget > 0:
            write = queue[0]
            frames = write.frames
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            size = len(data)
            members: Iterable[S] = write.members
            if write.rest is not None or len(write.members) > budget:
                if write.rest is None:
                    write.rest = iter(write.members)
                    write.frames = [data]
                members = list(islice(write.rest, budget))
                if len(members) < budget:
                    queue.popleft()
                    self._queue_bytes -= size
                budget -= len(members)
            else:
                queue.popleft()
                self._queue_bytes -= size
                budget -= len(write.members)
            for subscriber in members:
                try:
                    sent = subscriber.send(data)
                    if sent == size:
                        continue
                except OSError:
                    sent = 0
                stuck.append((subscriber, data, sent))
            if stuck:
                for subscriber, data, sent in stuck:
                    subscriber.unsent(data, sent)
                stuck.clear()
        if not queue:
            self._turn += 1
        if self._replies:
            replies, self._replies = self._replies, {}
            for subscriber, frames in replies.items():
                _write(subscriber, b"".join(frames))


def _write(subscriber: S, data: bytes) -> None:
    try:
        sent = subscriber.send(data)
    except OSError:
        sent = 0
    if sent != len(data):
        subscriber.unsent(data, sent)
