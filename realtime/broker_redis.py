"""The broker of many nodes: Redis carries what is published, and keeps the histories.

A node hears the channels of the topics that it has subscribers to. It checks the positions of what
it hears, at once, whenever a link was lost, and now and then all the same; what is missing it reads
from the history and delivers in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realtime.errors import Unavailable
from realtime.interfaces import IBroker
from realtime.metrics import Counters
from realtime.model import HistoryPage, Namespace, Position, Publication
from realtime.patterns import PatternIndex
from realtime.redis_client import Redis, RedisRefused
from realtime.redis_feeds import Feed
from realtime.redis_history import RedisHistories
from realtime.redis_keys import ANNOUNCEMENT, Keys, decode_message
from realtime.redis_ring import Ring
from realtime.topics import is_pattern

_log = Logger()

# Seconds between checks of all positions, and for which a publication may be on its way.
CHECK_SECONDS: Final = 20
ON_ITS_WAY_SECONDS: Final = 1.0
# Topics that are checked by one script.
CHECKED_AT_ONCE: Final = 500


@implementer(IBroker)
class RedisBroker:
    """See `IBroker`. Everything that needs Redis answers Deferreds, which may fail.

    `namespace_of` says what holds for a topic. `on_lost` is called with a topic of which
    publications were lost for good, and with a pattern of whose topics some may have been.
    """

    remote = True

    def __init__(
        self,
        ring: Ring,
        keys: Keys,
        clock: IReactorTime,
        counters: Counters,
        namespace_of: Callable[[str], Namespace | None],
        on_lost: Callable[[str], object],
    ) -> None:
        self._ring = ring
        self._keys = keys
        self._clock = clock
        self._counters = counters
        self._namespace_of = namespace_of
        self._on_lost = on_lost
        self._deliver: Callable[[Publication], object] = _not_started
        self._announce: Callable[[str, bytes], object] = _not_started
        self._tell_accepted: Callable[[Publication], object] | None = None
        self._histories = RedisHistories(ring, keys, clock.seconds)
        self._feeds: dict[str, Feed] = {}
        # Globs of patterns: several patterns may have the same.
        self._globs: dict[bytes, set[str]] = {}
        self._index: PatternIndex[bytes] = PatternIndex()
        self._next_check = 0.0
        self._stopped = False
        for redis in ring.all:
            redis.when_up(partial(self._came_back, redis))
            redis.when_down(partial(self._went, redis))

    def start(
        self,
        deliver: Callable[[Publication], object],
        announce: Callable[[str, bytes], object],
        accepted: Callable[[Publication], object] | None = None,
    ) -> None:
        """See `IBroker.start`. What Redis may have taken unheard is not told as accepted."""
        self._tell_accepted = accepted
        self._deliver = deliver
        self._announce = announce

    @property
    def up(self) -> bool:
        """Whether all servers are there."""
        return self._ring.up

    # -- publishing --------------------------------------------------------------------------

    def publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Deferred[Position | None]:
        """Fires when Redis has taken it. After `Unavailable` nobody knows whether it has."""
        accepted = self._histories.publish(publication, namespace, key)
        return accepted.addCallbacks(
            self._accepted, self._refused, callbackArgs=(publication, self._clock.seconds())
        )

    def _accepted(
        self, taken: tuple[Position | None, bool], publication: Publication, since: float
    ) -> Position | None:
        position, is_new = taken
        self._counters.broker_publications += 1
        self._counters.broker_seconds += self._clock.seconds() - since
        if is_new and self._tell_accepted is not None:
            self._tell_accepted(replace(publication, position=position))
        return position

    def _refused(self, failure: Failure) -> Failure:
        self._counters.broker_failures += 1
        return _unavailable(failure)

    def announce(self, topic: str, message: bytes) -> None:
        """Carried if Redis is there."""
        told = self._ring.of(topic).command(
            "PUBLISH", self._keys.channel(topic), ANNOUNCEMENT + message
        )
        told.addErrback(_unavailable).addErrback(lambda _: None)

    # -- hearing -----------------------------------------------------------------------------

    def subscribe(self, topic: str) -> Deferred[None] | None:
        """Fires when the topic or pattern is heard; None where it is already.

        To be called for each subscriber, and undone once.
        """
        if is_pattern(topic):
            return self._subscribe_to_pattern(topic)
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = Feed(topic, self._deliver, self._announce, self._mend)
        return self._ring.of(topic).subscribe(self._keys.channel(topic), feed.take)

    def unsubscribe(self, topic: str) -> None:
        """See `IBroker.unsubscribe`."""
        if is_pattern(topic):
            self._unsubscribe_from_pattern(topic)
            return
        feed = self._feeds.pop(topic, None)
        if feed is not None:
            self._ring.of(topic).unsubscribe(self._keys.channel(topic))
            feed.give_up()

    def _subscribe_to_pattern(self, pattern: str) -> Deferred[None] | None:
        glob = self._keys.glob(pattern)
        self._globs.setdefault(glob, set()).add(pattern)
        self._index.add(pattern, glob)
        waiting = []
        for redis in self._ring.all:
            heard = redis.subscribe_pattern(glob, partial(self._take_of_glob, redis, glob))
            if heard is not None:
                waiting.append(heard)
        return _all(waiting) if waiting else None

    def _unsubscribe_from_pattern(self, pattern: str) -> None:
        glob = self._keys.glob(pattern)
        patterns = self._globs.get(glob, set())
        if pattern not in patterns:
            return
        patterns.remove(pattern)
        self._index.remove(pattern)
        if not patterns:
            del self._globs[glob]
            for redis in self._ring.all:
                redis.unsubscribe_pattern(glob)

    def _take_of_glob(self, redis: Redis, glob: bytes, channel: bytes, message: bytes) -> None:
        """Deliver what no other subscription of this node brings, too."""
        if redis.hears(channel):
            return
        try:
            topic = self._keys.topic(channel)
            heard = {each for each in self._index.match(topic) if redis.hears_pattern(each)}
            if not heard or min(heard) != glob:
                return
            found = decode_message(topic, message)
        except ValueError as error:
            _log.error("What is no message came on {channel!r}: {why}", channel=channel, why=error)
            return
        if isinstance(found, bytes):
            self._announce(topic, found)
        else:
            self._deliver(found)

    # -- histories ---------------------------------------------------------------------------

    def history(
        self,
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> Deferred[HistoryPage | None]:
        """See `IBroker.history`: where the topic is heard, what a page has was delivered before."""
        page = Deferred.fromCoroutine(self._history(topic, namespace, since, limit, reverse))
        return page.addErrback(_unavailable)

    async def _history(
        self,
        topic: str,
        namespace: Namespace,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> HistoryPage | None:
        if not namespace.history_size:
            return None
        feed = self._feeds.get(topic)
        if feed is not None:
            heard = self.subscribe(topic)
            if heard is not None:
                await heard
        page = await self._histories.read(
            topic, namespace, since=since, limit=limit, reverse=reverse
        )
        if feed is not None and page is not None and self._feeds.get(topic) is feed:
            if feed.last is None:
                feed.skip_to(page.position)
            reached = feed.reach(page.position)
            if reached is not None:
                self._clock.callLater(ON_ITS_WAY_SECONDS, self._look_after, feed)
                await reached
        return page

    def remove_history(self, topic: str) -> Deferred[None]:
        """See `IBroker.remove_history`."""
        return self._histories.remove(topic).addErrback(_unavailable)

    # -- missing publications ----------------------------------------------------------------

    def advance(self, now: float) -> bool:
        """Check the positions of all topics now and then; to be called once a second."""
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            for redis in self._ring.all:
                self._check(redis, after_loss=False)
        return True

    async def stop(self) -> None:
        """Check nothing more."""
        self._stopped = True

    def _came_back(self, redis: Redis) -> None:
        self._counters.broker_reconnects += redis.reconnects > 0
        if redis.reconnects > 0:
            self._check(redis, after_loss=True)
            for patterns in self._globs.values():
                for pattern in patterns:
                    self._on_lost(pattern)

    def _went(self, redis: Redis) -> None:
        for topic, feed in self._feeds.items():
            if self._ring.of(topic) is redis:
                feed.give_up()

    def _check(self, redis: Redis, *, after_loss: bool) -> None:
        checked = Deferred.fromCoroutine(self._check_all(redis, after_loss))
        checked.addErrback(self._not_checked)

    def _not_checked(self, failure: Failure) -> None:
        # When Redis is back, all is checked again.
        if not isinstance(failure.value, Unavailable):
            _log.failure("Positions could not be checked", failure)

    async def _check_all(self, redis: Redis, after_loss: bool) -> None:
        feeds = [
            feed
            for topic, feed in self._feeds.items()
            if feed.last is not None and self._ring.of(topic) is redis
        ]
        for start in range(0, len(feeds), CHECKED_AT_ONCE):
            part = feeds[start : start + CHECKED_AT_ONCE]
            before = [feed.last for feed in part]
            tops = await self._histories.tops(redis, [feed.topic for feed in part])
            behind = []
            for feed, last, top in zip(part, before, tops, strict=True):
                if last is None or self._feeds.get(feed.topic) is not feed:
                    continue
                if top is None or (top.epoch != last.epoch and not top.offset):
                    # The history has gone: was it removed, or has Redis lost it unheard?
                    if after_loss:
                        feed.last = top
                        self._lose(feed.topic)
                elif top.epoch == last.epoch and top.offset < last.offset:
                    # Redis has lost what it had acknowledged.
                    await self._histories.restart(feed.topic, last)
                    behind.append((feed, top))
                elif not feed.has(top):
                    behind.append((feed, top))
            if behind and not self._stopped:
                patience = 0.0 if after_loss else ON_ITS_WAY_SECONDS
                self._clock.callLater(patience, self._mend_those_behind, behind)

    def _mend_those_behind(self, behind: Sequence[tuple[Feed, Position]]) -> None:
        for feed, top in behind:
            last = feed.last
            regressed = last is not None and last.epoch == top.epoch and last.offset > top.offset
            if regressed or not feed.has(top):
                feed.mend()

    def _look_after(self, feed: Feed) -> None:
        """Mend a topic of which something is on its way for too long."""
        if feed.is_awaited and not self._stopped:
            feed.mend()

    def _mend(self, feed: Feed) -> None:
        mended = Deferred.fromCoroutine(self._read_missing(feed))
        mended.addCallback(self._mended, feed).addErrback(self._not_mended, feed)

    def _mended(self, _: None, feed: Feed) -> None:
        # Who has left meanwhile, and come back, has another.
        if self._feeds.get(feed.topic) is feed and feed.mended():
            self._lose(feed.topic)

    def _not_mended(self, failure: Failure, feed: Feed) -> None:
        self._not_checked(failure)
        feed.not_mended()

    async def _read_missing(self, feed: Feed) -> None:
        """Deliver what is missing between what has been delivered and what there is."""
        topic = feed.topic
        namespace = self._namespace_of(topic)
        if namespace is None or not namespace.history_size or feed.last is None:
            feed.last = None
            return
        self._counters.broker_repairs += 1
        while self._feeds.get(topic) is feed:
            since = feed.last
            feed.reading()
            page = await self._histories.read(topic, namespace, since=since, limit=None)
            if self._feeds.get(topic) is not feed:
                return
            if page is None:
                feed.reading()
                newest = await self._histories.read(topic, namespace, since=None, limit=0)
                if newest is not None:
                    feed.skip_to(newest.position)
                self._lose(topic)
                return
            if feed.add(page):
                return

    def _lose(self, topic: str) -> None:
        self._counters.broker_losses += 1
        _log.warn("Publications on {topic!r} may be lost: its history is gone", topic=topic)
        self._on_lost(topic)


def _all(waiting: Sequence[Deferred[None]]) -> Deferred[None]:
    """Fires when all of them have; fails when one does."""
    return Deferred.fromCoroutine(_each(waiting))


async def _each(waiting: Sequence[Deferred[None]]) -> None:
    problem: Unavailable | None = None
    for each in waiting:
        try:
            await each
        except Unavailable as error:
            problem = error
    if problem is not None:
        raise problem


def _unavailable(failure: Failure) -> Failure:
    """What Redis refuses is the operator's to see, and for clients the same as if it were away."""
    if isinstance(failure.value, RedisRefused):
        raise Unavailable("The broker does not take this now.") from None
    return failure


def _not_started(*_: Any) -> None:
    raise RuntimeError("publish before start")
