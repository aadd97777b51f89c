"""Histories of topics, in memory and bounded. Pure: the present is an argument, in Unix seconds.

A topic's history is the run of its latest publications, whose offsets count up to its newest one's
without gaps. Memory that is needed goes to the topics used last; a topic of which everything is
forgotten begins another epoch, by which a reader sees that it may have missed something.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from realtime.model import HistoryPage, Namespace, Position, Publication
from realtime.wheel import TimerWheel

# What is kept of a publication beside its payload, and of a topic, in bytes: estimates, above the
# 270 and 430 that CPython 3.11 was seen to take, as names differ in length.
PUBLICATION_COST: Final = 400
TOPIC_COST: Final = 800
MAX_BYTES: Final = 256 * 1024 * 1024
# Topics without publications of which offset and epoch are kept, and for how many seconds after
# their last use.
MAX_EMPTY: Final = 100_000
EMPTY_TTL: Final = 86_400
# Publications that one call of `expire` drops: a few milliseconds.
EXPIRE_BUDGET: Final = 10_000


class TopicState(NamedTuple):
    """What a journal has to know of a topic; `first` is the oldest offset that is kept."""

    topic: str
    epoch: str
    top: int
    first: int


class KeyState(NamedTuple):
    """What a journal has to know of an idempotency key, used at `at`."""

    scope: tuple[str, str, str]
    position: Position
    at: float


@dataclass(slots=True)
class Changes:
    """What a journal is to write as one: forget topics, then keep what is new."""

    forgotten: list[str] = field(default_factory=list)
    topics: list[TopicState] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    keys: list[KeyState] = field(default_factory=list)
    # Keys used before this second are past.
    keys_from: float = 0.0


class Journal(Protocol):
    """What durable topics are written to."""

    async def open(self) -> None:
        """Begin."""

    async def write(self, changes: Changes) -> None:
        """Write all of it, or raise."""

    async def publications(self, after: int) -> tuple[list[Publication], int | None]:
        """Some publications in the order accepted, and what to go on `after`."""

    async def topics(self, after: int) -> tuple[list[TopicState], int | None]:
        """Some topics, and what to go on `after`."""

    async def keys(self, after: int, since: float) -> tuple[list[KeyState], int | None]:
        """Some keys used later than `since`, and what to go on `after`."""

    async def close(self) -> None:
        """End."""


class _Topic:
    """What is kept of a topic: `items[start:]`, of which the last has offset `top`."""

    __slots__ = ("due", "epoch", "items", "name", "start", "top", "ttl", "used")

    def __init__(self, name: str, epoch: str) -> None:
        self.name = name
        self.epoch = epoch
        self.top = 0
        # Any: None where it was dropped and not yet cut off.
        self.items: list[Any] = []
        self.start = 0
        self.ttl = 0.0
        self.used = 0.0
        # The second at which the wheel looks at it.
        self.due: int | None = None

    def first(self) -> int:
        """The offset of the oldest publication that is kept, or of the next one."""
        return self.top - len(self.items) + self.start + 1


class Histories:
    """The histories of many topics.

    `make_epoch` makes names of epochs. Above `max_bytes` the oldest publications of the least
    recently used topic go first; None is no bound. `forgot` is told each topic of which
    something went for its age or altogether, but not what a new publication pushes out. `full` is
    called each time that something went for want of bytes.
    """

    def __init__(
        self,
        make_epoch: Callable[[], str],
        *,
        max_bytes: int | None = MAX_BYTES,
        max_empty: int = MAX_EMPTY,
        forgot: Callable[[str], object] | None = None,
        full: Callable[[], object] | None = None,
    ) -> None:
        self._full = full
        self._make_epoch = make_epoch
        self._max_bytes = max_bytes
        self._max_empty = max_empty
        self._forgot = forgot
        # Both with the least recently used first.
        self._kept: OrderedDict[str, _Topic] = OrderedDict()
        self._empty: OrderedDict[str, _Topic] = OrderedDict()
        self._wheel: TimerWheel[_Topic] = TimerWheel(0)
        # What the topics with publications take, by the estimates above.
        self.bytes = 0

    def __len__(self) -> int:
        """How many topics have a record, with publications or without."""
        return len(self._kept) + len(self._empty)

    def __contains__(self, topic: object) -> bool:
        return topic in self._kept or topic in self._empty

    def append(self, publication: Publication, namespace: Namespace, now: float) -> Publication:
        """Keep a publication as `namespace` says; answer it with its position.

        A publication that has a position already is kept there, whatever was before.
        """
        topic = self._use(publication.topic, now)
        position = publication.position
        if position is None:
            position = Position(topic.top + 1, topic.epoch)
            publication = Publication(
                topic.name,
                bytes(publication.payload),
                publication.from_user,
                publication.timestamp,
                position,
                publication.exclude,
            )
        elif position.offset != topic.top + 1 or position.epoch != topic.epoch:
            self._drop(topic, len(topic.items) - topic.start, now)
            topic.epoch = position.epoch
        if not topic.items:
            del self._empty[topic.name]
            self._kept[topic.name] = topic
            self.bytes += TOPIC_COST
        topic.top = position.offset
        topic.items.append(publication)
        self.bytes += PUBLICATION_COST + len(topic.items[-1].payload)
        excess = len(topic.items) - topic.start - namespace.history_size
        if excess > 0:
            self._drop(topic, excess, now)
        topic.ttl = namespace.history_ttl
        if topic.ttl and topic.items and topic.due is None:
            self._schedule(topic)
        if self._max_bytes is not None:
            while self.bytes > self._max_bytes:
                self._drop(next(iter(self._kept.values())), 1, now)
                if self._full is not None:
                    self._full()
        return publication

    def page(
        self,
        topic: str,
        namespace: Namespace,
        now: float,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> HistoryPage | None:
        """The publications after `since`, or all: oldest first, or newest first.

        None where `since` is of another epoch or not reached yet, or what followed it is no
        longer all there. A topic without a record gets one.
        """
        record = self._use(topic, now)
        record.ttl = namespace.history_ttl
        self._drop_expired(record, now, len(record.items))
        low, high = record.start, len(record.items)
        if since is not None:
            first = record.first()
            if since.epoch != record.epoch or not first - 1 <= since.offset <= record.top:
                return None
            low += since.offset + 1 - first
        if limit is not None and high - low > limit:
            low, high = (high - limit, high) if reverse else (low, low + limit)
        found = record.items[low:high]
        if reverse:
            found.reverse()
        return HistoryPage(tuple(found), Position(record.top, record.epoch))

    def state(self, topic: str, now: float) -> TopicState:
        """Where a topic stands; a topic without a record gets one."""
        record = self._use(topic, now)
        return TopicState(record.name, record.epoch, record.top, record.first())

    def known(self, topic: str) -> TopicState | None:
        """Where a topic stands, or None where it has no record; no use of it."""
        record = self._kept.get(topic) or self._empty.get(topic)
        if record is None:
            return None
        return TopicState(record.name, record.epoch, record.top, record.first())

    def settle(self, topic: str, position: Position, now: float) -> None:
        """Let a topic's newest publication be, or have been, at `position`."""
        record = self._use(topic, now)
        if record.top != position.offset or record.epoch != position.epoch:
            self._drop(record, len(record.items) - record.start, now)
            record.top = position.offset
            record.epoch = position.epoch

    def remove(self, topic: str) -> None:
        """Forget a topic; its next publication is the first of another epoch."""
        record = self._kept.get(topic) or self._empty.get(topic)
        if record is not None:
            self._drop(record, len(record.items) - record.start, None)
            self._forget(record)

    def expire(self, now: float, budget: int = EXPIRE_BUDGET) -> bool:
        """Drop what is too old, about `budget` publications; answer whether that was all.

        To be called once a second. Readers never see what is too old, dropped or not.
        """
        left = budget
        due = self._wheel.advance(int(now), budget)
        for topic in due:
            topic.due = None
            left -= self._drop_expired(topic, now, max(left, 1))
            if topic.items and topic.ttl:
                self._schedule(topic)
        while left > 0 and self._empty:
            topic = next(iter(self._empty.values()))
            if topic.used + EMPTY_TTL > now:
                break
            self._forget(topic)
            left -= 1
        return left > 0 and len(due) < budget

    def _use(self, name: str, now: float) -> _Topic:
        """The record of a topic, which becomes the most recently used."""
        topic = self._kept.get(name)
        if topic is not None:
            self._kept.move_to_end(name)
        else:
            topic = self._empty.get(name)
            if topic is not None:
                self._empty.move_to_end(name)
            else:
                topic = _Topic(name, self._make_epoch())
                self._add_empty(topic)
        topic.used = now
        return topic

    def _add_empty(self, topic: _Topic) -> None:
        self._empty[topic.name] = topic
        while len(self._empty) > self._max_empty:
            oldest = next(iter(self._empty.values()))
            if oldest is topic:
                break
            self._forget(oldest)

    def _drop(self, topic: _Topic, count: int, now: float | None) -> None:
        """Drop the oldest `count` publications; `now` is None where the topic is to go, too."""
        if count == 0:
            return
        items, start = topic.items, topic.start
        for index in range(start, start + count):
            self.bytes -= PUBLICATION_COST + len(items[index].payload)
            items[index] = None
        topic.start = start = start + count
        if start == len(items):
            topic.items = []
            topic.start = 0
            self.bytes -= TOPIC_COST
            del self._kept[topic.name]
            if now is not None:
                topic.used = now
                self._add_empty(topic)
        elif start > 16 and start * 2 > len(items):
            del items[:start]
            topic.start = 0

    def _drop_expired(self, topic: _Topic, now: float, limit: int) -> int:
        """Drop publications, at most `limit`, whose time is over; answer how many."""
        if not topic.ttl:
            return 0
        until = (now - topic.ttl) * 1000
        items, start = topic.items, topic.start
        end = min(len(items), start + limit)
        index = start
        while index < end and items[index].timestamp <= until:
            index += 1
        if index > start:
            self._drop(topic, index - start, now)
            if self._forgot is not None:
                self._forgot(topic.name)
        return index - start

    def _forget(self, topic: _Topic) -> None:
        """Forget a topic without publications."""
        self._empty.pop(topic.name, None)
        if topic.due is not None:
            self._wheel.cancel(topic, topic.due)
            topic.due = None
        if self._forgot is not None:
            self._forgot(topic.name)

    def _schedule(self, topic: _Topic) -> None:
        """Look at a topic again when its oldest publication is too old."""
        until = topic.items[topic.start].timestamp / 1000 + topic.ttl
        topic.due = self._wheel.schedule(topic, int(until) + 1)
