"""Tests of realtime.revocations."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.revocations import Revocation, Revocations
from tests.support.sessions import identity


class RevocationsTests(SynchronousTestCase):
    """What is kept in memory."""

    def test_session(self) -> None:
        """A revoked session is refused whenever the token was issued, others are not."""
        revocations = Revocations()
        self.assertTrue(revocations.add(Revocation("session", "s", 10.0, 99.0)))
        self.assertFalse(revocations.add(Revocation("session", "s", 10.0, 99.0)))
        self.assertTrue(revocations.is_revoked(identity("u", "s"), 50.0))
        self.assertFalse(revocations.is_revoked(identity("u", "t"), 5.0))
        self.assertFalse(revocations.is_revoked(identity("s", None), 5.0))

    def test_user(self) -> None:
        """A user's tokens are refused when issued at or before the revocation."""
        revocations = Revocations()
        self.assertTrue(revocations.add(Revocation("user", "u", 10.0, 99.0)))
        for issued_at, refused in ((0.0, True), (10.0, True), (10.001, False)):
            self.assertIs(revocations.is_revoked(identity("u", None), issued_at), refused)
            self.assertIs(revocations.is_revoked(identity("u", "s"), issued_at), refused)
        self.assertTrue(revocations.add(Revocation("user", "u", inf, inf)))
        self.assertTrue(revocations.is_revoked(identity("u", None), 1e12))

    def test_stamps(self) -> None:
        """Of a user's revocations the one with the latest stamp holds, in whatever order."""
        disabled = Revocation("user", "u", inf, inf, 5.0)
        enabled = Revocation("user", "u", 7.0, 99.0, 7.0)
        for order in ((disabled, enabled), (enabled, disabled)):
            revocations = Revocations()
            for each in order:
                revocations.add(each)
            self.assertEqual(list(revocations), [enabled])
            self.assertFalse(revocations.add(disabled))

    def test_get(self) -> None:
        """A revocation is found by its kind and id."""
        revocations = Revocations()
        session, user = Revocation("session", "x", 0.0, 9.0), Revocation("user", "y", 5.0, 9.0)
        for each in (session, user):
            revocations.add(each)
        found = [revocations.get(kind, id) for kind in ("session", "user") for id in "xy"]
        self.assertEqual(found, [session, None, None, user])
        self.assertEqual(list(revocations), [session, user])

    @given(st.lists(st.tuples(st.sampled_from(["session", "user"]), st.text(), st.floats(0, 9))))
    def test_purge(self, rows: list[tuple[str, str, float]]) -> None:
        """Purging forgets exactly what has expired: a session by the latest time it was given."""
        revocations = Revocations()
        last: dict[tuple[str, str], float] = {}
        for kind, id, expires in rows:
            revocations.add(Revocation(kind, id, 0.0, expires))
            known = last.get((kind, id), 0.0) if kind == "session" else 0.0
            last[kind, id] = max(known, expires)
        revocations.purge(5.0)
        self.assertEqual(len(revocations), sum(expires > 5.0 for expires in last.values()))
