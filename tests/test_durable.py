"""Tests of realtime.durable, through the broker and with real files."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime import durable
from realtime.broker_memory import MemoryBroker
from realtime.errors import Unavailable
from realtime.history import EMPTY_TTL
from realtime.history_sqlite import Journal
from realtime.interfaces import KEY_TTL
from realtime.model import HistoryPage, Namespace, Position, Publication
from tests.support import strategies  # noqa: F401 - loads the profile
from tests.support.contracts import offsets, publication
from tests.support.identity import START, make_clock
from tests.support.journal import (
    DURABLE,
    Pump,
    WatchedJournal,
    journal_path,
    open_broker,
    rows,
)


def page(broker: MemoryBroker, namespace: Namespace = DURABLE, topic: str = "a") -> HistoryPage:
    """Read a whole history."""
    found = broker.history(topic, namespace, since=None, limit=None, reverse=False)
    assert found is not None
    return found


def publish(broker: MemoryBroker, topic: str = "a", key: str | None = None, **more: Any) -> Any:
    """Publish on a durable topic."""
    return broker.publish(publication(topic, **more), DURABLE, key)


def turn() -> Deferred[None]:
    """Let the reactor finish its turn: an awaited publication is followed by others' still."""
    return deferLater(reactor, 0, lambda: None)


