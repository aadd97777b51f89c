"""Tests of realtime.compression."""

from __future__ import annotations

import zlib
from unittest.mock import patch

from autobahn.websocket.compress import PerMessageDeflateOffer
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.compression import LEAST, Deflater, accept_deflate
from realtime.frames import frames_in, text_frame

COMPRESSED = 0xC1
TEXTS = st.builds(
    lambda part, times: (part * times).encode(), st.text(max_size=20), st.integers(0, 99)
)


def inflate(payload: bytes, window: int) -> bytes:
    """What a receiver makes of a compressed payload, as RFC 7692 section 7.2.2 has it."""
    return zlib.decompressobj(-window).decompress(payload + b"\x00\x00\xff\xff")


class DeflateTests(SynchronousTestCase):
    """Frames in, frames out."""

    @given(st.lists(TEXTS, max_size=5), st.integers(9, 15))
    def test_round_trip(self, messages: list[bytes], window: int) -> None:
        """A receiver has the same messages; short ones stay as they are."""
        data = b"".join(map(text_frame, messages))
        found = []
        for head, _, payload in frames_in(Deflater().deflate(data, window)):
            self.assertEqual(head == COMPRESSED, head != 0x81)
            found.append(inflate(payload, window) if head == COMPRESSED else payload)
            self.assertEqual(head == COMPRESSED, len(found[-1]) >= LEAST)
        self.assertEqual(found, messages)

    def test_other_frames(self) -> None:
        """Control frames are not compressed."""
        data = b"\x89\x00" + text_frame(b"x" * 1000) + b"\x88\x02\x03\xe8"
        heads = [head for head, _, _ in frames_in(Deflater().deflate(data, 15))]
        self.assertEqual(heads, [0x89, COMPRESSED, 0x88])

    def test_shared(self) -> None:
        """What a thousand subscribers get is compressed once for each size of window."""
        deflater, data = Deflater(), text_frame(b"x" * 1000)
        with patch("realtime.compression.zlib.compressobj", wraps=zlib.compressobj) as compress:
            first = [deflater.deflate(data, window) for _ in range(1000) for window in (9, 15)]
            self.assertEqual(compress.call_count, 2)
            other = text_frame(b"y" * 1000)
            self.assertNotIn(deflater.deflate(other, 15), first)
            self.assertEqual(compress.call_count, 3)


class OfferTests(SynchronousTestCase):
    """What is agreed on."""

    def agreed(self, header: dict[str, list[object]]) -> str:
        """The answer to one offer."""
        accept = accept_deflate([PerMessageDeflateOffer.parse(header)], 1000)
        assert accept is not None
        answer: str = accept.get_extension_string()
        return answer

    def test_offers(self) -> None:
        """No context is taken over, and the client's window is kept to."""
        self.assertIn("client_no_context_takeover", self.agreed({}))
        answer = self.agreed({"server_max_window_bits": ["10"]})
        self.assertIn("server_max_window_bits=10", answer)

    def test_none(self) -> None:
        """Offers of something else are not taken."""
        self.assertIsNone(accept_deflate([], 1000))
        self.assertIsNone(accept_deflate([object()], 1000))
