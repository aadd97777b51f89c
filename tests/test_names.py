"""Tests of realtime.names."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.names import (
    check_username,
    is_name,
    is_role,
    new_session_id,
    new_user_id,
    username_key,
)


class NameTests(SynchronousTestCase):
    """Names, usernames, roles and ids."""

    def test_names(self) -> None:
        """A name is 1 to 255 bytes without control or deceptive characters."""
        for fit in ("a", "user@example.com", "Zoë Müller", "用户", "a" * 255, "🧑‍🚀"):
            self.assertTrue(is_name(fit), fit)
        for unfit in (
            "",
            "a" * 256,
            "é" * 128,
            "a\x00",
            "\x7f",
            "\x85",
            "a\n",
            "\u202ea",
            "\ud800",
        ):
            self.assertFalse(is_name(unfit), ascii(unfit))

    @given(st.text(max_size=300))
    def test_a_name_is_bounded_utf8(self, text: str) -> None:
        """Whatever is a name can be written in at most 255 bytes."""
        if is_name(text):
            self.assertLessEqual(len(text.encode()), 255)

    def test_usernames(self) -> None:
        """A username has no white space at its ends and is not like a user id."""
        for fit in ("alice", "user_1", "user_name", "two words"):
            self.assertIsNone(check_username(fit))
        for unfit in ("", " alice", "alice\u00a0", new_user_id(), new_user_id().upper(), "a\tb"):
            self.assertIsNotNone(check_username(unfit))

    def test_same_username(self) -> None:
        """Case and composition make no difference between usernames."""
        for left, right in (("Alice", "aLICE"), ("STRASSE", "straße"), ("Zoe\u0308", "zo\u00eb")):
            self.assertEqual(username_key(left), username_key(right))
        self.assertNotEqual(username_key("alice"), username_key("alicé"))

    def test_roles(self) -> None:
        """A role is a short ASCII word."""
        for fit in ("user", "chat.admin", "team:a-b_c", "a" * 64):
            self.assertTrue(is_role(fit))
        for unfit in ("", "a b", "é", "-a", "a" * 65, "a\n"):
            self.assertFalse(is_role(unfit))

    def test_ids(self) -> None:
        """Ids are names and do not repeat."""
        self.assertEqual(len({new_user_id() for _ in range(100)}), 100)
        self.assertTrue(is_name(new_session_id()))
        self.assertTrue(new_user_id().startswith("user_"))
