"""Tests of realtime.history_sqlite."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from realtime import database
from realtime.errors import ConfigurationError, Unavailable
from realtime.history import Changes, KeyState, TopicState
from realtime.history_sqlite import Journal
from realtime.model import Position, Publication
from tests.support.identity import make_state_dir, open_database
from tests.support.journal import WatchedJournal, journal_path, rows


def publication(offset: int, topic: str = "a", payload: bytes = b"1", epoch: str = "e") -> Any:
    """Make a publication that has its position."""
    return Publication(topic, payload, "user_é", 1_700_000_000_000, Position(offset, epoch))


async def open_journal(case: TestCase, path: str) -> WatchedJournal:
    """Open a journal, closed after the test."""
    journal = WatchedJournal(path, reactor)
    await journal.open()
    case.addCleanup(journal.close)
    return journal


def content(path: str) -> bytes:
    """Read a file."""
    return Path(path).read_bytes()


async def publications(journal: Journal) -> list[Publication]:
    """Read all publications."""
    found: list[Publication] = []
    after: int | None = 0
    while after is not None:
        some, after = await journal.publications(after)
        found += some
    return found


async def topics(journal: Journal) -> list[tuple[str, str, int]]:
    """Read all topics, with epoch and newest offset."""
    found, after = await journal.topics(0)
    assert after is None or await journal.topics(after) == ([], None)
    return [state[:3] for state in found]


class JournalTests(TestCase):
    """The open file."""

    async def test_new_file(self) -> None:
        """A new file is for its owner only, and on the disk at each commit."""
        path = journal_path(self)
        journal = await open_journal(self, path)
        await journal.write(Changes())
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        settings = await journal._database.read(
            lambda c: [
                c.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "locking_mode")
            ]
        )
        self.assertEqual(settings, ["wal", 2, "exclusive"])

    async def test_what_is_written_is_there(self) -> None:
        """Publications, topics and keys come back as written, in the order written."""
        path = journal_path(self)
        journal = await open_journal(self, path)
        sent = [publication(1), publication(1, "b", b'{"a": 1.10}', "f"), publication(2)]
        key = KeyState(("a", "user_é", "k"), Position(2, "e"), 1000.5)
        await journal.write(
            Changes([], [TopicState("a", "e", 2, 1), TopicState("b", "f", 1, 1)], sent, [key])
        )
        for again in (journal, None):
            if again is None:
                await journal.close()
                again = await open_journal(self, path)
            self.assertEqual(await publications(again), sent)
            self.assertEqual(await topics(again), [("a", "e", 2), ("b", "f", 1)])
            self.assertEqual((await again.keys(0, 1000.4))[0], [key])
            self.assertEqual(await again.keys(0, 1000.5), ([], None))

    async def test_trimming(self) -> None:
        """What is older than a topic's first offset is deleted, also out of the same batch."""
        journal = await open_journal(self, journal_path(self))
        for numbers, first in (((1, 2, 3), 2), ((4, 5, 6, 7), 6)):
            state = TopicState("a", "e", numbers[-1], first)
            await journal.write(Changes([], [state], [publication(n) for n in numbers]))
        self.assertEqual(await publications(journal), [publication(6), publication(7)])
        await journal.write(Changes([], [TopicState("a", "e", 7, 8)]))
        self.assertEqual(await publications(journal), [])
        self.assertEqual(await topics(journal), [("a", "e", 7)])

    async def test_another_epoch(self) -> None:
        """A topic of another epoch begins anew, whether its row has been seen or not."""
        path = journal_path(self)
        journal = await open_journal(self, path)
        await journal.write(Changes([], [TopicState("a", "e", 1, 1)], [publication(1)]))
        for epoch in ("f", "g"):
            sent = publication(1, epoch=epoch)
            await journal.write(Changes([], [TopicState("a", epoch, 1, 1)], [sent]))
            self.assertEqual(await publications(journal), [sent])
            self.assertEqual(await topics(journal), [("a", epoch, 1)])
            await journal.close()
            journal = await open_journal(self, path)

    async def test_forgetting(self) -> None:
        """A topic forgotten leaves nothing; one that is not there is no matter."""
        path = journal_path(self)
        journal = await open_journal(self, path)
        states = [TopicState("a", "e", 1, 1), TopicState("b", "e", 1, 1)]
        await journal.write(Changes([], states, [publication(1), publication(1, "b")]))
        await journal.write(Changes(["a", "c"]))
        self.assertEqual(await publications(journal), [publication(1, "b")])
        self.assertEqual(await topics(journal), [("b", "e", 1)])
        # Forgotten and written again, in this order.
        sent = publication(1, "b", epoch="f")
        await journal.write(Changes(["b"], [TopicState("b", "f", 1, 1)], [sent]))
        self.assertEqual(await publications(journal), [sent])
        await journal.close()
        self.assertEqual(rows(path, "SELECT count(*) FROM publications"), [(1,)])

    async def test_old_keys_are_deleted(self) -> None:
        """Keys that are past go with the next write."""
        path = journal_path(self)
        journal = await open_journal(self, path)
        keys = [KeyState(("a", "u", str(at)), Position(1, "e"), at) for at in (1.0, 2.0, 3.0)]
        await journal.write(Changes(keys=keys))
        await journal.write(Changes(keys_from=2.0))
        await journal.close()
        self.assertEqual(rows(path, "SELECT key FROM keys"), [("3.0",)])

    async def test_portions(self) -> None:
        """What is read at once is bounded in rows and in bytes."""
        journal = await open_journal(self, journal_path(self))
        small = [publication(n) for n in range(1, 1501)]
        large = [publication(n, "b", b"1" * 300_000) for n in range(1, 10)]
        await journal.write(
            Changes([], [TopicState("a", "e", 1500, 1), TopicState("b", "e", 9, 1)], small + large)
        )
        sizes = []
        after: int | None = 0
        while after is not None:
            found, after = await journal.publications(after)
            sizes.append(len(found))
        self.assertEqual(sizes, [1000, 504, 4, 1, 0])
        self.assertEqual(await publications(journal), small + large)

    async def test_all_or_nothing(self) -> None:
        """A write that the disk has no room for leaves nothing, and the next one finds room."""
        journal = await open_journal(self, journal_path(self))
        await journal.write(Changes([], [TopicState("a", "e", 1, 1)], [publication(1)]))
        await journal.fill_disk()
        large = [publication(n, "b", b"1" * 10_000) for n in range(1, 10)]
        changes = Changes(["a"], [TopicState("b", "e", 9, 1)], large)
        with self.assertRaises(Unavailable):
            await journal.write(changes)
        self.flushLoggedErrors()
        self.assertEqual(await publications(journal), [publication(1)])
        await journal.fill_disk(False)
        await journal.write(changes)
        self.assertEqual(await publications(journal), large)

    async def test_a_position_is_taken_once(self) -> None:
        """Two publications at one position are refused by the file itself."""
        journal = await open_journal(self, journal_path(self))
        changes = Changes([], [TopicState("a", "e", 1, 1)], [publication(1)])
        await journal.write(changes)
        with self.assertRaises(sqlite3.IntegrityError):
            await journal.write(changes)

    async def test_one_server_at_a_time(self) -> None:
        """A file that is open cannot be opened again: that is told in one line."""
        self.patch(database, "_PATIENCE", 0.1)
        path = journal_path(self)
        journal = await open_journal(self, path)
        with self.assertRaises(ConfigurationError) as caught:
            await Journal(path, reactor).open()
        self.assertIn("locked", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        await journal.write(Changes([], [TopicState("a", "e", 1, 1)], [publication(1)]))
        await journal.close()
        again = await open_journal(self, path)
        self.assertEqual(await publications(again), [publication(1)])

    async def test_other_files(self) -> None:
        """Another kind of file, also the one of users, is refused and left untouched."""
        folder = make_state_dir(self)
        users = os.path.join(folder, "realtime.sqlite3")
        await (await open_database(self, users)).close()
        future = os.path.join(folder, "future.sqlite3")
        await (await open_journal(self, future)).close()
        with closing(sqlite3.connect(future)) as connection:
            connection.execute("PRAGMA user_version = 99")
        for path, problem in ((users, "another program"), (future, "version 99")):
            before = content(path)
            with self.assertRaises(ConfigurationError) as caught:
                await Journal(path, reactor).open()
            self.assertIn(problem, str(caught.exception))
            self.assertEqual(content(path), before)
