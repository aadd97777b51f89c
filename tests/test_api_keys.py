"""Tests of realtime.api_keys and realtime.backends."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from twisted.trial.unittest import TestCase

from realtime.api_keys import POLL_SECONDS, PREFIX, ApiKeys
from realtime.backends import Backends
from realtime.errors import ConfigurationError, Conflict, InvalidRequest, InvalidToken
from tests.support.identity import START, make_identity, open_database


class ApiKeysTests(TestCase):
    """Keys in a database, and a second process on the same file."""

    async def setUp(self) -> None:
        """Open a database."""
        self.kit = await make_identity(self)
        self.keys = await self.open()

    async def open(self) -> ApiKeys:
        """The keys of the file, as a server has them."""
        database = await open_database(self, self.kit.database.path)
        keys = ApiKeys(database, self.kit.clock.seconds)
        await keys.start(self.kit.clock)
        self.addCleanup(keys.stop)
        return keys

    async def tick(self) -> None:
        """Let the time for a poll come, and wait for its end."""
        self.kit.clock.advance(POLL_SECONDS)
        await self.keys._db.read(lambda c: None)
        await self.keys._db.read(lambda c: None)

    async def test_life(self) -> None:
        """A key made elsewhere is known within two seconds, and refused so after its removal."""
        other = await self.open()
        key = await other.add("billing")
        self.assertTrue(key.startswith(PREFIX) and len(key) > 40)
        self.assertIsNone(self.keys.identify(key))
        await self.tick()
        identity = self.keys.identify(key)
        assert identity is not None
        self.assertEqual((identity.user_id, identity.roles), ("key:billing", {"service"}))
        for wrong in (key + "x", key[:-1], key.removeprefix(PREFIX), "", "rk_\ud800"):
            self.assertIsNone(self.keys.identify(wrong))
        self.assertTrue(await other.remove("billing"))
        self.assertFalse(await other.remove("billing"))
        await self.tick()
        self.assertIsNone(self.keys.identify(key))

    async def test_list(self) -> None:
        """Keys are listed by name; a name is taken once, and has to be one."""
        for name in ("b", "a"):
            await self.keys.add(name)
        listed = [(key.name, key.created_at) for key in await self.keys.list()]
        self.assertEqual(listed, [("a", START), ("b", START)])
        with self.assertRaises(Conflict):
            await self.keys.add("a")
        for name in ("", "a b", "x" * 65, "é"):
            with self.assertRaises(InvalidRequest):
                await self.keys.add(name)

    async def test_only_the_hash_is_kept(self) -> None:
        """Who reads the file learns no key."""
        key = await self.keys.add("a")
        with closing(sqlite3.connect(self.kit.database.path)) as file:
            self.assertNotIn(key, "\n".join(file.iterdump()))
            self.assertNotIn(key.removeprefix(PREFIX), "\n".join(file.iterdump()))

    async def test_damaged(self) -> None:
        """A row that makes no sense is a mistake that names the file."""
        await self.keys.add("a")
        with closing(sqlite3.connect(self.kit.database.path)) as file:
            file.execute("UPDATE api_keys SET created_at = 'then'")
            file.commit()
        with self.assertRaises(ConfigurationError) as caught:
            await self.keys.list()
        self.assertIn(self.kit.database.path, str(caught.exception))

    async def test_poll_fails(self) -> None:
        """A poll that fails leaves the keys as they were."""
        key = await self.keys.add("a")
        await self.tick()
        await self.keys._db.close()
        self.kit.clock.advance(POLL_SECONDS)
        self.assertIsNotNone(self.keys.identify(key))

    async def test_backends(self) -> None:
        """A key is as good as a token of the role service, and only to backends."""
        key = await self.keys.add("a")
        await self.tick()
        backends = Backends(self.kit.auth, self.keys)
        self.assertEqual(backends.authenticate(key).user_id, "key:a")
        self.assertRaises(InvalidToken, backends.authenticate, f"{PREFIX}x")
        self.assertRaises(InvalidToken, self.kit.auth.authenticate, key)
