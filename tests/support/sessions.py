"""The contract of session stores, which every implementation is held to."""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from realtime.errors import InvalidCredentials, InvalidToken
from realtime.interfaces import ISessions
from realtime.model import Identity
from tests.support.identity import START


def identity(user_id: str, session_id: str | None) -> Identity:
    """Make an identity of which only the ids matter."""
    return Identity(user_id, None, frozenset(), session_id, 0.0)


class SessionsContract:
    """Mix in before `twisted.trial.unittest.TestCase`; `setUp` sets what is declared here.

    Sessions last 30 days, and begin at `START` on the clock.
    """

    assertEqual: Any
    assertIsNone: Any
    assertRaises: Any
    assertTrue: Any
    assertFalse: Any
    clock: Any
    sessions: Any
    # A user who has an account, and what the listener has been told.
    user_id: str
    revoked: list[tuple[str, str]]

    async def tick(self) -> None:
        """Let two seconds pass, and what has to happen in them."""
        raise NotImplementedError

    async def remove_user(self) -> None:
        """Remove the user's account."""
        raise NotImplementedError

    async def change_password(self) -> None:
        """Give the user another password."""
        raise NotImplementedError

    async def begin(self, refresh_id: str = "r1", **more: float) -> str:
        """Begin a session; answer its id."""
        until = self.clock.seconds() + 3700
        session = await self.sessions.create(
            self.user_id, refresh_id=refresh_id, access_until=until, **more
        )
        session_id: str = session.session_id
        return session_id

    def refuses(self, session_id: str | None, issued_at: float = 0.0) -> bool:
        """Whether a token of the user is refused."""
        refused: bool = self.sessions.is_revoked(identity(self.user_id, session_id), issued_at)
        return refused

    async def test_provides_the_interface(self) -> None:
        """It has the methods of `ISessions`."""
        self.assertTrue(verifyObject(ISessions, self.sessions))

    async def test_create_and_get(self) -> None:
        """A session is there until it expires."""
        session_id = await self.begin()
        session = await self.sessions.get(session_id)
        assert session is not None
        self.assertEqual((session.user_id, session.created_at), (self.user_id, START))
        self.assertEqual(session.expires_at, START + 30 * 86400)
        self.clock.advance(30 * 86400)
        self.assertIsNone(await self.sessions.get(session_id))

    async def test_end(self) -> None:
        """An ended session is gone, refused at once, and told of once."""
        session_id = await self.begin()
        self.assertTrue(await self.sessions.end(session_id))
        self.assertIsNone(await self.sessions.get(session_id))
        self.assertTrue(self.refuses(session_id))
        await self.tick()
        self.assertFalse(await self.sessions.end(session_id))
        self.assertEqual(self.revoked, [("session", session_id)])

    async def test_removed_user(self) -> None:
        """A removed user's sessions end, and no other can begin."""
        session_id = await self.begin()
        await self.remove_user()
        await self.tick()
        self.assertTrue(self.refuses(session_id))
        self.assertTrue(self.refuses(None, self.clock.seconds() + 99))
        with self.assertRaises(InvalidCredentials):
            await self.begin()

    async def test_password_changed_during_login(self) -> None:
        """A login that saw the former password begins no session."""
        since = self.clock.seconds()
        self.clock.advance(1)
        await self.change_password()
        self.clock.advance(1)
        with self.assertRaises(InvalidCredentials):
            await self.begin(since=since)
        await self.begin(since=self.clock.seconds())

    async def test_renew(self) -> None:
        """The refresh token may be used again and again; the session's end stays."""
        session_id = await self.begin("r1")
        for _ in range(3):
            await self.sessions.renew(session_id, self.user_id, "r1", access_until=START + 9999)
        session = await self.sessions.get(session_id)
        self.assertEqual(session and session.expires_at, START + 30 * 86400)

    async def test_renew_refused(self) -> None:
        """An ended, expired, unknown or another's session is not renewed."""
        ended, live = await self.begin("r1"), await self.begin("r1")
        await self.sessions.end(ended)
        for session_id, user_id in ((ended, self.user_id), ("x", self.user_id), (live, "user_x")):
            with self.assertRaises(InvalidToken):
                await self.sessions.renew(session_id, user_id, "r1", access_until=START + 9999)
        self.clock.advance(30 * 86400)
        with self.assertRaises(InvalidToken):
            await self.sessions.renew(live, self.user_id, "r1", access_until=START + 9999)

    async def test_rotation(self) -> None:
        """A replaced refresh token that comes back ends the session."""
        session_id = await self.begin("r1")
        self.clock.advance(100)
        until = START + 9999
        await self.sessions.renew(
            session_id, self.user_id, "r1", access_until=until, next_refresh_id="r2"
        )
        session = await self.sessions.get(session_id)
        self.assertEqual(session and session.expires_at, START + 100 + 30 * 86400)
        with self.assertRaises(InvalidToken):
            await self.sessions.renew(session_id, self.user_id, "r1", access_until=until)
        self.assertTrue(self.refuses(session_id))
        self.assertEqual(self.revoked, [("session", session_id)])
        with self.assertRaises(InvalidToken):
            await self.sessions.renew(session_id, self.user_id, "r2", access_until=until)

    async def test_revocation_outlives_renewed_access(self) -> None:
        """A session ended after a renewal is refused until its last access token has expired."""
        session_id = await self.begin()
        await self.sessions.renew(session_id, self.user_id, "r1", access_until=START + 50_000)
        await self.sessions.end(session_id)
        self.clock.advance(40_000)
        await self.tick()
        self.assertTrue(self.refuses(session_id))
