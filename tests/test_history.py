"""Tests of realtime.history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from realtime.history import EMPTY_TTL, PUBLICATION_COST, TOPIC_COST, Histories
from realtime.model import HistoryPage, Namespace, Position, Publication
from tests.support import strategies  # noqa: F401 - loads the profile

NOW = 1_700_000_000.0
FIVE = Namespace("a", history_size=5)
MINUTE = Namespace("a", history_size=100, history_ttl=60)


def epochs() -> Callable[[], str]:
    """Make a maker of epochs: e1, e2, and so on."""
    numbers = count(1)
    return lambda: f"e{next(numbers)}"


def publication(topic: str = "a", payload: bytes = b"1", at: float = NOW) -> Publication:
    """Make a publication of the second `at`."""
    return Publication(topic, payload, "user_1", int(at * 1000))


def fill(histories: Histories, topic: str, number: int, namespace: Namespace = FIVE) -> None:
    """Append publications, payloads 1 to `number`."""
    for each in range(1, number + 1):
        histories.append(publication(topic, b"%d" % each), namespace, NOW)


def offsets(page: HistoryPage | None) -> list[int] | None:
    """The offsets on a page; None for none."""
    if page is None:
        return None
    return [each.position.offset for each in page.publications if each.position]


class HistoriesTests(SynchronousTestCase):
    """What is kept, and what is given back."""

    def setUp(self) -> None:
        self.histories = Histories(epochs())

    def test_position(self) -> None:
        """Offsets of a topic count from 1 within one epoch; another topic has its own."""
        found = [self.histories.append(publication(topic), FIVE, NOW).position for topic in "aabba"]
        self.assertEqual(
            found,
            [Position(n, e) for n, e in ((1, "e1"), (2, "e1"), (1, "e2"), (2, "e2"), (3, "e1"))],
        )

    def test_keeps_what_came(self) -> None:
        """What is kept is what came, its payload copied out of the message received."""
        sent = Publication("a", Raw(b'{"a": 1.10}'), "user_1", 5, None, "connection")
        kept = self.histories.append(sent, FIVE, NOW)
        self.assertEqual(type(kept.payload), bytes)
        self.assertEqual(
            kept,
            Publication("a", b'{"a": 1.10}', "user_1", 5, Position(1, "e1"), "connection"),
        )
        page = self.histories.page("a", FIVE, NOW)
        assert page is not None
        self.assertIs(page.publications[0], kept)

    def test_topic_without_history(self) -> None:
        """A topic never published on is at 0 of an epoch, from which all that follows is had."""
        page = self.histories.page("a", FIVE, NOW)
        self.assertEqual(page, HistoryPage((), Position(0, "e1")))
        fill(self.histories, "a", 2)
        self.assertEqual(
            offsets(self.histories.page("a", FIVE, NOW, since=Position(0, "e1"))), [1, 2]
        )

    def test_pages(self) -> None:
        """A page begins after `since`, or at an end, and has at most `limit` publications."""
        fill(self.histories, "a", 8)
        for since, limit, reverse, expected in (
            (None, None, False, [4, 5, 6, 7, 8]),
            (None, None, True, [8, 7, 6, 5, 4]),
            (None, 2, False, [4, 5]),
            (None, 2, True, [8, 7]),
            (None, 0, True, []),
            (3, None, False, [4, 5, 6, 7, 8]),
            (5, 2, False, [6, 7]),
            (5, 2, True, [8, 7]),
            (7, 9, False, [8]),
            (8, None, False, []),
            (2, None, False, None),
            (0, None, False, None),
            (9, None, False, None),
            (-1, None, False, None),
        ):
            with self.subTest(since=since, limit=limit, reverse=reverse):
                position = None if since is None else Position(since, "e1")
                page = self.histories.page(
                    "a", FIVE, NOW, since=position, limit=limit, reverse=reverse
                )
                self.assertEqual(offsets(page), expected)
                if page is not None:
                    self.assertEqual(page.position, Position(8, "e1"))

    def test_other_epoch(self) -> None:
        """A position of another epoch is of another history."""
        fill(self.histories, "a", 1)
        self.assertIsNone(self.histories.page("a", FIVE, NOW, since=Position(1, "e0")))

    def test_age(self) -> None:
        """What is `history_ttl` seconds old is not given back, dropped or not."""
        for at in (0, 10, 20):
            self.histories.append(publication(at=NOW + at), MINUTE, NOW + at)
        self.assertEqual(offsets(self.histories.page("a", MINUTE, NOW + 59.9)), [1, 2, 3])
        self.assertEqual(offsets(self.histories.page("a", MINUTE, NOW + 60)), [2, 3])
        at_1 = Position(1, "e1")
        self.assertEqual(offsets(self.histories.page("a", MINUTE, NOW + 60, since=at_1)), [2, 3])
        self.assertIsNone(self.histories.page("a", MINUTE, NOW + 70, since=at_1))

    def test_expired_topic(self) -> None:
        """When all is too old, one who had it all misses nothing, and offsets go on."""
        self.histories.append(publication(), MINUTE, NOW)
        self.assertTrue(self.histories.expire(NOW + 62))
        self.assertEqual(self.histories.bytes, 0)
        last = Position(1, "e1")
        page = self.histories.page("a", MINUTE, NOW + 62, since=last)
        self.assertEqual(page, HistoryPage((), last))
        self.assertIsNone(self.histories.page("a", MINUTE, NOW + 62, since=Position(0, "e1")))
        kept = self.histories.append(publication(at=NOW + 62), MINUTE, NOW + 62)
        self.assertEqual(kept.position, Position(2, "e1"))

    def test_empty_topics_are_forgotten(self) -> None:
        """A topic without publications is forgotten a day after its last use."""
        self.histories.append(publication(), MINUTE, NOW)
        self.histories.page("b", FIVE, NOW)
        fill(self.histories, "c", 1)
        self.histories.expire(NOW + 100)
        self.histories.page("b", FIVE, NOW + 500)
        self.histories.expire(NOW + EMPTY_TTL + 99)
        self.assertEqual(len(self.histories), 3)
        self.histories.expire(NOW + EMPTY_TTL + 101)
        self.assertNotIn("a", self.histories)
        self.assertIn("b", self.histories)
        self.histories.expire(NOW + EMPTY_TTL + 501)
        self.assertEqual(len(self.histories), 1)
        # What has publications stays, without age limit.
        self.assertEqual(offsets(self.histories.page("c", FIVE, NOW + 10 * EMPTY_TTL)), [1])
        self.assertIsNone(
            self.histories.page("a", MINUTE, NOW + EMPTY_TTL, since=Position(1, "e1"))
        )

    def test_expiry_is_bounded(self) -> None:
        """A call of `expire` drops about its budget, and says whether there is more."""
        for topic in "abcde":
            for _ in range(10):
                self.histories.append(publication(topic), MINUTE, NOW)
        full = self.histories.bytes
        calls = 1
        while not self.histories.expire(NOW + 100 + calls, 10):
            dropped = full - self.histories.bytes
            self.assertLessEqual(dropped, calls * 15 * (PUBLICATION_COST + TOPIC_COST))
            calls += 1
        self.assertEqual(self.histories.bytes, 0)
        self.assertGreaterEqual(calls, 5)

    def test_remove(self) -> None:
        """A topic removed begins another epoch with offset 1; one unknown is no matter."""
        fill(self.histories, "a", 3)
        self.histories.remove("a")
        self.histories.remove("b")
        self.assertEqual((len(self.histories), self.histories.bytes), (0, 0))
        page = self.histories.page("a", FIVE, NOW)
        self.assertEqual(page, HistoryPage((), Position(0, "e2")))
        kept = self.histories.append(publication(), FIVE, NOW)
        self.assertEqual(kept.position, Position(1, "e2"))

    def test_memory_is_bounded(self) -> None:
        """Above the bound the least recently used topic loses its oldest publications first."""
        room = 3 * TOPIC_COST + 6 * (PUBLICATION_COST + 1)
        histories = Histories(epochs(), max_bytes=room)
        for topic in "abc":
            fill(histories, topic, 2)
        histories.page("a", FIVE, NOW)
        histories.append(publication("c"), FIVE, NOW)
        self.assertEqual(offsets(histories.page("b", FIVE, NOW)), [2])
        self.assertEqual(offsets(histories.page("c", FIVE, NOW)), [1, 2, 3])
        self.assertEqual(offsets(histories.page("a", FIVE, NOW)), [1, 2])

    def test_too_large_to_keep(self) -> None:
        """A publication above the bound has its position and is not kept."""
        histories = Histories(epochs(), max_bytes=1000)
        kept = histories.append(publication(payload=b"1" * 2000), FIVE, NOW)
        self.assertEqual(kept.position, Position(1, "e1"))
        page = histories.page("a", FIVE, NOW)
        self.assertEqual(page, HistoryPage((), Position(1, "e1")))
        self.assertEqual(histories.bytes, 0)

    def test_many_names(self) -> None:
        """A flood of names takes bounded memory, and nothing from topics with publications."""
        histories = Histories(epochs(), max_empty=10)
        fill(histories, "a", 3)
        for number in range(100):
            histories.page(f"flood.{number}", FIVE, NOW)
        self.assertEqual(len(histories), 11)
        self.assertEqual(offsets(histories.page("a", FIVE, NOW)), [1, 2, 3])
        self.assertIn("flood.99", histories)

    def test_tells_what_it_forgets(self) -> None:
        """Topics that lose something by age, or altogether, are named; by size they are not."""
        named: list[str] = []
        histories = Histories(epochs(), max_bytes=None, forgot=named.append)
        fill(histories, "size", 9)
        self.assertEqual(named, [])
        histories.append(publication("age"), MINUTE, NOW)
        histories.expire(NOW + 62)
        histories.remove("size")
        self.assertEqual(named, ["age", "size"])

    def test_given_positions(self) -> None:
        """A publication that has a position is kept there, with what leads up to it."""
        fill(self.histories, "a", 2)
        for offset, expected in ((3, [1, 2, 3]), (4, [1, 2, 3, 4]), (7, [7])):
            sent = Publication("a", b"1", "user_1", 5, Position(offset, "e1"))
            self.assertIs(self.histories.append(sent, FIVE, NOW), sent)
            self.assertEqual(offsets(self.histories.page("a", FIVE, NOW)), expected)
        other = Publication("a", b"1", "user_1", 5, Position(8, "x"))
        self.histories.append(other, FIVE, NOW)
        page = self.histories.page("a", FIVE, NOW)
        self.assertEqual(page, HistoryPage((other,), Position(8, "x")))

    def test_settle(self) -> None:
        """A topic can be told where it stands; what does not lead up to that goes."""
        fill(self.histories, "a", 2)
        self.histories.settle("a", Position(2, "e1"), NOW)
        self.assertEqual(offsets(self.histories.page("a", FIVE, NOW)), [1, 2])
        self.histories.settle("a", Position(3, "e1"), NOW)
        page = self.histories.page("a", FIVE, NOW)
        self.assertEqual(page, HistoryPage((), Position(3, "e1")))
        self.histories.settle("new", Position(9, "x"), NOW)
        state = self.histories.known("new")
        self.assertEqual(state, ("new", "x", 9, 10))
        self.assertIsNone(self.histories.known("other"))


@dataclass
class Model:
    """A topic, naively: all its publications, and the offsets that are kept."""

    epoch: str
    all: list[Publication] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


class Naive:
    """Histories, naively: every list is gone through every time."""

    def __init__(self, max_bytes: int, max_empty: int) -> None:
        self.make_epoch = epochs()
        self.max_bytes = max_bytes
        self.max_empty = max_empty
        self.topics: dict[str, Model] = {}
        # Least recently used first.
        self.order: list[str] = []

    def use(self, name: str) -> Model:
        if name not in self.topics:
            self.topics[name] = Model(self.make_epoch())
            self.order.append(name)
        self.touch(name)
        return self.topics[name]

    def touch(self, name: str) -> None:
        self.order.remove(name)
        self.order.append(name)
        empty = [name for name in self.order if not self.topics[name].kept]
        for each in empty[: max(0, len(empty) - self.max_empty)]:
            self.forget(each)

    def forget(self, name: str) -> None:
        del self.topics[name]
        self.order.remove(name)

    def bytes(self) -> int:
        return sum(
            TOPIC_COST + sum(PUBLICATION_COST + len(bytes(t.all[o - 1].payload)) for o in t.kept)
            for t in self.topics.values()
            if t.kept
        )

    def expire(self, name: str, ttl: float, now: float) -> None:
        topic = self.topics[name]
        while ttl and topic.kept and topic.all[topic.kept[0] - 1].timestamp <= (now - ttl) * 1000:
            del topic.kept[0]
        self.touch(name)

    def append(self, sent: Publication, namespace: Namespace) -> Position:
        topic = self.use(sent.topic)
        topic.all.append(sent)
        topic.kept.append(len(topic.all))
        del topic.kept[: -namespace.history_size]
        while self.bytes() > self.max_bytes:
            oldest = next(name for name in self.order if self.topics[name].kept)
            del self.topics[oldest].kept[0]
            if not self.topics[oldest].kept:
                self.touch(oldest)
        return Position(len(topic.all), topic.epoch)

    def page(
        self,
        name: str,
        namespace: Namespace,
        now: float,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> tuple[list[tuple[int, bytes]], Position] | None:
        topic = self.use(name)
        self.expire(name, namespace.history_ttl, now)
        kept = topic.kept
        if since is not None:
            wanted = list(range(since.offset + 1, len(topic.all) + 1))
            if (
                since.epoch != topic.epoch
                or not 0 <= since.offset <= len(topic.all)
                or not set(wanted) <= set(kept)
            ):
                return None
            kept = wanted
        found = [(offset, bytes(topic.all[offset - 1].payload)) for offset in kept]
        if reverse:
            found.reverse()
        return found[:limit], Position(len(topic.all), topic.epoch)


names = st.sampled_from("abcd")
appends = st.tuples(st.just("append"), names, st.integers(0, 300))
pages = st.tuples(
    st.just("page"),
    names,
    st.none() | st.tuples(st.integers(-2, 9), st.integers(0, 3)),
    st.none() | st.integers(0, 4),
    st.booleans(),
)
removals = st.tuples(st.just("remove"), names)
waits = st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 1.0, 7.25, 30.0]))
expiries = st.tuples(st.just("expire"), st.sampled_from([1, 5, 1000]))


class HistoriesPropertyTests(SynchronousTestCase):
    """The histories against the naive ones."""

    def drive(self, histories: Histories, naive: Naive, namespace: Namespace, steps: list) -> float:  # type: ignore[type-arg]
        """Do the same with both, and compare what they answer; answer the time then."""
        now = NOW
        for step in steps:
            match step:
                case ("append", name, size):
                    sent = publication(name, b"1" * size, now)
                    position = histories.append(sent, namespace, now).position
                    self.assertEqual(position, naive.append(sent, namespace))
                case ("page", name, back, limit, reverse):
                    since = None
                    if back is not None:
                        state = histories.known(name)
                        top, epoch = (state.top, state.epoch) if state else (0, "e0")
                        # Mostly of the present epoch, some way back from the newest.
                        since = Position(top - back[0], epoch if back[1] else "e1")
                    page = histories.page(
                        name, namespace, now, since=since, limit=limit, reverse=reverse
                    )
                    expected = naive.page(name, namespace, now, since, limit, reverse)
                    found = page and (
                        [(p.position.offset, p.payload) for p in page.publications if p.position],
                        page.position,
                    )
                    self.assertEqual(found, expected)
                case ("remove", name):
                    histories.remove(name)
                    if name in naive.topics:
                        naive.forget(name)
                case ("wait", seconds):
                    now += seconds
                case ("expire", budget):
                    histories.expire(now, budget)
        return now

    @given(st.lists(appends | pages | removals, max_size=80))
    def test_bounds(self, steps: list) -> None:  # type: ignore[type-arg]
        """Under pressure of memory and of names, the histories are the naive ones."""
        room = 2 * TOPIC_COST + 4 * PUBLICATION_COST + 500
        histories = Histories(epochs(), max_bytes=room, max_empty=2)
        naive = Naive(room, 2)
        self.drive(histories, naive, FIVE, steps)
        self.assertEqual(histories.bytes, naive.bytes())
        self.assertLessEqual(histories.bytes, room)
        self.assertEqual(len(histories), len(naive.topics))

    @given(
        st.lists(appends | pages | removals | waits | expiries, max_size=80),
        st.sampled_from([0.5, 8.0, 60.0]),
    )
    def test_age(self, steps: list, ttl: float) -> None:  # type: ignore[type-arg]
        """However seldom they are swept, the histories give back what is not too old."""
        histories = Histories(epochs(), max_bytes=None)
        namespace = Namespace("a", history_size=5, history_ttl=ttl)
        now = self.drive(histories, Naive(10**9, 1000), namespace, steps)
        # Swept to the end, nothing stays.
        for second in range(3):
            histories.expire(now + ttl + 2 + second)
        self.assertEqual(histories.bytes, 0)

    @given(st.lists(appends | removals, max_size=200), st.integers(1, 40))
    def test_long_runs(self, steps: list, size: int) -> None:  # type: ignore[type-arg]
        """Histories of any size keep just their newest."""
        namespace = Namespace("a", history_size=size)
        histories, naive = Histories(epochs(), max_bytes=None), Naive(10**9, 1000)
        self.drive(histories, naive, namespace, steps)
        for name in "abcd":
            self.drive(histories, naive, namespace, [("page", name, None, None, False)])
