"""Tests of realtime.frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.frames import messages_in, skip_to_close, text_frame
from tests.support.peers import read_frames
from tests.support.strategies import json_texts
from tests.support.websocket import CLOSE, CONTINUATION, PING, TEXT, close_frame, frame


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
        self.assertEqual(list(messages_in(data)), messages)
        if data:
            self.assertEqual(read_frames(data[:-1])[0], messages[:-1])


class SkipTests(SynchronousTestCase):
    """Reading over what a client sends until its Close."""

    @given(
        st.lists(
            st.builds(
                frame,
                st.sampled_from([0, 1, 125, 126, 127, 3000, 65535]).map(bytes),
                st.sampled_from([TEXT, CONTINUATION, PING]),
                final=st.booleans(),
            ),
            max_size=6,
        ),
        st.booleans(),
        st.data(),
    )
    def test_any_split(self, frames: list[bytes], closing: bool, choose: st.DataObject) -> None:
        """However the bytes come, all frames are dropped and the Close is left, or nothing."""
        close = close_frame(1000) * closing
        stream = b"".join(frames) + close
        cut = choose.draw(st.integers(0, len(stream)))
        pending, rest = skip_to_close(stream[:cut])
        self.assertTrue(not pending or not rest)
        if rest:
            self.assertEqual(rest, close[: len(rest)])
            rest += stream[cut:]
        else:
            pending, rest = skip_to_close(pending + stream[cut:])
        self.assertEqual((pending, rest), (b"", close))

    def test_what_is_not_plain(self) -> None:
        """Frames without a mask, or with a length of 64 bits, are left to be judged."""
        before = frame(b"x")
        for odd in (frame(b"y", masked=False), frame(b"y", form=64), frame(b"z", CLOSE)):
            self.assertEqual(skip_to_close(before + odd), (b"", odd))
