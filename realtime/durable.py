"""Durable topics: what is published on them is delivered once the journal has it.

Commits are grouped: what comes while the journal writes is its next batch. Offsets are given when
a batch goes to the journal, of which one is on its way at a time; so they have no gaps, and a
batch that fails leaves no trace on what waits behind it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.errors import Unavailable
from realtime.history import Changes, Histories, Journal, KeyState, TopicState
from realtime.idempotency import Keys, Scope
from realtime.interfaces import KEY_TTL
from realtime.model import Namespace, Position, Publication

_log = Logger()

# Bounds of what one commit holds, so that delivering it takes some milliseconds.
BATCH: Final = 500
BATCH_BYTES: Final = 1024 * 1024
# Bounds of what may wait for its commit.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
# What the histories may take in memory, where all of them are.
MAX_BYTES: Final = 1024 * 1024 * 1024

Accepted: TypeAlias = "Deferred[Position | None]"
Deliver: TypeAlias = Callable[[Publication], object]
Announce: TypeAlias = Callable[[str, bytes], object]


@dataclass(slots=True)
class _Item:
    """What waits in the queue."""

    topic: str
    size: int


@dataclass(slots=True)
class _Publish(_Item):
    """A publication that waits for its commit."""

    publication: Publication
    payload: bytes
    namespace: Namespace
    scope: Scope | None
    accepted: Accepted


@dataclass(slots=True)
class _Remove(_Item):
    """A topic that is to be forgotten, after what was accepted before."""

    removed: Deferred[None]


@dataclass(slots=True)
class _Announce(_Item):
    """A message that is to follow what was accepted before."""

    message: bytes


class DurableTopics:
    """Publications that wait for their commit, and the histories of those that are committed.

    `keys` are the broker's; `seconds` is Unix time. Usable between `open` and `stop`.
    """

    def __init__(
        self,
        journal: Journal,
        make_epoch: Callable[[], str],
        keys: Keys[Position | None, Accepted],
        seconds: Callable[[], float],
        *,
        max_bytes: int,
        max_waiting: int,
    ) -> None:
        self._journal = journal
        self._keys = keys
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        # Topics of which the journal holds what is no longer there.
        self._behind: dict[str, None] = {}
        # Unbounded: what was acknowledged does not go to make room for another topic.
        self.histories = Histories(make_epoch, max_bytes=None, forgot=self._fall_behind)
        self._queue: deque[_Item] = deque()
        # How much waits or is being written, by topic and in all.
        self._waiting: dict[str, int] = {}
        self._waiting_count = 0
        self._waiting_bytes = 0
        self._usable = False
        self._writing = False
        # After a failure the journal is left alone until the next second.
        self._resting = False
        self._stopped: Deferred[None] | None = None
        self._deliver: Deliver
        self._announce: Announce

    def start(self, deliver: Deliver, announce: Announce) -> None:
        """Say where to what is committed goes, and announcements."""
        self._deliver = deliver
        self._announce = announce

    async def open(
        self, namespace_of: Callable[[str], Namespace | None], others: Histories
    ) -> None:
        """Read the journal; raises `ConfigurationError`.

        A topic that `namespace_of` says is no longer durable goes to `others`, if it still has
        a history, and leaves the journal.
        """
        started = time.monotonic()
        await self._journal.open()
        try:
            kept, topics = await self._load(namespace_of, others, self._seconds())
        except BaseException:
            await self._journal.close()
            raise
        self._usable = True
        _log.info(
            "Recovered {kept} publications of {topics} durable topics in {seconds:.2f} s",
            kept=kept,
            topics=topics,
            seconds=time.monotonic() - started,
        )
        self._write_next()

    async def _load(
        self, namespace_of: Callable[[str], Namespace | None], others: Histories, now: float
    ) -> tuple[int, int]:
        """Take in the journal by portions; answer how many publications and topics are kept."""
        places: dict[str, tuple[Histories | None, Namespace]] = {}
        read: dict[str, int] = {}

        def place(topic: str) -> tuple[Histories | None, Namespace]:
            namespace = namespace_of(topic)
            if namespace is None or not namespace.history_size:
                return None, Namespace(topic)
            return self.histories if namespace.durable else others, namespace

        after: int | None = 0
        while after is not None:
            publications, after = await self._journal.publications(after)
            for publication in publications:
                topic = publication.topic
                if topic not in places:
                    places[topic] = place(topic)
                histories, namespace = places[topic]
                read[topic] = read.get(topic, 0) + 1
                if histories is not None:
                    histories.append(publication, namespace, now)
        kept = topics = dropped = 0
        after = 0
        while after is not None:
            states, after = await self._journal.topics(after)
            for state in states:
                topic = state.topic
                histories, namespace = places.get(topic) or place(topic)
                if histories is not None:
                    histories.settle(topic, Position(state.top, state.epoch), now)
                    histories.page(topic, namespace, now, limit=0)  # drops what is too old
                found = self.histories.known(topic)
                if found is None:
                    dropped += 1
                    self._fall_behind(topic)
                    continue
                topics += 1
                kept += found.top - found.first + 1
                if read.get(topic, 0) != found.top - found.first + 1:
                    self._fall_behind(topic)
        if dropped:
            _log.warn("{dropped} topics of the journal are not durable now", dropped=dropped)
        after = 0
        while after is not None:
            keys, after = await self._journal.keys(after, now - KEY_TTL)
            for key in keys:
                self._keys.done(key.scope, key.position, key.at)
        return kept, topics

    # -- what the broker asks for ------------------------------------------------------------

    def publish(
        self, publication: Publication, namespace: Namespace, scope: Scope | None
    ) -> Accepted:
        """Take a publication, whose key is new or under way; raises `Unavailable`."""
        self._check_room()
        accepted: Accepted = Deferred()
        if scope is not None:
            same = self._keys.waiting(scope)
            if same is not None:
                self._waiting_count += 1
                same.append(accepted)
                return accepted
        if self.histories.bytes >= self._max_bytes:
            raise Unavailable("The histories of durable topics are full.")
        if scope is not None:
            self._keys.begin(scope)
        # A copy, as a view would keep all of the message that was received.
        payload = bytes(publication.payload)
        item = _Publish(
            publication.topic, len(payload), publication, payload, namespace, scope, accepted
        )
        self._add(item)
        self._write_next()
        return accepted

    def announce(self, topic: str, message: bytes) -> None:
        """Announce at once, or after the publications of the topic that wait."""
        if topic in self._waiting:
            self._add(_Announce(topic, len(message), message))
        else:
            self._announce(topic, message)

    def remove(self, topic: str) -> Deferred[None] | None:
        """Forget a topic; raises, or fails with, `Unavailable`. None where it is not known."""
        if topic not in self.histories and topic not in self._waiting:
            return None
        self._check_room()
        removed: Deferred[None] = Deferred()
        self._add(_Remove(topic, 0, removed))
        self._write_next()
        return removed

    def advance(self, now: float) -> bool:
        """Forget what is too old, some of it; answer whether that was all."""
        done = self.histories.expire(now)
        self._resting = False
        self._write_next()
        return done

    async def stop(self) -> None:
        """Take nothing more, write what waits, and close the journal. May be called twice."""
        if self._stopped is not None:
            return
        self._stopped = Deferred()
        self._resting = False
        if self._usable:
            self._write_next()
            await self._stopped
            self._usable = False
            await self._journal.close()

    # -- the queue -----------------------------------------------------------------------------

    def _fall_behind(self, topic: str) -> None:
        self._behind[topic] = None

    def _check_room(self) -> None:
        if not self._usable or self._stopped is not None:
            raise Unavailable("Durable topics are not available at present.")
        if self._waiting_count >= self._max_waiting or self._waiting_bytes >= MAX_WAITING_BYTES:
            raise Unavailable("Too many publications wait to be written.", retry_after=1)

    def _add(self, item: _Item) -> None:
        self._queue.append(item)
        self._waiting[item.topic] = self._waiting.get(item.topic, 0) + 1
        self._waiting_count += 1
        self._waiting_bytes += item.size

    def _done_with(self, item: _Item) -> None:
        left = self._waiting.pop(item.topic) - 1
        if left:
            self._waiting[item.topic] = left
        self._waiting_count -= 1
        self._waiting_bytes -= item.size

    def _write_next(self) -> None:
        """Give the journal what has come since it was given something, unless it writes."""
        if self._writing or self._resting or not self._usable:
            return
        batch, changes = self._take()
        if batch or changes.forgotten or changes.topics:
            self._writing = True
            written = Deferred.fromCoroutine(self._journal.write(changes))
            written.addCallbacks(
                self._written, self._failed, callbackArgs=(batch,), errbackArgs=(batch, changes)
            )
            written.addErrback(lambda failure: _log.failure("Committing failed", failure))
            written.addCallback(self._go_on)
        elif self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _take(self) -> tuple[list[_Item], Changes]:
        """Take a batch off the queue; publications get their positions."""
        now = self._seconds()
        changes = Changes(keys_from=now - KEY_TTL)
        states: dict[str, TopicState] = {}
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < BATCH and size < BATCH_BYTES:
            item = self._queue[0]
            if isinstance(item, _Remove):
                if batch:
                    break  # What was accepted before it comes before it.
                changes.forgotten.append(item.topic)
            elif isinstance(item, _Publish):
                self._place(item, states, changes, now)
            batch.append(self._queue.popleft())
            size += item.size
            if changes.forgotten:
                break
        for topic in list(islice(self._behind, BATCH)):
            del self._behind[topic]
            if topic in states or topic in changes.forgotten:
                continue
            state = self.histories.known(topic)
            if state is None or state.top == 0:
                changes.forgotten.append(topic)
            else:
                changes.topics.append(state)
        changes.topics.extend(states.values())
        return batch, changes

    def _place(
        self, item: _Publish, states: dict[str, TopicState], changes: Changes, now: float
    ) -> None:
        """Give a publication the next position of its topic."""
        state = states.get(item.topic) or self.histories.state(item.topic, now)
        offset = state.top + 1
        first = max(state.first, offset - item.namespace.history_size + 1)
        states[item.topic] = TopicState(state.topic, state.epoch, offset, first)
        position = Position(offset, state.epoch)
        old = item.publication
        item.publication = Publication(
            state.topic, item.payload, old.from_user, old.timestamp, position, old.exclude
        )
        changes.publications.append(item.publication)
        if item.scope is not None:
            changes.keys.append(KeyState(item.scope, position, now))

    def _written(self, _: object, batch: list[_Item]) -> None:
        """Deliver what is committed, in order."""
        now = self._seconds()
        for item in batch:
            self._done_with(item)
            if isinstance(item, _Publish):
                publication = self.histories.append(item.publication, item.namespace, now)
                same: list[Accepted] = []
                if item.scope is not None:
                    same = self._keys.done(item.scope, publication.position, now)
                    self._waiting_count -= len(same)
                _guarded(self._deliver, publication)
                for accepted in (item.accepted, *same):
                    accepted.callback(publication.position)
            elif isinstance(item, _Remove):
                self.histories.remove(item.topic)
                self._behind.pop(item.topic, None)
                item.removed.callback(None)
            elif isinstance(item, _Announce):
                _guarded(self._announce, item.topic, item.message)

    def _failed(self, failure: Failure, batch: list[_Item], changes: Changes) -> None:
        """Tell those whose publications were not taken; nothing of them is delivered."""
        problem = "Durable topics cannot be written at present."
        if not isinstance(failure.value, Unavailable):
            _log.failure("The journal failed", failure)
        if self._stopped is None:
            self._resting = True
            self._behind |= dict.fromkeys(changes.forgotten)
            self._behind |= dict.fromkeys(state.topic for state in changes.topics)
        for item in batch:
            self._done_with(item)
            if isinstance(item, _Publish):
                same = [] if item.scope is None else self._keys.failed(item.scope)
                self._waiting_count -= len(same)
                for accepted in (item.accepted, *same):
                    accepted.errback(Unavailable(problem))
            elif isinstance(item, _Remove):
                item.removed.errback(Unavailable(problem))
            elif isinstance(item, _Announce):
                _guarded(self._announce, item.topic, item.message)

    def _go_on(self, _: object) -> None:
        self._writing = False
        self._write_next()


def _guarded(function: Callable[..., object], *args: Any) -> None:
    """Call what must not keep the rest of a batch from being delivered."""
    try:
        function(*args)
    except Exception:
        _log.failure("A committed publication could not be delivered")
