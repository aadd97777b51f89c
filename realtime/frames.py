"""WebSocket frames from server to client (RFC 6455 section 5.2). Pure."""

from __future__ import annotations

from struct import Struct

_MEDIUM = Struct("!BBH").pack
_LARGE = Struct("!BBQ").pack
_SMALL = [bytes((0x81, length)) for length in range(126)]


def text_frame(message: bytes) -> bytes:
    """Frame a UTF-8 message as one final, unmasked, uncompressed text frame."""
    length = len(message)
    if length < 126:
        return _SMALL[length] + message
    if length < 65536:
        return _MEDIUM(0x81, 126, length) + message
    return _LARGE(0x81, 127, length) + message
