"""The contract of session stores, which every implementation is held to."""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from realtime.errors import InvalidCredentials, InvalidToken
from realtime.interfaces import ISessions
from realtime.model import Identity
from tests.support.identity import START

# How many nodes there are.
NODES = 3


def identity(user_id: str, session_id: str | None) -> Identity:
    """Make an identity of which only the ids matter."""
    return Identity(user_id, None, frozenset(), session_id, 0.0)


class SessionsContract:
    """Mix in before `twisted.trial.unittest.TestCase`; `setUp` sets what is declared here.

    Sessions last 30 days, and begin at `START` on the clock.
    """

    assertEqual: Any
    assertIsNone: Any
    assertIsNotNone: Any
    assertRaises: Any
    assertTrue: Any
    assertFalse: Any
    clock: Any
    # The sessions of `NODES` nodes, and what the listener of each has been told.
    nodes: list[Any]
    told: list[list[tuple[str, str]]]
    # A user who has an account.
    user_id: str

    @property
    def sessions(self) -> Any:
        """The sessions of the first node."""
        return self.nodes[0]

    @property
    def revoked(self) -> list[tuple[str, str]]:
        """What the first node's listener has been told."""
        return self.told[0]

    async def tick(self) -> None:
        """Let two seconds pass, and what has to happen in them."""
        raise NotImplementedError

    async def remove_user(self) -> None:
        """Remove the user's account."""
        raise NotImplementedError

    async def change_password(self) -> None:
        """Give the user another password."""
        raise NotImplementedError

    async def begin(self, refresh_id: str = "r1", node: int = 0, **more: float) -> str:
        """Begin a session; answer its id."""
        until = self.clock.seconds() + 3700
        session = await self.nodes[node].create(
            self.user_id, refresh_id=refresh_id, access_until=until, **more
        )
        session_id: str = session.session_id
        return session_id

    async def renew(self, session_id: str, refresh_id: str, node: int = 0, **more: str) -> None:
        """Renew a session of the user's."""
        until = self.clock.seconds() + 3700
        await self.nodes[node].renew(
            session_id, self.user_id, refresh_id, access_until=until, **more
        )

    def refuses(self, session_id: str | None, issued_at: float = 0.0, node: int = 0) -> bool:
        """Whether a token of the user is refused."""
        refused: bool = self.nodes[node].is_revoked(identity(self.user_id, session_id), issued_at)
        return refused

    def all_refuse(self, session_id: str | None, issued_at: float = 0.0) -> list[bool]:
        """Whether a token of the user is refused, by each node."""
        return [self.refuses(session_id, issued_at, node) for node in range(NODES)]

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

    async def test_end_foreign(self) -> None:
        """A session that is not stored here is refused for as long as was asked."""
        self.assertFalse(await self.sessions.end("ext 1"))
        self.assertTrue(await self.sessions.end("ext 1", access_until=START + 5000))
        await self.tick()
        self.assertEqual(self.all_refuse("ext 1"), [True] * NODES)
        self.assertEqual(self.told, [[("session", "ext 1")]] * NODES)
        self.clock.advance(4000)
        await self.tick()
        self.assertEqual(self.all_refuse("ext 1"), [True] * NODES)

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

    # -- several nodes -----------------------------------------------------------------------

    async def test_seen_by_all(self) -> None:
        """A session begun on one node is there on all."""
        session_id = await self.begin()
        found = [await node.get(session_id) for node in self.nodes]
        self.assertEqual(found, [found[0]] * NODES)
        self.assertIsNotNone(found[0])

    async def test_ended_elsewhere(self) -> None:
        """A session that any node ends is gone, refused and told of once, on all."""
        session_id, other = await self.begin(), await self.begin()
        self.assertTrue(await self.nodes[-1].end(session_id))
        await self.tick()
        self.assertEqual(self.all_refuse(session_id), [True] * NODES)
        self.assertEqual(self.all_refuse(other), [False] * NODES)
        self.assertEqual([await node.get(session_id) for node in self.nodes], [None] * NODES)
        with self.assertRaises(InvalidToken):
            await self.renew(session_id, "r1")
        await self.tick()
        self.assertEqual(self.told, [[("session", session_id)]] * NODES)

    async def test_user_revoked_for_all(self) -> None:
        """A new password ends what was before it on all nodes, and nothing that comes after."""
        before = [await self.begin(node=node) for node in range(NODES)]
        await self.change_password()
        await self.tick()
        after = [await self.begin(node=node) for node in range(NODES)]
        await self.tick()
        for session_id in before:
            self.assertEqual(self.all_refuse(session_id), [True] * NODES)
        for session_id in after:
            self.assertEqual(self.all_refuse(session_id, self.clock.seconds()), [False] * NODES)
        wanted = sorted([*(("session", each) for each in before), ("user", self.user_id)])
        self.assertEqual([sorted(told) for told in self.told], [wanted] * NODES)

    async def test_rotation_over_nodes(self) -> None:
        """A refresh token replaced on one node ends the session when it comes to another."""
        session_id = await self.begin("r1")
        await self.renew(session_id, "r1", node=1, next_refresh_id="r2")
        await self.renew(session_id, "r2", node=2, next_refresh_id="r3")
        with self.assertRaises(InvalidToken):
            await self.renew(session_id, "r2", node=0)
        await self.tick()
        self.assertEqual(self.all_refuse(session_id), [True] * NODES)
        with self.assertRaises(InvalidToken):
            await self.renew(session_id, "r3", node=2)
