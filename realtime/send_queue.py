"""What waits to be sent on a transport of any kind, while its client reads slowly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from realtime.metrics import Counters
from realtime.model import Piece

# Bytes handed to the transport at once; it asks for more when these are sent.
CHUNK = 64 * 1024
# Bytes that keeping a piece which may be dropped takes beside its own.
OVERHEAD = 256


@implementer(IPushProducer)
class SendQueue:
    """Keeps, in order, what a transport does not take, up to `limit` bytes.

    The transport says when it does not: it has 64 KiB of its own then. Pieces of topics that allow
    it are dropped where there is no room, the oldest first, or as soon as there is a newer one.
    """

    __slots__ = (
        *("_counters", "_droppable", "_ended", "_free", "_last", "_last_size", "_limit"),
        *("_newest", "_number", "_paused", "_waiting", "_write"),
    )

    def __init__(self, write: Callable[[bytes], object], limit: int, counters: Counters) -> None:
        self._write = write
        self._counters = counters
        self._limit = self._free = limit
        self._paused = self._ended = False
        # Frames by their place in the order. Those that must be sent share one with their like,
        # up to a chunk.
        self._waiting: OrderedDict[int, list[bytes]] = OrderedDict()
        self._number = 0
        self._last: list[bytes] | None = None
        self._last_size = 0
        # The places that may be dropped, with the topic of which only the newest is kept.
        self._droppable: OrderedDict[int, str | None] = OrderedDict()
        self._newest: dict[str, int] = {}

    @property
    def size(self) -> int:
        """The bytes that wait, with what keeping them takes."""
        return self._limit - self._free

    @property
    def is_waiting(self) -> bool:
        """Whether the transport takes nothing now."""
        return self._paused

    def send(self, data: bytes) -> int:
        """Write to the transport; answer how many bytes it has taken, which is all or none."""
        if self._paused:
            return 0
        self._write(data)
        return len(data)

    def add(self, data: bytes, sent: int = 0, pieces: Sequence[Piece] = ()) -> bool:
        """Keep what was not `sent` of `data`; answer whether there is room for it.

        `pieces` are what `data` consists of, where some of it may be dropped.
        """
        return all(
            self.send(piece.frames) or self._keep(piece)
            for piece in _unsent(pieces or [Piece(data)], sent)
        )

    def end(self, keep: bool) -> None:
        """Write all that waits, or forget it; from now on all is written at once."""
        if keep:
            while self._waiting:
                self._write(self._take())
        self._forget()
        self._paused = False
        self._ended = True

    # -- IPushProducer -----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport's buffer has filled."""
        self._paused = not self._ended

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._paused = False
        while self._waiting and not self._paused:
            self._write(self._take())

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._forget()

    # -- what waits --------------------------------------------------------------------------

    def _keep(self, piece: Piece) -> bool:
        frames, topic, newest_only = piece
        if topic is None:
            if not self._make_room(len(frames)):
                return False
            if self._last is None or self._last_size > CHUNK:
                self._last, self._last_size = self._append([]), 0
            self._last.append(frames)
            self._last_size += len(frames)
            return True
        if newest_only and topic in self._newest:
            self._drop(self._newest[topic])
        if not self._make_room(len(frames) + OVERHEAD):
            self._counters.dropped_publications += 1
            return True
        self._append([frames])
        self._last = None
        self._droppable[self._number] = topic if newest_only else None
        if newest_only:
            self._newest[topic] = self._number
        return True

    def _append(self, frames: list[bytes]) -> list[bytes]:
        self._number += 1
        self._waiting[self._number] = frames
        return frames

    def _make_room(self, size: int) -> bool:
        """Drop what may be dropped until so much fits, and account for that."""
        while size > self._free:
            if not self._droppable:
                return False
            self._drop(next(iter(self._droppable)))
        self._free -= size
        return True

    def _drop(self, number: int) -> None:
        self._forget_droppable(number)
        (frames,) = self._waiting.pop(number)
        self._free += len(frames) + OVERHEAD
        self._counters.dropped_publications += 1

    def _forget_droppable(self, number: int) -> None:
        topic = self._droppable.pop(number)
        if topic is not None:
            del self._newest[topic]

    def _take(self) -> bytes:
        """Take off what is first: a little more than a chunk, so that the transport asks again."""
        taken: list[bytes] = []
        size = 0
        while self._waiting and size <= CHUNK:
            number, frames = self._waiting.popitem(last=False)
            taken += frames
            size += sum(map(len, frames))
            if number in self._droppable:
                self._forget_droppable(number)
                self._free += OVERHEAD
        if not self._waiting:
            self._last = None
        self._free += size
        return b"".join(taken)

    def _forget(self) -> None:
        self._waiting.clear()
        self._droppable.clear()
        self._newest.clear()
        self._last = None


def _unsent(pieces: Sequence[Piece], sent: int) -> Iterator[Piece]:
    """What is left of pieces; one of which a part is sent must be sent to its end."""
    for piece in pieces:
        size = len(piece.frames)
        if sent <= 0:
            yield piece
        elif sent < size:
            yield Piece(piece.frames[sent:])
        sent -= size
