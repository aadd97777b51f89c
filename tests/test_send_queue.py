"""What waits for clients that read slowly: the order, the bound, and what is dropped."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.metrics import Counters
from realtime.model import Piece
from realtime.send_queue import CHUNK, OVERHEAD, SendQueue

LIMIT = 4000


class Wire:
    """A queue before a transport that takes so many bytes before it pauses."""

    def __init__(self, limit: int = LIMIT, buffer: int = 0) -> None:
        self.written: list[bytes] = []
        self.counters = Counters()
        self.buffer = buffer
        self.held = 0
        self.queue = SendQueue(self.write, limit, self.counters)

    def write(self, data: bytes) -> None:
        """As Twisted's transports: all is taken, and too much pauses the producer."""
        self.written.append(data)
        self.held += len(data)
        if self.held > self.buffer:
            self.queue.pauseProducing()

    def send(self, data: bytes, *pieces: Piece) -> bool:
        """As the hub does."""
        return self.queue.send(data) == len(data) or self.queue.add(data, 0, pieces)

    def drain(self) -> None:
        """The client has read what the transport held."""
        self.held = 0
        if self.queue.is_waiting:
            self.queue.resumeProducing()

    def drain_all(self) -> list[bytes]:
        """The client reads all; the writes since the last one told."""
        while self.queue.is_waiting:
            self.drain()
        written, self.written = self.written, []
        return written


class QueueTests(SynchronousTestCase):
    """One step after the other."""

    def setUp(self) -> None:
        """A transport that takes the first write, and no more."""
        self.wire = Wire()
        self.assertTrue(self.wire.send(b"first"))

    def drop_oldest(self, topic: str, *frames: bytes) -> None:
        """Publish on a topic whose oldest publications may be dropped."""
        for frame in frames:
            self.assertTrue(self.wire.send(frame, Piece(frame, topic)))

    def latest(self, topic: str, *frames: bytes) -> None:
        """Publish on a topic of which only the newest publication counts."""
        for frame in frames:
            self.assertTrue(self.wire.send(frame, Piece(frame, topic, True)))

    def test_order(self) -> None:
        """All that fits comes in order, after what the transport held already."""
        for frame in (b"a", b"b"):
            self.wire.send(frame)
        self.drop_oldest("t", b"c")
        self.wire.send(b"d")
        self.assertEqual(self.wire.written, [b"first"])
        self.assertEqual(b"".join(self.wire.drain_all()), b"firstabcd")
        self.assertEqual(self.wire.queue.size, 0)
        self.assertTrue(self.wire.send(b"again"))
        self.assertEqual(self.wire.written, [b"again"])

    def test_limit(self) -> None:
        """What must be sent and does not fit is refused; with room again it is taken."""
        self.assertTrue(self.wire.send(b"x" * LIMIT))
        self.assertFalse(self.wire.send(b"y"))
        self.wire.drain_all()
        self.wire.send(b"first")
        self.assertTrue(self.wire.send(b"x" * LIMIT))

    def test_oldest_goes_first(self) -> None:
        """Of topics that allow it the oldest are dropped, and are counted."""
        frames = [bytes([48 + n]) * (1000 - OVERHEAD) for n in range(6)]
        self.drop_oldest("t", *frames)
        self.assertEqual(b"".join(self.wire.drain_all()), b"first" + b"".join(frames[2:]))
        self.assertEqual(self.wire.counters.dropped_publications, 2)

    def test_makes_room_for_what_must_be_sent(self) -> None:
        """Droppable publications make room for others, which are never dropped."""
        self.wire.send(b"a" * 1000)
        self.drop_oldest("t", b"b" * 1000, b"c" * 1000)
        self.assertTrue(self.wire.send(b"d" * 2900))
        self.assertEqual(b"".join(self.wire.drain_all()), b"first" + b"a" * 1000 + b"d" * 2900)
        self.assertEqual(self.wire.counters.dropped_publications, 2)

    def test_too_large_for_the_queue(self) -> None:
        """A droppable publication that never fits is dropped itself, and the client is kept."""
        self.drop_oldest("t", b"x" * LIMIT)
        self.wire.send(b"on")
        self.assertEqual(b"".join(self.wire.drain_all()), b"firston")
        self.assertEqual(self.wire.counters.dropped_publications, 1)

    def test_latest(self) -> None:
        """Only the newest of each topic waits, at its own place."""
        self.latest("t", b"t1")
        self.latest("u", b"u1")
        self.wire.send(b"-")
        self.latest("t", b"t2", b"t3")
        self.assertEqual(b"".join(self.wire.drain_all()), b"firstu1-t3")
        self.assertEqual(self.wire.counters.dropped_publications, 2)
        self.latest("t", b"t4")
        self.assertEqual(self.wire.drain_all(), [b"t4"])

    def test_begun_is_ended(self) -> None:
        """What was sent in part goes to its end, whatever its topic allows."""
        pieces = [Piece(b"aaa", "t", True), Piece(b"bbb", "t", True), Piece(b"ccc", "t", True)]
        self.assertTrue(self.wire.queue.add(b"aaabbbccc", 4, pieces))
        self.latest("t", b"ddd")
        self.assertEqual(b"".join(self.wire.drain_all()), b"firstbbddd")

    def test_in_chunks(self) -> None:
        """A transport gets as much as has it ask for more, and not all at once."""
        wire = Wire(limit=10 * CHUNK, buffer=CHUNK)
        wire.send(b"x" * (CHUNK + 1))
        for _ in range(500):
            self.assertTrue(wire.send(b"y" * 1000))
        sizes = [len(data) for data in wire.drain_all()]
        self.assertEqual(sum(sizes), CHUNK + 1 + 500_000)
        self.assertLess(max(sizes), 2 * CHUNK + 1000)

    def test_end(self) -> None:
        """At the end all is written at once, or forgotten, and nothing waits any more."""
        for keep, found in ((True, b"firstab!"), (False, b"first!")):
            wire = Wire()
            wire.send(b"first")
            wire.send(b"a")
            wire.send(b"b", Piece(b"b", "t"))
            wire.queue.end(keep)
            wire.queue.pauseProducing()
            self.assertTrue(wire.send(b"!"))
            self.assertEqual(b"".join(wire.written), found)

    def test_lost(self) -> None:
        """Nothing is kept for a connection that is lost."""
        self.drop_oldest("t", b"a")
        self.wire.send(b"b")
        self.wire.queue.stopProducing()
        self.wire.queue.resumeProducing()
        self.assertEqual(self.wire.written, [b"first"])


