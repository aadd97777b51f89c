"""A topic as a node hears it from Redis: each publication once, in order, without gaps.

Publications with positions are checked one by one. Where some are missing, those that follow wait
until the missing ones have been read from the history. No clock, no input or output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from realtime.errors import Unavailable
from realtime.model import HistoryPage, Position, Publication
from realtime.redis_keys import Message, decode_message

_log = Logger()

# Messages that wait for a repair; with more, they are forgotten, and read once more.
MAX_PENDING: Final = 1000


class Feed:
    """One topic. `on_gap` is called when something is missing, and has `repair` called."""

    __slots__ = (
        "_announce",
        "_deliver",
        "_older",
        "_on_gap",
        "_pending",
        "_waiting",
        "last",
        "mending",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        deliver: Callable[[Publication], object],
        announce: Callable[[str, bytes], object],
        on_gap: Callable[[Feed], object],
    ) -> None:
        self.topic = topic
        self._deliver = deliver
        self._announce = announce
        self._on_gap = on_gap
        # Up to where all has been delivered; None where nothing is known yet.
        self.last: Position | None = None
        # Whether what is missing is being read.
        self.mending = False
        self._pending: list[Message] = []
        # How many of them had come before the history was last asked, which has to have them.
        self._older = 0
        self._waiting: list[tuple[Position, Deferred[None]]] = []

    def take(self, channel: bytes, message: bytes) -> None:
        """Handle what has come on the topic's channel."""
        try:
            found = decode_message(self.topic, message)
        except ValueError as error:
            _log.error("What is no message came on {topic!r}: {why}", topic=self.topic, why=error)
            return
        if self.mending:
            if len(self._pending) == MAX_PENDING:
                self._forget_pending()
            self._pending.append(found)
        else:
            self._put(found)

    def _put(self, found: Message) -> None:
        if isinstance(found, bytes):
            self._announce(self.topic, found)
            return
        position, last = found.position, self.last
        if position is None:
            self._deliver(found)
            return
        if last is not None and position.epoch == last.epoch and position.offset <= last.offset:
            return
        if self._is_ahead(found):
            self._pending.append(found)
            self.mend()
            return
        self.last = position
        self._deliver(found)
        if self._waiting:
            self._settle()

    def mend(self) -> None:
        """Something is missing, or may be."""
        if not self.mending:
            self.mending = True
            self._older = 0
            self._on_gap(self)

    def reading(self) -> None:
        """The history is about to be asked for what is missing."""
        self._older = len(self._pending)

    def add(self, page: HistoryPage) -> bool:
        """Deliver what was read; answer whether that was all."""
        for publication in page.publications:
            position = publication.position
            if position is not None and not self.has(position):
                self.last = position
                self._deliver(publication)
        return self.has(page.position)

    def skip_to(self, position: Position) -> None:
        """What is missing up to a position cannot be had."""
        self.last = position

    def mended(self) -> bool:
        """Go on with what has come meanwhile, which may lack something once more.

        Answer whether something was heard that the history has lost, or has never had: to look
        for it again and again would find nothing.
        """
        self.mending = False
        astray = False
        older, pending = self._older, self._pending
        self._pending = []
        for index, found in enumerate(pending):
            if index < older and self._is_ahead(found):
                astray = True
                continue
            self._put(found)
            if self.mending:
                self._pending += pending[index + 1 :]
                break
        else:
            self._settle()
        return astray

    def _is_ahead(self, found: Message) -> bool:
        """Whether this is neither what comes next, nor has been delivered."""
        if isinstance(found, bytes) or found.position is None or self.last is None:
            return False
        position, last = found.position, self.last
        if position.epoch != last.epoch:
            return position.offset != 1
        return position.offset > last.offset + 1

    def not_mended(self) -> None:
        """What is missing could not be read; `mend` is to be called again."""
        self.mending = False
        self._forget_pending()
        self.give_up()

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._older = 0

    def has(self, position: Position) -> bool:
        """Whether all up to a position has been delivered."""
        last = self.last
        return position.offset == 0 or (
            last is not None and last.epoch == position.epoch and last.offset >= position.offset
        )

    def reach(self, position: Position) -> Deferred[None] | None:
        """Fires when all up to a position has been delivered; None where it has."""
        if self.has(position):
            return None
        reached: Deferred[None] = Deferred()
        self._waiting.append((position, reached))
        return reached

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a position."""
        return bool(self._waiting)

    def give_up(self) -> None:
        """Tell those who wait that they wait in vain."""
        waiting, self._waiting = self._waiting, []
        for _, reached in waiting:
            reached.errback(Unavailable("The broker is out of reach.", retry_after=1))

    def _settle(self) -> None:
        reached = [each for position, each in self._waiting if self.has(position)]
        self._waiting = [each for each in self._waiting if not self.has(each[0])]
        for each in reached:
            each.callback(None)
