"""Tests of realtime.database."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from realtime import database
from realtime.database import Damaged, Database, Workers, check
from realtime.errors import ConfigurationError, Unavailable
from tests.support.identity import make_state_dir, make_workers, open_database


class WorkersTests(TestCase):
    """The bounded threads."""

    async def test_off_the_reactor_thread(self) -> None:
        """Work is done in another thread, its result arrives in the reactor's."""
        here = threading.get_ident()
        there = await make_workers(self).run(threading.get_ident)
        self.assertNotEqual(here, there)
        self.assertEqual(here, threading.get_ident())

    async def test_failure(self) -> None:
        """What the work raises is what the caller gets."""
        with self.assertRaises(ZeroDivisionError):
            await make_workers(self).run(lambda: 1 / 0)

    async def test_full_queue(self) -> None:
        """Above the bound work is refused at once; below it, taken again."""
        workers = make_workers(self, threads=1, max_pending=2)
        gate = threading.Event()
        waiting = [workers.run(gate.wait) for _ in range(2)]
        error = self.failureResultOf(workers.run(int), Unavailable).value
        self.assertEqual(error.headers["Retry-After"], "1")
        gate.set()
        await gatherResults(waiting)
        self.assertEqual(await workers.run(int), 0)

    async def test_cancelled_work_still_counts(self) -> None:
        """Giving up waiting does not make room for more work than the threads can do."""
        workers = make_workers(self, threads=1, max_pending=1)
        gate = threading.Event()
        given_up = workers.run(gate.wait)
        given_up.addErrback(lambda failure: None)
        given_up.cancel()
        self.failureResultOf(workers.run(int), Unavailable)
        gate.set()
        await workers.stop()

    async def test_stop(self) -> None:
        """Stopping finishes what was taken, refuses more, and may be repeated."""
        workers = make_workers(self, threads=1)
        done: list[int] = []
        for number in range(5):
            workers.run(done.append, number)
        await workers.stop()
        self.assertEqual(done, [0, 1, 2, 3, 4])
        self.failureResultOf(workers.run(int), Unavailable)
        await workers.stop()
        await Workers(reactor, threads=1, max_pending=1, name="unused").stop()


def count_users(connection: sqlite3.Connection) -> int:
    """Count rows."""
    return int(connection.execute("SELECT count(*) FROM users").fetchone()[0])


def add_user(connection: sqlite3.Connection, name: str) -> None:
    """Insert a row."""
    connection.execute(
        "INSERT INTO users (user_id, username, username_key, password_hash, roles, created_at)"
        " VALUES (?1, ?1, ?1, '', '[]', 0)",
        (name,),
    )


