"""The contract of presence, which every implementation is held to."""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from realtime.interfaces import IPresence
from realtime.model import Identity, Member, Namespace, PresencePage
from tests.support.peers import identity_of, strict_json

NOISY = Namespace(">", presence=True, join_leave=True)
QUIET = Namespace(">", presence=True)
GRACE = 5


class PresenceContract:
    """Mix in before `twisted.trial.unittest.TestCase`, and say how to make one."""

    assertEqual: Any
    assertIsNone: Any
    assertTrue: Any
    presence: Any

    async def make(self, grace: int = GRACE) -> IPresence:
        """Make one whose users are told by `announced`; nothing is present."""
        raise NotImplementedError

    async def announced(self) -> list[dict[str, Any]]:
        """What has been announced since the last asking: type, topic, and what is in the data."""
        raise NotImplementedError

    async def pass_seconds(self, seconds: int) -> None:
        """Let time pass."""
        raise NotImplementedError

    def join(
        self, connection: str, user: str, topic: str = "t", namespace: Namespace = NOISY
    ) -> None:
        """A connection of a user subscribes."""
        identity: Identity = identity_of(user, username=f"name of {user}")
        self.presence.join(topic, namespace, connection, identity)

    async def page(
        self, topic: str = "t", limit: int = 100, after: str | None = None
    ) -> PresencePage:
        """Who is there."""
        page: PresencePage = await self.presence.members(topic, limit=limit, after=after)
        return page

    async def told(self) -> list[tuple[str, str]]:
        """Type and user of what has been announced."""
        return [(each["type"], each["data"]["user_id"]) for each in await self.announced()]

    async def test_provides_the_interface(self) -> None:
        """It has the methods of `IPresence`."""
        self.assertTrue(verifyObject(IPresence, await self.make()))

    async def test_nobody(self) -> None:
        """A topic that nobody is on is empty; leaving it is nothing."""
        self.presence = await self.make()
        self.presence.leave("t", "c1")
        self.presence.leave_all("c1")
        self.assertEqual(await self.page(), PresencePage(0, 0, (), None))
        self.assertIsNone(await self.presence.set_state("t", "u1", b"1"))
        self.assertEqual(await self.told(), [])

    async def test_users_and_connections(self) -> None:
        """Users are counted once, with the number of their connections; joining twice is once."""
        self.presence = await self.make()
        for connection, user in (("c1", "u1"), ("c2", "u2"), ("c3", "u1"), ("c3", "u1")):
            self.join(connection, user)
        page = await self.page()
        self.assertEqual((page.users, page.connections), (2, 3))
        self.assertEqual(
            set(page.members), {Member("u1", "name of u1", 2), Member("u2", "name of u2", 1)}
        )
        self.assertEqual(await self.told(), [("Join", "u1"), ("Join", "u2")])

    async def test_what_is_announced(self) -> None:
        """An announcement names the topic and the user."""
        self.presence = await self.make(grace=0)
        self.join("c1", "u1", "a.b")
        await self.presence.set_state("a.b", "u1", b'{"x":1.50}')
        self.presence.leave("a.b", "c1")
        who = {"topic": "a.b", "user_id": "u1", "username": "name of u1"}
        self.assertEqual(
            [(each["type"], each["data"]) for each in await self.announced()],
            [("Join", who), ("Update", who | {"state": {"x": 1.5}}), ("Leave", who)],
        )

    async def test_quiet(self) -> None:
        """Where the namespace does not ask for it nothing is announced, and all else is as ever."""
        self.presence = await self.make(grace=0)
        self.join("c1", "u1", namespace=QUIET)
        self.assertEqual(
            await self.presence.set_state("t", "u1", b"1"), Member("u1", "name of u1", 1, b"1")
        )
        self.assertEqual((await self.page()).users, 1)
        self.presence.leave("t", "c1")
        self.assertEqual((await self.page()).users, 0)
        self.assertEqual(await self.told(), [])

    async def test_grace(self) -> None:
        """Who has gone is present for the time of grace, then not, and only then has left."""
        self.presence = await self.make()
        self.join("c1", "u1")
        self.presence.leave("t", "c1")
        await self.pass_seconds(GRACE - 1)
        self.assertEqual(
            await self.page(), PresencePage(1, 0, (Member("u1", "name of u1", 0),), None)
        )
        self.assertEqual(await self.told(), [("Join", "u1")])
        await self.pass_seconds(2)
        self.assertEqual(await self.page(), PresencePage(0, 0, (), None))
        self.assertEqual(await self.told(), [("Leave", "u1")])

    async def test_reload_makes_no_noise(self) -> None:
        """Who comes back in time has not been away, and keeps the state."""
        self.presence = await self.make()
        self.join("c1", "u1")
        await self.presence.set_state("t", "u1", b"7")
        await self.announced()
        for number in range(2, 5):
            self.presence.leave_all(f"c{number - 1}")
            await self.pass_seconds(GRACE - 1)
            self.join(f"c{number}", "u1")
        await self.pass_seconds(3 * GRACE)
        self.assertEqual(await self.told(), [])
        (member,) = (await self.page()).members
        self.assertEqual((member.connections, member.state), (1, b"7"))

    async def test_only_first_and_last(self) -> None:
        """Other connections come and go without an announcement."""
        self.presence = await self.make(grace=0)
        for connection in ("c1", "c2", "c3"):
            self.join(connection, "u1")
        for connection in ("c2", "c1", "c1"):
            self.presence.leave("t", connection)
        self.assertEqual(await self.told(), [("Join", "u1")])
        self.presence.leave("t", "c3")
        self.assertEqual(await self.told(), [("Leave", "u1")])

    async def test_leave_all(self) -> None:
        """A connection's end takes it off all of its topics, and no other."""
        self.presence = await self.make(grace=0)
        for topic in ("a", "b"):
            self.join("c1", "u1", topic)
            self.join("c2", "u2", topic)
        self.presence.leave_all("c1")
        for topic in ("a", "b"):
            self.assertEqual([m.user_id for m in (await self.page(topic)).members], ["u2"])

    async def test_state(self) -> None:
        """A state is set, told, replaced and cleared; the same again is no news."""
        self.presence = await self.make()
        self.join("c1", "u1")
        await self.announced()
        for state in (b"1", b"1", b'"x"', None):
            member = await self.presence.set_state("t", "u1", state)
            self.assertEqual(member, Member("u1", "name of u1", 1, state))
            self.assertEqual((await self.page()).members, (member,))
        self.assertEqual([each["data"]["state"] for each in await self.announced()], [1, "x", None])

    async def test_pages(self) -> None:
        """Pages together have everybody once; a page of none still counts."""
        self.presence = await self.make()
        users = [f"u{number}" for number in range(7)]
        for user in users:
            self.join(f"c of {user}", user)
        seen: list[str] = []
        after = None
        while True:
            page = await self.page(limit=3, after=after)
            self.assertEqual((page.users, page.connections), (7, 7))
            seen += [member.user_id for member in page.members]
            after = page.after
            if after is None:
                break
        self.assertEqual(seen, users)
        self.presence.leave_all("c of u2")
        await self.pass_seconds(GRACE + 1)
        page = await self.page(limit=2, after="u2")
        self.assertEqual([member.user_id for member in page.members], ["u3", "u4"])
        self.presence.join("t", NOISY, "c of u2", identity_of("u2"))
        self.assertEqual(await self.page(limit=0), PresencePage(7, 7, (), None))


def decoded(announcements: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Announcements as their receivers read them."""
    messages = [(topic, strict_json(message)) for topic, message in announcements]
    for topic, message in messages:
        assert message["data"]["topic"] == topic
    return [message for _, message in messages]
