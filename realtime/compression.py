"""Compression of messages (permessage-deflate, RFC 7692), shared by all who get the same ones.

Every message is compressed by itself, without the context of those before, in both directions:
so a publication is compressed once whatever the number of its subscribers, and no connection keeps
a window of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from realtime.frames import TEXT_HEAD, compressed_frame, frames_in

# Bytes of a message from which on it is compressed; less gains nothing.
LEAST = 128
_LEVEL = 6
_MEMORY = 8
_LARGEST_WINDOW = 15
# How a block ends that is flushed, which the receiver adds again (RFC 7692 section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


def accept_deflate(
    offers: Sequence[object], max_message: int
) -> PerMessageDeflateOfferAccept | None:
    """Accept the first offer of permessage-deflate; no message may inflate to more than that."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(
                offer,
                request_no_context_takeover=True,
                no_context_takeover=True,
                window_bits=offer.request_max_window_bits or _LARGEST_WINDOW,
                max_message_size=max_message,
            )
    return None


class Deflater:
    """Compresses framed messages; what many get one after the other, once."""

    def __init__(self) -> None:
        self._data = b""
        self._deflated: dict[int, bytes] = {}

    def deflate(self, data: bytes, window: int) -> bytes:
        """Frames with their text messages compressed for a window of `window` bits (9 to 15)."""
        if data is not self._data:
            self._data = data
            self._deflated = {}
        deflated = self._deflated.get(window)
        if deflated is None:
            deflated = self._deflated[window] = _deflate(data, window)
        return deflated


def _deflate(data: bytes, window: int) -> bytes:
    parts = []
    for head, frame, message in frames_in(data):
        if head != TEXT_HEAD or len(message) < LEAST:
            parts.append(frame)
            continue
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window, _MEMORY)
        packed = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        parts.append(compressed_frame(packed.removesuffix(_TAIL)))
    return b"".join(parts)