class DatabaseTests(TestCase):
    """The open file."""

    async def test_new_file(self) -> None:
        """A new file is for its owner only, in WAL mode with foreign keys, and waits for locks."""
        db = await open_database(self)
        for name in os.listdir(os.path.dirname(db.path)):
            mode = os.stat(os.path.join(os.path.dirname(db.path), name)).st_mode & 0o777
            self.assertEqual((name, mode), (name, 0o600))

        def pragmas(connection: sqlite3.Connection) -> list[Any]:
            names = ("journal_mode", "foreign_keys", "busy_timeout", "user_version")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        self.assertEqual(await db.read(pragmas), ["wal", 1, 5000, len(database._UPGRADES)])

    async def test_kept(self) -> None:
        """What was committed is there after the file is opened again."""
        db = await open_database(self)
        await db.run(add_user, "a")
        await db.close()
        again = await open_database(self, db.path)
        self.assertEqual(await again.read(count_users), 1)

    async def test_rollback(self) -> None:
        """A function that raises leaves nothing behind, and the next one works."""
        db = await open_database(self)

        def half(connection: sqlite3.Connection) -> None:
            add_user(connection, "a")
            raise KeyError("x")

        with self.assertRaises(KeyError):
            await db.run(half)
        with self.assertRaises(sqlite3.IntegrityError):
            await db.run(lambda c: (add_user(c, "b"), add_user(c, "b")))
        self.assertEqual(await db.read(count_users), 0)

    async def test_in_order(self) -> None:
        """Functions run one after the other, in the order asked for."""
        db = await open_database(self)
        seen: list[int] = []
        calls = [self.successor(db, seen, number) for number in range(20)]
        for call in calls:
            await call
        self.assertEqual(seen, list(range(20)))

    async def successor(self, db: Database, seen: list[int], number: int) -> None:
        await db.run(lambda c: seen.append(number))

    async def test_failure_is_unavailable(self) -> None:
        """When SQLite cannot, the caller gets Unavailable, and the log says why."""
        db = await open_database(self)

        def fail(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with self.assertRaises(Unavailable) as caught:
            await db.run(fail)
        self.assertNotIn("disk", str(caught.exception))

    async def test_damaged_row(self) -> None:
        """A function that cannot read a row is told as damage to this file, and undone."""
        db = await open_database(self)

        def fail(connection: sqlite3.Connection) -> None:
            add_user(connection, "a")
            raise Damaged("no sense in it")

        with self.assertRaises(ConfigurationError) as caught:
            await db.run(fail)
        self.assertEqual(str(caught.exception), f"database {db.path}: damaged: no sense in it")
        self.assertEqual(await db.read(count_users), 0)

    async def test_lock_of_another_process(self) -> None:
        """Readers do not wait for another writer; a writer waits for its turn."""
        db = await open_database(self)
        other = sqlite3.connect(db.path, isolation_level=None, check_same_thread=False)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assertEqual(await db.read(count_users), 0)
        writing = Deferred.fromCoroutine(db.run(add_user, "a"))
        other.execute("COMMIT")
        await writing
        self.assertEqual(await db.read(count_users), 1)

    async def test_closed(self) -> None:
        """A closed database is unavailable, and may be closed again."""
        db = await open_database(self)
        await db.close()
        await db.close()
        with self.assertRaises(Unavailable):
            await db.read(count_users)

    async def test_not_open(self) -> None:
        """A database that was never opened is unavailable."""
        db = Database(os.path.join(make_state_dir(self), "x"), reactor)
        with self.assertRaises(Unavailable):
            await db.read(count_users)
        await db.close()
        self.assertEqual(os.listdir(os.path.dirname(db.path)), [])

    async def test_opened_by_two(self) -> None:
        """Two processes may open a new file at once, and both use it."""
        path = os.path.join(make_state_dir(self), "realtime.sqlite3")
        pair = [Database(path, reactor), Database(path, reactor)]
        for db in pair:
            self.addCleanup(db.close)
        await gatherResults([Deferred.fromCoroutine(db.open()) for db in pair])
        await pair[0].run(add_user, "a")
        self.assertEqual(await pair[1].read(count_users), 1)


class RefusalTests(TestCase):
    """Files that are not to be touched."""

    def setUp(self) -> None:
        self.folder = Path(make_state_dir(self))
        self.path = self.folder / "realtime.sqlite3"

    async def refuse(self, reason: str) -> None:
        """Check that opening fails in one line with the file's name, changing nothing."""
        before = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        with self.assertRaises(ConfigurationError) as caught:
            await Database(str(self.path), reactor).open()
        self.assertIn(str(self.path), str(caught.exception))
        self.assertIn(reason, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual({p.name: p.read_bytes() for p in self.folder.iterdir()}, before)
        with self.assertRaises(ConfigurationError):
            check(str(self.path))

    async def make(self, users: int = 200) -> None:
        db = await open_database(self, str(self.path))
        await db.run(lambda c: [add_user(c, f"user {n} {'x' * 200}") for n in range(users)])
        await db.close()

    async def test_not_sqlite(self) -> None:
        """A file of something else is refused."""
        for content in (b"x", b"hello world\n" * 1000, b"SQLite format 4\x00" + bytes(5000)):
            self.path.write_bytes(content)
            await self.refuse("not an SQLite database")

    async def test_truncated(self) -> None:
        """A file that lost its end is refused."""
        await self.make()
        self.path.write_bytes(self.path.read_bytes()[:-6000])
        await self.refuse("left untouched")

    async def test_header_only(self) -> None:
        """A file that is a header and then rubbish is refused."""
        await self.make()
        self.path.write_bytes(self.path.read_bytes()[:100] + b"\xa5" * 20000)
        await self.refuse("left untouched")

    async def test_damaged(self) -> None:
        """A file with a page overwritten is refused."""
        await self.make()
        content = bytearray(self.path.read_bytes())
        content[8192:12288] = b"\xa5" * 4096
        self.path.write_bytes(content)
        await self.refuse("left untouched")

    async def test_future_version(self) -> None:
        """A file of a later version is refused."""
        await self.make()
        other = sqlite3.connect(self.path)
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("PRAGMA user_version = 99")
        other.close()
        await self.refuse(f"has version 99, this server knows up to {len(database._UPGRADES)}")

    async def test_future_version_in_the_log(self) -> None:
        """A later version counts when it stands in the write-ahead log only."""
        await self.make()
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("PRAGMA user_version = 99")
        other.commit()
        self.assertIn(f"{self.path.name}-wal", os.listdir(self.folder))
        before = self.path.read_bytes()
        with self.assertRaises(ConfigurationError):
            await Database(str(self.path), reactor).open()
        self.assertEqual(self.path.read_bytes(), before)

    async def test_missing_parts(self) -> None:
        """A file without a table or column of its version, or with another kind, is refused."""
        for statement, missing in (
            ("DROP TABLE revocations", "table revocations"),
            ("ALTER TABLE users DROP COLUMN roles", "column users.roles"),
            ("ALTER TABLE users RENAME COLUMN roles TO role", "column users.roles"),
            ("DROP TABLE sessions; CREATE TABLE sessions (session_id)", "sessions.session_id"),
        ):
            await self.make(1)
            other = sqlite3.connect(self.path)
            other.execute("PRAGMA journal_mode = DELETE")
            other.executescript(statement)
            other.close()
            await self.refuse(missing)
            self.path.unlink()

    async def test_more_parts(self) -> None:
        """What an operator has added beside ours does no harm."""
        await self.make(1)
        other = sqlite3.connect(self.path)
        other.execute("CREATE TABLE notes (text)")
        other.execute("ALTER TABLE users ADD COLUMN note TEXT")
        other.close()
        await open_database(self, str(self.path))

    async def test_foreign(self) -> None:
        """Another program's database is refused."""
        other = sqlite3.connect(self.path)
        other.execute("CREATE TABLE t (x)")
        other.close()
        await self.refuse("belongs to another program")

    async def test_no_place(self) -> None:
        """A folder in the file's place, or no folder for it, is refused."""
        self.path.mkdir()
        with self.assertRaises(ConfigurationError) as caught:
            await Database(str(self.path), reactor).open()
        self.assertIn("Is a directory", str(caught.exception))
        nowhere = str(self.folder / "no" / "x")
        with self.assertRaises(ConfigurationError) as caught:
            await Database(nowhere, reactor).open()
        self.assertEqual(str(caught.exception), f"database {nowhere}: No such file or directory")

    async def test_empty_file(self) -> None:
        """An empty file is as good as none."""
        self.path.touch()
        await self.make(1)

    async def test_odd_path(self) -> None:
        """A path may have any characters that mean something in a URI."""
        path = str(self.folder / "a?mode=memory&b#c%41 é.sqlite3")
        for _ in range(2):
            db = await open_database(self, path)
            await db.close()
        self.assertEqual(os.listdir(self.folder), [os.path.basename(path)])


class UpgradeTests(TestCase):
    """Numbered upgrades."""

    async def test_upgrade(self) -> None:
        """An older file gets the upgrades that it lacks and keeps its rows."""
        path = os.path.join(make_state_dir(self), "realtime.sqlite3")
        db = await open_database(self, path)
        await db.run(add_user, "a")
        await db.close()
        more = ("ALTER TABLE users ADD COLUMN x INTEGER DEFAULT 7",)
        self.patch(database, "_UPGRADES", (*database._UPGRADES, more))
        again = await open_database(self, path)
        row = await again.read(lambda c: c.execute("SELECT username, x FROM users").fetchone())
        self.assertEqual(row, ("a", 7))
        version = await again.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0])
        self.assertEqual(version, len(database._UPGRADES))

    async def test_failed_upgrade(self) -> None:
        """An upgrade that fails half-way changes nothing and is told in one line."""
        path = os.path.join(make_state_dir(self), "realtime.sqlite3")
        db = await open_database(self, path)
        await db.close()
        bad = ("ALTER TABLE users ADD COLUMN x INTEGER", "NONSENSE")
        good = database._UPGRADES
        self.patch(database, "_UPGRADES", (*good, bad))
        with self.assertRaises(ConfigurationError) as caught:
            await Database(path, reactor).open()
        self.assertNotIn("\n", str(caught.exception))
        self.patch(database, "_UPGRADES", good)
        again = await open_database(self, path)
        names = await again.read(
            lambda c: [row[1] for row in c.execute("PRAGMA table_info(users)")]
        )
        self.assertNotIn("x", names)