class DurableTests(TestCase):
    """One run of a broker with a journal."""

    async def open(self, **options: Any) -> MemoryBroker:
        """Open a broker on a new, watched journal; note what it delivers."""
        self.path = journal_path(self)
        self.journal = WatchedJournal(self.path, reactor)
        self.clock = make_clock()
        broker = await open_broker(
            self, self.path, lambda topic: DURABLE, self.clock.seconds,
            journal=self.journal, **options,
        )  # fmt: skip
        self.events: list[Any] = []
        broker.start(
            lambda sent: self.events.append((sent.topic, int(bytes(sent.payload)[:9]))),
            lambda topic, message: self.events.append(message),
        )
        return broker

    async def test_delivered_after_the_commit(self) -> None:
        """Each is delivered once the journal has it, then its Deferred fires, in order."""
        broker = await self.open()
        accepted = [publish(broker, payload=b"%d" % n) for n in range(4)]
        for n, each in enumerate(accepted):
            each.addCallback(lambda position, n=n: self.events.append(("fired", n)))
        self.assertEqual(self.events, [])
        self.assertEqual(page(broker).publications, ())
        await accepted[-1]
        self.assertEqual(
            self.events, [event for n in range(4) for event in (("a", n), ("fired", n))]
        )

    async def test_commits_are_grouped(self) -> None:
        """What comes while a commit runs is the next commit, up to its bounds."""
        broker = await self.open()
        accepted = [publish(broker, f"t.{n % 7}") for n in range(1201)]
        for each in accepted:
            await each
        sizes = [len(changes.publications) for changes in self.journal.written]
        self.assertEqual(sizes, [1, 500, 500, 200])
        await turn()
        large = [publish(broker, payload=b"1" * 400_000) for _ in range(7)]
        for each in large:
            await each
        sizes = [len(changes.publications) for changes in self.journal.written]
        self.assertEqual(sizes[4:], [1, 3, 3])

    async def test_failure(self) -> None:
        """A batch that cannot be written fails whole, is not delivered, and leaves no gap."""
        broker = await self.open()
        await publish(broker, payload=b"0")
        await self.journal.fill_disk()
        payload = b"1" * 5000
        lost = [publish(broker, payload=payload, key=f"k{n}") for n in range(5)]
        again = publish(broker, payload=payload, key="k4")
        broker.announce("a", b"joined")
        removed = broker.remove_history("a")
        await self.assertFailure(lost[0], Unavailable)
        # What waited is not tried at once, but with the next second.
        self.assertNoResult(lost[1])
        self.assertEqual(self.events, [("a", 0)])
        broker.advance(self.clock.seconds())
        for each in (*lost[1:], again):
            await self.assertFailure(each, Unavailable)
        await self.journal.fill_disk(False)
        self.assertEqual(self.events, [("a", 0), b"joined"])
        broker.advance(self.clock.seconds())
        assert removed is not None
        await removed
        # A key whose publication failed is as new.
        first = await publish(broker, payload=b"7", key="k4")
        second = await publish(broker, payload=b"8", key="k0")
        self.assertEqual([first.offset, second.offset], [1, 2])
        self.assertEqual(self.events[2:], [("a", 7), ("a", 8)])

    async def test_failure_leaves_what_was(self) -> None:
        """After a failure, a topic goes on where it was, in memory and in the file."""
        broker = await self.open()
        first = await publish(broker, payload=b"0")
        await self.journal.fill_disk()
        await self.assertFailure(publish(broker, payload=b"1" * 5000), Unavailable)
        await self.assertFailure(self.removal(broker, "unknown", b"1" * 5000), Unavailable)
        await self.journal.fill_disk(False)
        broker.advance(self.clock.seconds())
        second = await publish(broker, payload=b"2")
        self.assertEqual(second, Position(2, first.epoch))
        self.assertEqual(page(broker, topic="unknown").position.offset, 0)
        await broker.stop()
        self.assertEqual(
            rows(self.path, "SELECT position, payload FROM publications"), [(1, b"0"), (2, b"2")]
        )

    def removal(self, broker: MemoryBroker, topic: str, payload: bytes) -> Any:
        """Publish with the next second, and remove."""
        accepted = publish(broker, topic, payload=payload)
        broker.advance(self.clock.seconds())
        return accepted

    async def test_an_unwilling_receiver(self) -> None:
        """A delivery that raises is logged, and keeps nothing from the others."""
        broker = await self.open()
        await publish(broker, payload=b"0")
        broker.start(lambda sent: 1 / 0, lambda topic, message: None)
        accepted = [publish(broker) for _ in range(3)]
        self.assertEqual([(await each).offset for each in accepted], [2, 3, 4])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    async def test_bounded_queue(self) -> None:
        """Beyond the bound publications are refused at once, those with a known key, too."""
        broker = await self.open(max_waiting=4)
        accepted = [publish(broker, key=key) for key in ("k", None, "k", "k")]
        for key in ("k", None):
            self.assertRaises(Unavailable, publish, broker, key=key)
        self.assertRaises(Unavailable, broker.remove_history, "a")
        self.assertEqual([(await each).offset for each in accepted], [1, 2, 1, 1])
        accepted = [publish(broker) for _ in range(4)]
        self.assertEqual([(await each).offset for each in accepted], [3, 4, 5, 6])

    async def test_bounded_bytes(self) -> None:
        """Beyond its bytes the queue is refused, too."""
        self.patch(durable, "MAX_WAITING_BYTES", 1000)
        broker = await self.open()
        accepted = [publish(broker, payload=b"1" * 600) for _ in range(2)]
        self.assertRaises(Unavailable, publish, broker)
        for each in accepted:
            await each
        await publish(broker)

    async def test_bounded_memory(self) -> None:
        """When the histories are full, publications are refused: nothing is lost for them."""
        broker = await self.open(max_durable_bytes=8800)
        for n in range(4):
            await publish(broker, f"t.{n}", payload=b"1" * 1000)
        self.assertRaises(Unavailable, publish, broker)
        await broker.remove_history("t.0")
        await broker.remove_history("t.1")
        await publish(broker)
        for n in (2, 3):
            self.assertEqual(offsets(page(broker, topic=f"t.{n}").publications), [1])

    async def test_given_up(self) -> None:
        """A publisher that gives up waiting holds up nobody."""
        broker = await self.open()
        first, second = publish(broker, payload=b"1"), publish(broker, payload=b"2")
        first.addErrback(lambda failure: None)
        first.cancel()
        self.assertEqual((await second).offset, 2)
        self.assertEqual(self.events, [("a", 1), ("a", 2)])

    async def test_announcements(self) -> None:
        """An announcement waits for its own topic's publications, and for no other's."""
        broker = await self.open()
        accepted = [publish(broker, topic, payload=b"%d" % n) for n, topic in enumerate("aab")]
        broker.announce("a", b"joined")
        broker.announce("c", b"left")
        self.assertEqual(self.events, [b"left"])
        for each in accepted:
            await each
        await publish(broker, "c", payload=b"3")
        self.assertEqual(self.events, [b"left", ("a", 0), ("a", 1), ("b", 2), b"joined", ("c", 3)])

    async def test_not_open(self) -> None:
        """Before it is open and once it stops, a broker takes nothing durable."""
        broker = MemoryBroker(journal=Journal(journal_path(self), reactor))
        broker.start(lambda sent: None, lambda topic, message: None)
        self.assertRaises(Unavailable, publish, broker)
        self.assertIsNone(broker.remove_history("a"))
        await broker.stop()
        self.assertRaises(Unavailable, publish, broker)
        await broker.stop()

    async def test_stopping(self) -> None:
        """Stopping finishes what was taken, a failure included, and takes no more."""
        broker = await self.open()
        accepted = [publish(broker) for _ in range(3)]
        stopped = Deferred.fromCoroutine(broker.stop())
        self.assertRaises(Unavailable, publish, broker)
        await stopped
        self.assertEqual([self.successResultOf(each).offset for each in accepted], [1, 2, 3])
        broker = await self.open()
        await self.journal.fill_disk()
        accepted = [publish(broker, payload=b"1" * 5000) for _ in range(3)]
        await broker.stop()
        for each in accepted:
            self.failureResultOf(each, Unavailable)

    async def test_idle_topics_are_forgotten(self) -> None:
        """What is too old leaves the file, and a day later the topic does."""
        minute = Namespace(">", history_size=10, history_ttl=60, durable=True)
        broker = await self.open()
        for _ in range(3):
            sent = Publication("a", b"1", "u", int(START * 1000))
            position = await broker.publish(sent, minute, None)  # type: ignore[misc]
        await turn()
        self.clock.advance(62)
        broker.advance(self.clock.seconds())
        self.assertEqual(page(broker, minute), HistoryPage((), position))
        self.clock.advance(EMPTY_TTL + 1)
        broker.advance(self.clock.seconds())
        await broker.stop()
        written = [(c.forgotten, c.topics) for c in self.journal.written[3:]]
        self.assertEqual(written, [([], [("a", position.epoch, 3, 4)]), (["a"], [])])
        self.assertEqual(rows(self.path, "SELECT * FROM publications"), [])
        self.assertEqual(rows(self.path, "SELECT * FROM topics"), [])

    async def test_the_file_is_bounded(self) -> None:
        """What a topic's size pushes out leaves the file with what pushes it."""
        broker = await self.open()
        small = Namespace(">", history_size=3, durable=True)
        accepted: list[Any] = [broker.publish(publication(), small, None) for _ in range(20)]
        await accepted[-1]
        await broker.stop()
        kept = rows(self.path, "SELECT position FROM publications ORDER BY position")
        self.assertEqual(kept, [(18,), (19,), (20,)])

    async def test_removed_while_it_ages(self) -> None:
        """A topic that is removed when its publications are too old leaves nothing."""
        broker = await self.open()
        minute = Namespace(">", history_size=10, history_ttl=60, durable=True)
        for at in (START, START + 100):
            sent = Publication("a", b"1", "u", int(at * 1000))
            await broker.publish(sent, minute, None)  # type: ignore[misc]
        await turn()
        accepted = publish(broker, "b")
        self.clock.advance(70)
        broker.advance(self.clock.seconds())
        removed = broker.remove_history("a")
        assert removed is not None
        await accepted
        await removed
        await broker.stop()
        self.assertEqual(rows(self.path, "SELECT topic FROM topics"), [("b",)])
        self.assertEqual(rows(self.path, "SELECT count(*) FROM publications"), [(1,)])

    async def test_reading_writes_nothing(self) -> None:
        """Topics that are only read take no room in the file, also when they are forgotten."""
        broker = await self.open()
        for number in range(100):
            page(broker, topic=f"t.{number}")
        self.clock.advance(EMPTY_TTL + 1)
        broker.advance(self.clock.seconds())
        await broker.stop()
        self.assertEqual([c.topics for c in self.journal.written if c.topics], [])
        self.assertEqual(rows(self.path, "SELECT * FROM topics"), [])


