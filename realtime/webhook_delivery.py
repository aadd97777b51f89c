"""The way of events to the webhook: queued, gathered into batches, posted again until taken.

One post is under way at a time, so events arrive in order; each arrives once or more often, or
is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from random import random
from secrets import token_hex
from typing import Final, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.errors import ConfigurationError, Unavailable
from realtime.metrics import Counters
from realtime.signed_post import NoAnswer, SignedPost, Watch

_log = Logger()
T = TypeVar("T")

# Bytes that may wait in memory.
MEMORY_BYTES: Final = 64 * 1024 * 1024
# Seconds that a post may take.
TIMEOUT: Final = 10.0
# What one post holds at most, and the seconds for which its events are gathered.
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 512 * 1024
BATCH_WAIT: Final = 0.1
# Seconds after which an event is not worth posting any more.
MAX_AGE: Final = 86400
# How often a batch may be rejected: answered, but neither taken nor put off.
MAX_REJECTIONS: Final = 25
# Seconds before a post is tried again: random, up to a limit that doubles from first to last.
FIRST_BACKOFF: Final = 1.0
LAST_BACKOFF: Final = 60.0
# Seconds for which a queue that has failed is left alone.
_REST: Final = 5.0
# Answers that ask to try again: request timeout, too early, too many requests.
_LATER: Final = (408, 425, 429)


class Event(NamedTuple):
    """A JSON object, and when it came to be in Unix seconds."""

    at: float
    body: bytes


class Queue(Protocol):
    """Events that wait, oldest first. One call of a method at a time, `add` apart."""

    durable: bool

    async def open(self) -> tuple[int, int]:
        """Answer how many events wait from an earlier run, and their bytes."""

    async def add(self, events: Sequence[Event]) -> None:
        """Append events; raises `Unavailable` when that cannot be done now."""

    async def first(self, count: int, size: int) -> list[Event]:
        """At most `count` of the oldest, of `size` bytes together; one at least if there is any."""

    async def remove(self) -> None:
        """Remove what `first` has given last."""

    async def close(self) -> None:
        """Take and give nothing more."""


class MemoryQueue:
    """A `Queue` that goes with the process."""

    durable = False

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._given = 0

    async def open(self) -> tuple[int, int]:
        """See `Queue.open`."""
        return 0, 0

    async def add(self, events: Sequence[Event]) -> None:
        """See `Queue.add`."""
        self._events.extend(events)

    async def first(self, count: int, size: int) -> list[Event]:
        """See `Queue.first`."""
        found = fitting(islice(self._events, count), size)
        self._given = len(found)
        return found

    async def remove(self) -> None:
        """See `Queue.remove`."""
        for _ in range(self._given):
            self._events.popleft()
        self._given = 0

    async def close(self) -> None:
        """See `Queue.close`."""


def fitting(events: Iterable[Event], size: int) -> list[Event]:
    """The first of some events: as many as `size` bytes hold, and one at least."""
    found: list[Event] = []
    for event in events:
        size -= len(event.body)
        if size < 0 and found:
            break
        found.append(event)
    return found


class _Pause:
    """A wait that can be cut short."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._timer: IDelayedCall | None = None

    async def wait(self, seconds: float) -> None:
        """Return after some seconds."""
        over: Deferred[None] = Deferred()
        self._timer = timer = self._clock.callLater(seconds, over.callback, None)
        try:
            await over
        finally:
            self._timer = None
            if timer.active():
                timer.cancel()

    def end(self) -> None:
        """Let it be over at the turn's end."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)


class Delivery:
    """Takes events, and brings them to the receiver. Usable between `open` and `stop`."""

    def __init__(
        self,
        queue: Queue,
        post: SignedPost,
        counters: Counters,
        clock: IReactorTime,
        *,
        max_events: int,
        max_bytes: int,
        random: Callable[[], float] = random,
    ) -> None:
        self._queue = queue
        self._post = post
        self._counters = counters
        self._clock = clock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._random = random
        self._watch = Watch("webhook", post.receiver, clock)
        # All that wait, and those of them that the queue holds.
        self._waiting = self._bytes = self._stored = 0
        self._new: list[Event] = []
        self._failures = 0
        self._dropping = False
        self._storing: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None
        self._gathering = _Pause(clock)
        self._backoff = _Pause(clock)
        self._queue_rests = (_Pause(clock), _Pause(clock))
        self._usable = False
        self._stopping = False

    async def open(self) -> None:
        """Take up what an earlier run has left; raises `ConfigurationError`."""
        self._stored, self._bytes = await self._queue.open()
        self._usable = True
        self._count(self._stored)
        if self._stored:
            _log.info("{count} events wait for the webhook", count=self._stored)
        self._send()

    def put(self, body: bytes) -> None:
        """Take an event, or drop it where there is no room."""
        if not self._usable or self._stopping:
            return
        if self._waiting >= self._max_events or self._bytes + len(body) > self._max_bytes:
            self._counters.limit("webhook-queue-size")
            self.drop(1, "too many wait")
            return
        self._bytes += len(body)
        self._count(1)
        self._new.append(Event(self._clock.seconds(), body))
        if self._storing is None:
            # At the turn's end, with all that the turn has brought.
            self._storing = Deferred()
            self._clock.callLater(0, self._store)

    async def stop(self, seconds: float) -> None:
        """Take nothing more, post what waits, for so many seconds and while that succeeds."""
        if self._stopping or not self._usable:
            return
        self._stopping = True
        for pause in (self._gathering, self._backoff, *self._queue_rests):
            pause.end()
        if self._storing is not None:
            await self._storing
        self._send()
        if self._sending is not None:
            timer = self._clock.callLater(seconds, self._sending.cancel)
            await self._sending
            if timer.active():
                timer.cancel()
        if self._waiting and not self._queue.durable:
            self.drop(self._waiting, "the server stops")
            self._count(-self._waiting)
        await self._queue.close()

    def drop(self, count: int, why: str) -> None:
        """Count events that will not arrive, and say so once until all is well again."""
        self._counters.webhook_dropped += count
        if not self._dropping:
            self._dropping = True
            _log.warn("Events for the webhook are dropped: {why}", why=why)

    def _count(self, more: int) -> None:
        self._waiting += more
        self._counters.webhook_queue = self._waiting

    def _broke(self, failure: Failure) -> None:
        if not (self._stopping and isinstance(failure.value, CancelledError | Unavailable)):
            _log.failure("Delivering to the webhook failed", failure)

    async def _surely(self, step: Callable[[], Awaitable[T]], rest: _Pause) -> T:
        """Do something with the queue, again until it succeeds."""
        while True:
            try:
                return await step()
            except (Unavailable, ConfigurationError):  # It has been logged why.
                if self._stopping:
                    raise
                await rest.wait(_REST)

    # -- into the queue ------------------------------------------------------------------------

    def _store(self) -> None:
        storing = Deferred.fromCoroutine(self._store_all())
        storing.addErrback(self._broke).addBoth(self._has_stored)

    async def _store_all(self) -> None:
        while self._new:
            events, self._new = self._new, []
            try:
                await self._surely(partial(self._queue.add, events), self._queue_rests[0])
            except BaseException:
                events += self._new
                self._new = []
                self._forget(events)
                self.drop(len(events), "they could not be stored")
                raise
            self._stored += len(events)
            self._send()

    def _has_stored(self, _: object) -> None:
        done, self._storing = self._storing, None
        if done is not None:
            done.callback(None)

    def _forget(self, events: Sequence[Event]) -> None:
        self._bytes -= sum(len(event.body) for event in events)
        self._count(-len(events))

    # -- to the receiver -----------------------------------------------------------------------

    def _send(self) -> None:
        """See that what is stored is being posted."""
        if self._stored >= BATCH_EVENTS:
            self._gathering.end()
        if self._sending is None and self._stored:
            sending = Deferred.fromCoroutine(self._post_all())
            self._sending = sending
            sending.addErrback(self._broke).addBoth(self._has_sent)

    def _has_sent(self, _: object) -> None:
        self._sending = None

    async def _post_all(self) -> None:
        rest = self._queue_rests[1]
        while self._stored:
            await self._gathering.wait(
                0 if self._stopping or self._stored >= BATCH_EVENTS else BATCH_WAIT
            )
            batch = await self._surely(partial(self._queue.first, BATCH_EVENTS, BATCH_BYTES), rest)
            if not await self._post_batch(batch):
                return
            await self._surely(self._queue.remove, rest)
            self._stored -= len(batch)
            self._forget(batch)
        self._dropping = False

    async def _post_batch(self, batch: list[Event]) -> bool:
        """Post a batch until it is taken or given up; False where it is kept for the next run."""
        body = b'{"events":[%b]}' % b",".join(event.body for event in batch)
        delivery = token_hex(16)
        rejections = 0
        while batch[-1].at > self._clock.seconds() - MAX_AGE:
            try:
                status = (await self._post.send(body, delivery)).status
                problem = f"HTTP status {status}"
            except NoAnswer as error:
                status, problem = 0, str(error)
            if 200 <= status < 300:
                self._failures = 0
                self._watch.worked()
                self._counters.webhook_events += len(batch)
                return True
            self._counters.webhook_failures += 1
            self._watch.failed(problem)
            if self._stopping:
                return False
            if 0 < status < 500 and status not in _LATER:
                rejections += 1
                if rejections == MAX_REJECTIONS:
                    self.drop(len(batch), "it rejects them")
                    return True
            limit = min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(self._failures, 16))
            self._failures += 1
            await self._backoff.wait(self._random() * limit)
        self.drop(len(batch), "they are too old")
        return True
