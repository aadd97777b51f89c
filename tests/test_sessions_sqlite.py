"""Tests of realtime.sessions_sqlite."""

import sqlite3
from contextlib import closing

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from realtime.errors import ConfigurationError, InvalidCredentials
from realtime.sessions_sqlite import POLL_SECONDS, PURGE_SECONDS, Sessions
from tests.support.identity import PASSWORD, START, IdentityKit, make_identity
from tests.support.sessions import NODES, SessionsContract, identity


def count(connection: sqlite3.Connection) -> tuple[int, int]:
    """Count sessions and revocations."""
    query = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM revocations)"
    row: tuple[int, int] = connection.execute(query).fetchone()
    return row


class SessionsTests(SessionsContract, TestCase):
    """Sessions in a database, and a second process on the same file."""

    async def setUp(self) -> None:
        self.kit = await make_identity(self)
        self.clock = self.kit.clock
        kits = [self.kit, *[await self.other_process() for _ in range(NODES - 1)]]
        self.databases = [kit.database for kit in kits]
        self.nodes = [kit.sessions for kit in kits]
        self.told = [kit.revoked for kit in kits]
        self.user_id = (await self.kit.accounts.create("alice", PASSWORD)).user_id

    async def other_process(self) -> IdentityKit:
        """Open the same file a second time."""
        return await make_identity(self, self.kit.database.path, self.clock)

    async def tick(self) -> None:
        """Let the time for a poll come, and wait for its end."""
        self.clock.advance(POLL_SECONDS)
        for database in self.databases * 2:
            await database.read(lambda c: None)

    async def remove_user(self) -> None:
        """See `SessionsContract`."""
        await self.kit.accounts.remove(self.user_id)

    async def change_password(self) -> None:
        """See `SessionsContract`."""
        await self.kit.accounts.set_password(self.user_id, "battery staple")

    async def test_restart(self) -> None:
        """Sessions and revocations outlive the process; old revocations are not told again."""
        kept, ended = await self.begin(), await self.begin()
        await self.sessions.end(ended)
        again = await self.other_process()
        self.assertIsNotNone(await again.sessions.get(kept))
        self.assertIsNone(await again.sessions.get(ended))
        self.assertTrue(again.sessions.revocations.is_revoked(identity("x", ended), 0.0))
        self.assertEqual(again.revoked, [])

    async def test_seen_from_another_process(self) -> None:
        """What another process revokes is refused and told of at the next poll."""
        other = await self.other_process()
        first = await self.begin()
        await other.accounts.set_password(self.user_id, "battery staple")
        self.assertFalse(self.refuses(first))
        await self.tick()
        self.assertTrue(self.refuses(first))
        self.assertEqual(self.kit.revoked, [("session", first), ("user", self.user_id)])
        await self.tick()
        self.assertEqual(len(self.kit.revoked), 2)

    async def test_new_session_after_revocation(self) -> None:
        """A session begun after a revocation elsewhere is not hit by it at the next poll."""
        other = await self.other_process()
        await other.accounts.set_password(self.user_id, "battery staple")
        self.clock.advance(0.5)
        session_id = await self.begin()
        told = list(self.kit.revoked)
        await self.tick()
        self.assertEqual(self.kit.revoked, told)
        self.assertFalse(self.refuses(session_id, START + 0.5))

    async def test_disable_and_enable(self) -> None:
        """A disabled user is refused whenever a token was issued, until enabled."""
        session_id = await self.begin()
        await self.kit.accounts.set_disabled(self.user_id, True)
        with self.assertRaises(InvalidCredentials):
            await self.begin()
        self.clock.advance(400 * 86400)
        await self.sessions.poll()
        self.assertTrue(self.refuses(None, self.clock.seconds() + 99))
        await self.kit.accounts.set_disabled(self.user_id, False)
        await self.sessions.poll()
        self.assertTrue(self.refuses(None, self.clock.seconds()))
        self.assertFalse(self.refuses(None, self.clock.seconds() + 1))
        self.assertIsNone(await self.sessions.get(session_id))

    async def test_retention(self) -> None:
        """Expired sessions and revocations leave the database and the memory."""
        ended = await self.begin()
        await self.begin()
        await self.sessions.end(ended)
        self.assertEqual(await self.kit.database.read(count), (1, 1))
        self.clock.advance(POLL_SECONDS)
        await self.tick()
        self.assertTrue(self.refuses(ended))
        self.clock.advance(3700)
        await self.tick()
        self.assertEqual(await self.kit.database.read(count), (1, 0))
        self.assertEqual(len(self.sessions.revocations), 0)
        self.clock.advance(30 * 86400 + PURGE_SECONDS)
        await self.tick()
        self.assertEqual(await self.kit.database.read(count), (0, 0))

    async def test_database_fails(self) -> None:
        """A poll that fails is tried again, and what was missed is seen then."""
        other = await self.other_process()
        session_id = await self.begin()
        rename = "ALTER TABLE revocations RENAME TO {}"
        await other.sessions.end(session_id)
        await self.kit.database.run(lambda c: c.execute(rename.format("away")))
        await self.tick()
        self.assertFalse(self.refuses(session_id))
        await self.kit.database.run(lambda c: c.execute("ALTER TABLE away RENAME TO revocations"))
        await self.tick()
        self.assertTrue(self.refuses(session_id))

    async def test_damaged_rows(self) -> None:
        """Revocations and sessions that make no sense are mistakes that name the file."""
        session_id = await self.begin()
        self.damage("UPDATE sessions SET created_at = 'yesterday'")
        with self.assertRaises(ConfigurationError) as caught:
            await self.kit.sessions.get(session_id)
        self.assertIn(self.kit.database.path, str(caught.exception))
        for row in ("'kind', 'x', 0, 0", "'user', x'ff', 0, 0", "'user', 'x', 'now', 0"):
            self.damage(f"INSERT INTO revocations (kind, id, at, expires) VALUES ({row})")
            with self.assertRaises(ConfigurationError) as caught:
                await Sessions(self.kit.database, self.kit.clock, session_ttl=1).start(print)
            self.assertIn("revocation", str(caught.exception))
            self.damage("DELETE FROM revocations")

    def damage(self, statement: str) -> None:
        """Change the file as no server does."""
        with closing(sqlite3.connect(self.kit.database.path)) as other:
            other.execute(statement)
            other.commit()

    async def test_listener_fails(self) -> None:
        """A listener that raises is logged, and the revocation holds."""
        sessions = Sessions(self.kit.database, self.clock, session_ttl=60)

        def listener(kind: str, id: str) -> None:
            raise KeyError(id)

        await sessions.start(listener)
        self.addCleanup(sessions.stop)
        session_id = await self.begin()
        self.assertTrue(await sessions.end(session_id))
        self.assertTrue(sessions.revocations.is_revoked(identity("u", session_id), 0.0))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_stop(self) -> None:
        """Stopping leaves nothing scheduled, waits for a poll under way, and may be repeated."""
        for node in self.nodes[1:]:
            await node.stop()
        self.clock.advance(POLL_SECONDS)
        stopping = Deferred.fromCoroutine(self.sessions.stop())
        self.assertNoResult(stopping)
        await stopping
        self.assertEqual(self.clock.getDelayedCalls(), [])
        await self.sessions.stop()

    async def test_stop_after_the_database(self) -> None:
        """A poll of a closed database is an error in the log and no more."""
        await self.kit.database.close()
        self.clock.advance(POLL_SECONDS * 3)
        await self.sessions.stop()