class RestartTests(TestCase):
    """What another run of the broker finds."""

    def setUp(self) -> None:
        self.path = journal_path(self)
        self.clock = make_clock()

    async def run_on(self, namespace: Namespace | None = DURABLE) -> MemoryBroker:
        """Open a broker for which `namespace` holds everywhere."""
        broker = await open_broker(self, self.path, lambda topic: namespace, self.clock.seconds)
        broker.start(lambda sent: None, lambda topic, message: None)
        return broker

    async def test_all_is_there(self) -> None:
        """What was acknowledged is there, its positions go on, and the log says how much."""
        broker = await self.run_on()
        for n in range(3):
            await publish(broker, "a", payload=b"%d" % n)
        await publish(broker, "b")
        await broker.remove_history("b")
        last = await publish(broker, "b")
        before = [page(broker, topic=topic) for topic in "ab"]
        await broker.stop()
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        again = await self.run_on()
        self.assertEqual([page(again, topic=topic) for topic in "ab"], before)
        (event,) = [each for each in events if "kept" in each]
        self.assertEqual((event["kept"], event["topics"]), (4, 2))
        self.assertEqual(await publish(again, "b"), Position(2, last.epoch))

    async def test_keys(self) -> None:
        """A key stays used for `KEY_TTL` seconds, also when its publication is gone."""
        small = Namespace(">", history_size=1, durable=True)
        broker = await self.run_on(small)
        first = await broker.publish(publication(), small, "k")  # type: ignore[misc]
        await broker.publish(publication(), small, None)  # type: ignore[misc]
        await broker.stop()
        self.clock.advance(KEY_TTL - 1)
        broker = await self.run_on(small)
        self.assertEqual(broker.publish(publication(), small, "k"), first)
        await broker.stop()
        self.clock.advance(1)
        broker = await self.run_on(small)
        fresh = await broker.publish(publication(), small, "k")  # type: ignore[misc]
        self.assertEqual(fresh, Position(3, first.epoch))

    async def test_age(self) -> None:
        """What is too old by now is not there; one who had it all has missed nothing."""
        minute = Namespace(">", history_size=10, history_ttl=60, durable=True)
        broker = await self.run_on(minute)
        for at in (0, 50):
            sent = Publication("a", b"1", "u", int((START + at) * 1000))
            last = await broker.publish(sent, minute, None)  # type: ignore[misc]
        await broker.stop()
        self.clock.advance(70)
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        broker = await self.run_on(minute)
        self.assertEqual([each["kept"] for each in events if "kept" in each], [1])
        self.assertEqual(offsets(page(broker, minute).publications), [2])
        await broker.stop()
        self.assertEqual(rows(self.path, "SELECT position FROM publications"), [(2,)])
        self.clock.advance(70)
        broker = await self.run_on(minute)
        self.assertEqual(page(broker, minute), HistoryPage((), last))

    async def test_another_size(self) -> None:
        """A smaller history keeps its newest, in the file, too; a larger one grows."""
        broker = await self.run_on()
        for _ in range(9):
            last = await publish(broker)
        await broker.stop()
        for size in (3, 5):
            other = Namespace(">", history_size=size, durable=True)
            broker = await self.run_on(other)
            self.assertEqual(offsets(page(broker, other).publications), [7, 8, 9])
            self.assertEqual(page(broker, other).position, last)
            await broker.stop()
            self.assertEqual(rows(self.path, "SELECT count(*) FROM publications"), [(3,)])

    async def test_no_longer_durable(self) -> None:
        """A topic that is no longer durable is there once more, and not the next time."""
        broker = await self.run_on()
        for _ in range(3):
            last = await publish(broker)
        await broker.stop()
        memory = Namespace(">", history_size=2)
        broker = await self.run_on(memory)
        self.assertEqual(offsets(page(broker, memory).publications), [2, 3])
        self.assertEqual(broker.publish(publication(), memory, None), Position(4, last.epoch))
        await broker.stop()
        self.assertEqual(rows(self.path, "SELECT * FROM topics, publications"), [])
        # Durable again: not the history of then, of which 4 is missing.
        broker = await self.run_on()
        self.assertIsNone(broker.history("a", DURABLE, since=last, limit=None, reverse=False))

    async def test_no_longer_a_topic(self) -> None:
        """A topic without history, or without a namespace, leaves the journal."""
        for namespace in (None, Namespace(">")):
            broker = await self.run_on()
            last = await publish(broker)
            await broker.stop()
            await (await self.run_on(namespace)).stop()
            broker = await self.run_on()
            self.assertEqual(page(broker).position.offset, 0)
            self.assertNotEqual(page(broker).position.epoch, last.epoch)
            await broker.stop()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("ab"), st.none() | st.sampled_from("kl")),
        st.tuples(st.just("remove"), st.sampled_from("ab"), st.none()),
        st.tuples(
            st.sampled_from(["full", "free", "wait", "restart", "tick"]), st.none(), st.none()
        ),
    ),
    max_size=40,
)


