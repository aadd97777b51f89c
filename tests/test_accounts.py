"""Tests of realtime.accounts."""

import sqlite3
from math import inf

from twisted.trial.unittest import TestCase

from realtime.accounts import Accounts
from realtime.errors import ConfigurationError, Conflict, InvalidRequest, NotFound
from realtime.names import new_user_id
from tests.support.identity import (
    PASSWORD,
    START,
    make_clock,
    make_workers,
    open_database,
    quick_hasher,
)


def revocations(connection: sqlite3.Connection) -> list[tuple[str, str, float, float]]:
    """All of them."""
    return connection.execute("SELECT kind, id, at, expires FROM revocations").fetchall()


class AccountsTests(TestCase):
    """Users in a database of their own."""

    async def setUp(self) -> None:
        self.clock = make_clock()
        self.db = await open_database(self)
        self.workers = make_workers(self)
        self.accounts = self.make()

    def make(self, **parameters: int) -> Accounts:
        """Make accounts, with a certain strength of hashes."""
        hasher = quick_hasher(**parameters)
        return Accounts(self.db, hasher, self.workers, self.clock.seconds)

    async def password_hash(self) -> str:
        """Answer the one user's hash."""
        query = "SELECT password_hash FROM users"
        return str(await self.db.read(lambda c: c.execute(query).fetchone()[0]))

    async def test_create(self) -> None:
        """A new user has an id, the default roles, and is found by id and by name."""
        user = await self.accounts.create("user@example.com", PASSWORD)
        self.assertTrue(user.user_id.startswith("user_"))
        self.assertEqual(user.roles, ("user", "subscriber"))
        self.assertEqual((user.created_at, user.disabled), (START, False))
        self.assertEqual(await self.accounts.get(user.user_id), user)
        self.assertEqual(await self.accounts.find("USER@example.com"), user)

    async def test_damaged_rows(self) -> None:
        """A row that makes no sense is a mistake that names file and user."""
        user = await self.accounts.create("alice", PASSWORD)

        async def put(column: str, value: object) -> None:
            statement = f"UPDATE users SET {column} = ?"
            await self.db.run(lambda connection: connection.execute(statement, (value,)))

        for column, value in (
            ("roles", "nonsense"),
            ("roles", '{"admin": 1}'),
            ("roles", "[1]"),
            ("roles", b"\xff"),
            ("roles", "[" * 100_000),
            ("created_at", "yesterday"),
            ("username", b"alice"),
        ):
            await put(column, value)
            for asked in (
                self.accounts.get(user.user_id),
                self.accounts.find("alice"),
                self.accounts.list(),
                self.accounts.verify_password("alice", PASSWORD),
            ):
                with self.assertRaises(ConfigurationError) as caught:
                    await asked
                self.assertIn(self.db.path, str(caught.exception))
                self.assertIn(user.user_id, str(caught.exception))
            await put(column, {"roles": "[]", "created_at": START, "username": "alice"}[column])

    async def test_unknown(self) -> None:
        """Who is not there is not found, whatever was asked."""
        for name in ("nobody", "", "\x00", "\ud800", "a" * 300, "' OR 1=1 --"):
            self.assertIsNone(await self.accounts.find(name))
        self.assertIsNone(await self.accounts.get("user_x"))

    async def test_names_are_unique(self) -> None:
        """A name is taken in every case and composition."""
        await self.accounts.create("Zoë", PASSWORD)
        for name in ("Zoë", "zoë", "ZOE\u0308"):
            with self.assertRaises(Conflict):
                await self.accounts.create(name, PASSWORD)

    async def test_bad_users(self) -> None:
        """Unfit names, passwords and roles are refused with a reason that repeats neither."""
        for name in ("", " a", "a\n", "a" * 256, new_user_id()):
            with self.assertRaises(InvalidRequest):
                await self.accounts.create(name, PASSWORD)
        for password in ("", "short", "x" * 1025):
            with self.assertRaises(InvalidRequest) as caught:
                await self.accounts.create("alice", password)
            self.assertNotIn(password or "?", str(caught.exception))
        for roles in ([""], ["a b"], [f"r{n}" for n in range(33)]):
            with self.assertRaises(InvalidRequest):
                await self.accounts.create("alice", PASSWORD, roles)
        self.assertEqual(await self.accounts.list(), [])

    async def test_list(self) -> None:
        """Users are listed by name, with no attention to case."""
        for name in ("bob", "Alice", "Carol"):
            await self.accounts.create(name, PASSWORD)
        self.assertEqual(
            [u.username for u in await self.accounts.list()], ["Alice", "bob", "Carol"]
        )

    async def test_verify_password(self) -> None:
        """The right password, with the name in any case, gives the user; all else nothing."""
        user = await self.accounts.create("alice", PASSWORD)
        self.assertEqual(await self.accounts.verify_password("ALICE", PASSWORD), user)
        wrong = [("alice", "wrong horse"), ("bob", PASSWORD), ("", ""), ("alice", "x" * 5000)]
        wrong += [("\ud800", PASSWORD), ("alice", "\ud800"), ("alice", ""), ("a" * 300, PASSWORD)]
        for name, password in wrong:
            self.assertIsNone(await self.accounts.verify_password(name, password))

    async def test_same_work_for_unknown_users(self) -> None:
        """An unknown and a disabled user cost one hash, as a wrong password does."""
        work: list[str] = []
        hasher = quick_hasher()

        class Counting:
            """A hasher that counts."""

            def hash(self, password: str) -> str:
                work.append("hash")
                return hasher.hash(password)

            def verify(self, password_hash: str, password: str) -> bool:
                work.append("verify")
                return hasher.verify(password_hash, password)

        user = await self.accounts.create("alice", PASSWORD)
        counting = Accounts(self.db, Counting(), self.workers, self.clock.seconds)
        await counting.verify_password("alice", "wrong horse")
        await counting.verify_password("nobody", "wrong horse")
        await counting.verify_password("", "wrong horse")
        await self.accounts.set_disabled(user.user_id, True)
        await counting.verify_password("alice", PASSWORD)
        self.assertEqual(work, ["verify", "hash", "hash", "hash"])

    async def test_rehash(self) -> None:
        """A login with other parameters than the hash's brings the hash up to date."""
        await self.accounts.create("alice", PASSWORD)
        stronger = self.make(time_cost=2)
        self.assertIsNone(await stronger.verify_password("alice", "wrong horse"))
        self.assertIn("t=1", await self.password_hash())
        self.assertIsNotNone(await stronger.verify_password("alice", PASSWORD))
        self.assertIn("t=2", await self.password_hash())
        self.assertIsNotNone(await stronger.verify_password("alice", PASSWORD))

    async def test_set_password(self) -> None:
        """A new password replaces the old one and revokes what was issued up to now."""
        user = await self.accounts.create("alice", PASSWORD)
        self.clock.advance(5)
        await self.accounts.set_password(user.user_id, "battery staple")
        self.assertIsNone(await self.accounts.verify_password("alice", PASSWORD))
        self.assertEqual(await self.accounts.verify_password("alice", "battery staple"), user)
        ((kind, id, at, expires),) = await self.db.read(revocations)
        self.assertEqual((kind, id, at), ("user", user.user_id, START + 5))
        self.assertEqual(expires, START + 5 + 367 * 86400)

    async def test_set_roles(self) -> None:
        """Roles are replaced, each once, and nothing is revoked."""
        user = await self.accounts.create("alice", PASSWORD)
        await self.accounts.set_roles(user.user_id, ["admin", "user", "admin"])
        found = await self.accounts.get(user.user_id)
        self.assertEqual(found and found.roles, ("admin", "user"))
        self.assertEqual(await self.db.read(revocations), [])

    async def test_disable(self) -> None:
        """A disabled user is refused for as long as it lasts, and then no longer."""
        user = await self.accounts.create("alice", PASSWORD)
        await self.accounts.set_disabled(user.user_id, True)
        self.assertIsNone(await self.accounts.verify_password("alice", PASSWORD))
        self.assertTrue((await self.accounts.list())[0].disabled)
        self.assertEqual(await self.db.read(revocations), [("user", user.user_id, inf, inf)])
        await self.accounts.set_disabled(user.user_id, False)
        self.assertEqual(await self.accounts.verify_password("alice", PASSWORD), user)
        ((_, _, at, _),) = await self.db.read(revocations)
        self.assertEqual(at, START)

    async def test_remove(self) -> None:
        """A removed user is gone, revoked, and the name is free for a new id."""
        user = await self.accounts.create("alice", PASSWORD)
        await self.accounts.remove(user.user_id)
        self.assertIsNone(await self.accounts.find("alice"))
        ((kind, id, at, _),) = await self.db.read(revocations)
        self.assertEqual((kind, id, at), ("user", user.user_id, inf))
        self.assertNotEqual((await self.accounts.create("alice", PASSWORD)).user_id, user.user_id)

    async def test_nobody_to_change(self) -> None:
        """Changing a user who is not there is NotFound and leaves nothing."""
        for change in (
            self.accounts.set_password("user_x", PASSWORD),
            self.accounts.set_roles("user_x", ["a"]),
            self.accounts.set_disabled("user_x", True),
            self.accounts.remove("user_x"),
        ):
            with self.assertRaises(NotFound):
                await change
        self.assertEqual(await self.db.read(revocations), [])