_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["must", "oldest", "latest"]),
            st.sampled_from("tuv"),
            st.integers(1, 1500),
        ),
        st.just("drain"),
    ),
    max_size=60,
)


class PropertyTests(SynchronousTestCase):
    """Whatever comes, and however it is read."""

    @given(_STEPS)
    def test_any_order(self, steps: list[Any]) -> None:
        """What must be sent is, in order; what is dropped is counted, and the bound holds."""
        wire = Wire()
        sent: list[tuple[str, str, bytes]] = []
        for number, step in enumerate(steps):
            if step == "drain":
                wire.drain()
                continue
            kind, topic, size = step
            frame = b"%04d" % number + b"." * size
            # A topic has one policy.
            name = f"{kind}.{topic}"
            piece = Piece(frame) if kind == "must" else Piece(frame, name, kind == "latest")
            if not wire.send(frame, piece):
                self.assertEqual(kind, "must")
                queued = wire.queue.size
                self.assertGreater(queued + len(frame), LIMIT)
                break
            sent.append((kind, name, frame))
            self.assertLessEqual(wire.queue.size, LIMIT)
        read = b"".join(wire.drain_all())
        self.assertEqual(wire.queue.size, 0)
        left = []
        rest = read
        for kind, name, frame in sent:
            if rest.startswith(frame):
                rest = rest[len(frame) :]
                left.append((kind, name, frame))
            else:
                self.assertNotEqual(kind, "must")
        self.assertEqual(rest, b"")
        self.assertEqual(len(sent) - len(left), wire.counters.dropped_publications)
