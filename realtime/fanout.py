"""Writing to many: what a turn of the reactor has for whom, in order and in slices.

What a turn publishes is queued and written once, at its end: publications that follow one another
on a topic go to each subscriber in a single write. A write to many subscribers is cut into slices,
so that no turn of the reactor is long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import ClassVar, Generic, TypeAlias, TypeVar

from realtime.frames import text_frame
from realtime.interfaces import Holdable, Subscriber
from realtime.model import Namespace, Piece

# Writes in one turn of the reactor, about 10 ms of them; each such piece of a frame counts as one
# more.
SLICE = 1000
PIECE = 4096
# Bytes that may be merged into one write to each subscriber.
MERGE = 64 * 1024

S = TypeVar("S", bound=Subscriber)
# Members, a frame, the topic where it is a publication, and how many writes that counts as.
_Queued: TypeAlias = tuple[dict[S, None], bytes, str | None, int]


class Fanout(Generic[S]):
    """What is queued for subscribers. `call_soon` runs a function at the turn's end."""

    # With more writes queued, about 100 ms of them, publishers are held; with half of that they
    # go on.
    high_water: ClassVar[int] = 16_000

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._queue: deque[_Queued[S]] = deque()
        self._queued = 0
        # Members that a write too large for one slice has still to reach, and its bytes.
        self._rest: Iterator[S] | None = None
        self._data = b""
        self._parts: Sequence[_Queued[S]] = ()
        # What holds for a topic; set by the node.
        self.lookup: Callable[[str], Namespace | str | None] = lambda topic: None
        # Whether so much is queued that publishers have to be held.
        self.congested = False
        self.turn = 0
        self._replies: dict[S, list[bytes]] = {}
        self._scheduled = False
        self._held: dict[Holdable, None] = {}
        self._resting: dict[Holdable, None] = {}

    def deliver_to(self, subscribers: Iterable[S], *messages: bytes) -> None:
        """Queue messages for some connections, in order with what is queued already."""
        members = dict.fromkeys(subscribers)
        if members and messages:
            self.enqueue(members, b"".join(map(text_frame, messages)))

    def forget(self, subscriber: S) -> None:
        """Drop the replies to a connection that has ended."""
        self._replies.pop(subscriber, None)

    def enqueue(self, members: dict[S, None], frame: bytes, topic: str | None = None) -> None:
        """Queue a frame for `members`, which stay as they are until it is written."""
        writes = len(members)
        if len(frame) >= PIECE:
            writes *= 1 + len(frame) // PIECE
        self._queue.append((members, frame, topic, writes))
        self._queued += writes
        if self._queued > self.high_water:
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
        frames = [frame for members, frame, *_ in self._queue if subscriber in members]
        frames += self._replies.pop(subscriber, ())
        if frames:
            _write(subscriber, b"".join(frames))

    def hold(self, publisher: Holdable) -> None:
        """Read no more of a publisher until the queue has drained."""
        if publisher not in self._held:
            self._held[publisher] = None
            publisher.hold()

    def rest(self, publisher: Holdable) -> None:
        """Read no more of a publisher, who has sent too much, until the next `wake`."""
        if publisher not in self._resting:
            self._resting[publisher] = None
            publisher.hold()

    def wake(self) -> None:
        """Another second has begun."""
        resting, self._resting = self._resting, {}
        for publisher in resting:
            publisher.release()

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
        if self.congested and self._queued <= self.high_water // 2:
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
                most = max(1, budget // (1 + len(data) // PIECE))
                part = list(islice(self._rest, most))
                if len(part) < most:
                    self._rest = None
                self._write_all(part, data, self._parts)
                budget -= len(part) * (1 + len(data) // PIECE)
            elif queue:
                queued = queue.popleft()
                members, data, _, writes = queued
                parts: Sequence[_Queued[S]] = (queued,)
                if queue and queue[0][0] is members:
                    parts = self._merge(queued)
                    data = b"".join([part[1] for part in parts])
                    writes = len(members) * (1 + len(data) // PIECE)
                else:
                    self._queued -= writes
                if writes <= budget:
                    budget -= writes
                    self._write_all(members, data, parts)
                else:
                    self._rest = iter(members)
                    self._data, self._parts = data, parts
            else:
                self.turn += 1
                break
        if self._replies:
            replies, self._replies = self._replies, {}
            for subscriber, frames in replies.items():
                _write(subscriber, b"".join(frames))

    def _merge(self, first: _Queued[S]) -> list[_Queued[S]]:
        """Take off the queue what follows `first` to the same members, to be written with it."""
        queue = self._queue
        members, data, _, writes = first
        parts = [first]
        size = len(data)
        while queue and queue[0][0] is members and size < MERGE:
            queued = queue.popleft()
            parts.append(queued)
            size += len(queued[1])
            writes += queued[3]
        self._queued -= writes
        return parts

    def _write_all(self, members: Collection[S], data: bytes, parts: Sequence[_Queued[S]]) -> None:
        """Write to each of `members` what `parts` are together."""
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

    def _pieces(self, parts: Sequence[_Queued[S]]) -> Sequence[Piece]:
        """What may be dropped of what was to be written: nothing, or pieces that say so."""
        pieces = []
        for _, frame, topic, _ in parts:
            namespace = None if topic is None else self.lookup(topic)
            if isinstance(namespace, Namespace) and namespace.slow_consumers != "close":
                pieces.append(Piece(frame, topic, namespace.slow_consumers == "latest"))
            else:
                pieces.append(Piece(frame))
        return pieces if any(piece.topic is not None for piece in pieces) else ()


def _write(subscriber: Subscriber, data: bytes) -> None:
    try:
        sent = subscriber.send(data)
    except OSError:
        sent = 0
    if sent != len(data):
        subscriber.unsent(data, sent)