class DurablePropertyTests(SynchronousTestCase):
    """Any run of publications, failures and restarts."""

    @settings(max_examples=60)
    @given(steps)
    def test_model(self, steps: list[tuple[str, Any, Any]]) -> None:
        """What is acknowledged is delivered and kept, once and in order; what fails is not."""
        pump = Pump()
        path = journal_path(self)  # type: ignore[arg-type]
        small = Namespace(">", history_size=6, durable=True)
        now = START
        # What was accepted of each topic's present epoch, and of each key.
        topics: dict[str, list[bytes]] = {"a": [], "b": []}
        keys: dict[tuple[str, str], Position] = {}
        delivered: list[bytes] = []
        expected: list[bytes] = []
        pending: list[Any] = []
        number = 0

        def opened() -> tuple[MemoryBroker, WatchedJournal]:
            journal = WatchedJournal(path, pump)
            broker = MemoryBroker(lambda: now, journal=journal)
            broker.start(
                lambda sent: delivered.append(bytes(sent.payload)), lambda topic, message: None
            )
            pump.wait(broker.open(lambda topic: small))
            return broker, journal

        def settle() -> None:
            """Compare what came of each, in the order asked for."""
            nonlocal now
            while any(not done.called for *_, done in pending):
                now += 1
                broker.advance(now)
                pump.wait(journal._database.read(lambda c: None))
                pump.wait(journal._database.read(lambda c: None))
            for topic, payload, key, done in pending:
                try:
                    position = pump.wait(done)
                except Unavailable:
                    continue
                if payload is None:
                    topics[topic] = []
                elif (topic, key) in keys:
                    self.assertEqual(position, keys[topic, key])
                else:
                    topics[topic].append(payload)
                    expected.append(payload)
                    self.assertEqual(position.offset, len(topics[topic]))
                    if key is not None:
                        keys[topic, key] = position
            pending.clear()
            self.assertEqual(delivered, expected)
            for topic, payloads in topics.items():
                found = page(broker, small, topic)
                self.assertEqual([p.payload for p in found.publications], payloads[-6:])
                self.assertEqual(found.position.offset, len(payloads))

        broker, journal = opened()
        try:
            for what, topic, key in steps:
                if what == "publish":
                    number += 1
                    payload = b"%d" % number + b" " * 3000
                    try:
                        done = broker.publish(publication(topic, payload), small, key)
                    except Unavailable:
                        continue
                    if not isinstance(done, Deferred):
                        done = succeed(done)
                    pending.append((topic, payload, key, done))
                elif what == "remove":
                    removed = broker.remove_history(topic)
                    if removed is not None:
                        pending.append((topic, None, None, removed))
                elif what in ("full", "free"):
                    pump.wait(journal.fill_disk(what == "full"))
                elif what == "tick":
                    now += 1
                    broker.advance(now)
                elif what == "wait":
                    settle()
                elif what == "restart":
                    settle()
                    pump.wait(broker.stop())
                    broker, journal = opened()
            settle()
        finally:
            pump.wait(broker.stop())
