"""Names and messages in Redis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.model import Position, Publication
from realtime.redis_keys import (
    ANNOUNCEMENT,
    Keys,
    decode_message,
    decode_rest,
    encode_message,
    encode_rest,
)
from tests.support.strategies import topics

publications = st.builds(
    Publication,
    topics,
    st.binary(),
    st.text(),
    st.integers(0, 2**53),
    st.none(),
    st.none() | st.text(),
)


class MessageTests(SynchronousTestCase):
    """What is said on channels."""

    @given(publications)
    def test_without_history(self, publication: Publication) -> None:
        """A publication comes back as it was."""
        self.assertEqual(
            decode_message(publication.topic, encode_message(publication)), publication
        )

    @given(publications, st.integers(1, 2**53))
    def test_with_position(self, publication: Publication, offset: int) -> None:
        """A publication has the position that the script puts before it."""
        rest = encode_rest(publication)
        found = decode_message(publication.topic, b"%d e1 " % offset + rest)
        self.assertEqual(found, decode_rest(publication.topic, Position(offset, "e1"), rest))

    @given(st.binary())
    def test_announcements(self, message: bytes) -> None:
        """An announcement comes back as it was."""
        self.assertEqual(decode_message("a", ANNOUNCEMENT + message), message)

    @given(st.binary())
    def test_nonsense(self, message: bytes) -> None:
        """What is neither raises ValueError, and nothing else."""
        if message[:1] != ANNOUNCEMENT:
            try:
                self.assertIsInstance(decode_message("a", message), Publication)
            except ValueError:
                pass


class KeysTests(SynchronousTestCase):
    """`Keys`."""

    def test_keys(self) -> None:
        """Keys begin with the prefix and do not meet."""
        keys = Keys("p:")
        self.assertEqual(keys.key("s", "é"), "p:s:é".encode())
        self.assertEqual(keys.key("nodes"), b"p:nodes")

    def test_databases(self) -> None:
        """Services in several databases of one server, which share its channels, do not meet."""
        self.assertEqual(Keys("p:", 1).channel("a"), b"p:1:t:a")
        self.assertEqual(Keys("p:", 0).channel("a"), b"p:t:a")

    @given(topics)
    def test_channels(self, topic: str) -> None:
        """A channel tells its topic."""
        keys = Keys("a[*]:")
        self.assertEqual(keys.topic(keys.channel(topic)), topic)
