"""Tests of realtime.permissions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.model import Permissions
from realtime.permissions import may_publish, may_subscribe
from tests.support.peers import identity_of
from tests.support.strategies import small_patterns, small_topics, topics
from tests.test_topics import naive_matches

grants = st.none() | st.lists(small_patterns, max_size=3).map(tuple)


def naive_may(granted: tuple[str, ...] | None, topic: str) -> bool:
    """What the module's description says."""
    if topic.startswith("$"):
        return False
    return granted is None or any(
        naive_matches(pattern.split("."), topic.split(".")) for pattern in granted
    )


class PermissionsTests(SynchronousTestCase):
    """Who may use which topic."""

    @given(topics)
    def test_without_permissions_all_but_the_servers(self, topic: str) -> None:
        """A token that says nothing of permissions may use all topics but those with `$`."""
        for permissions in (None, Permissions()):
            identity = identity_of(permissions=permissions)
            self.assertIs(may_subscribe(identity, topic), not topic.startswith("$"))
            self.assertIs(may_publish(identity, topic), not topic.startswith("$"))

    @given(grants, grants, small_topics)
    def test_each_grant_is_for_its_act(
        self,
        subscribe: tuple[str, ...] | None,
        publish: tuple[str, ...] | None,
        topic: str,
    ) -> None:
        """Subscribing is judged by the one list, publishing by the other."""
        identity = identity_of(permissions=Permissions(subscribe, publish))
        self.assertIs(may_subscribe(identity, topic), naive_may(subscribe, topic))
        self.assertIs(may_publish(identity, topic), naive_may(publish, topic))

    def test_no_grant_opens_the_servers_topics(self) -> None:
        """Not even a pattern that names it gives access to a topic of the server's."""
        everything = (">", "$sys", "$sys.>", "*")
        identity = identity_of(permissions=Permissions(everything, everything))
        for topic in ("$sys", "$sys.load", "$"):
            self.assertFalse(may_subscribe(identity, topic))
            self.assertFalse(may_publish(identity, topic))

    def test_dollar_inside_is_plain(self) -> None:
        """Only the first character makes a topic the server's."""
        self.assertTrue(may_subscribe(identity_of(), "a.$sys"))
        self.assertTrue(may_publish(identity_of(), "a$"))

    def test_empty_grant_gives_nothing(self) -> None:
        """An empty list grants nothing, unlike none."""
        identity = identity_of(permissions=Permissions((), None))
        self.assertFalse(may_subscribe(identity, "a"))
        self.assertTrue(may_publish(identity, "a"))
