"""Tests of realtime.frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.frames import text_frame
from tests.support.peers import read_frames
from tests.support.strategies import json_texts


class TextFrameTests(SynchronousTestCase):
    """Framing, read back by a reader written from RFC 6455."""

    def test_examples(self) -> None:
        """The RFC's own example, and the empty message."""
        self.assertEqual(text_frame(b"Hello"), bytes.fromhex("810548656c6c6f"))
        self.assertEqual(text_frame(b""), bytes.fromhex("8100"))

    def test_head_of_each_size(self) -> None:
        """Lengths take the shortest of the three encodings."""
        for size, head in [
            (125, "817d"),
            (126, "817e007e"),
            (65535, "817effff"),
            (65536, "817f0000000000010000"),
        ]:
            frame = text_frame(b"x" * size)
            self.assertEqual(frame[: len(frame) - size].hex(), head)
            self.assertEqual(frame[len(frame) - size :], b"x" * size)

    @given(st.lists(st.one_of(json_texts, st.sampled_from([125, 126, 65535, 65536]).map(bytes))))
    def test_frames_one_after_another(self, messages: list[bytes]) -> None:
        """Frames that are joined come apart as the messages that went in."""
        data = b"".join(map(text_frame, messages))
        self.assertEqual(read_frames(data), (messages, b""))
        if data:
            self.assertEqual(read_frames(data[:-1])[0], messages[:-1])
