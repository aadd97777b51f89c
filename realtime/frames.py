"""WebSocket frames as bytes (RFC 6455 section 5.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

_MEDIUM = Struct("!BBH").pack
_LARGE = Struct("!BBQ").pack
_OPCODE = 0x0F
_CLOSE = 8
_MASKED = 0x80
# The first byte of a final text frame, and the bit in it of one that is compressed.
TEXT_HEAD = 0x81
_COMPRESSED = 0x40
_SMALL = [bytes((0x81, length)) for length in range(126)]


def text_frame(message: bytes) -> bytes:
    """Frame a UTF-8 message as one final, unmasked, uncompressed text frame."""
    length = len(message)
    if length < 126:
        return _SMALL[length] + message
    if length < 65536:
        return _MEDIUM(0x81, 126, length) + message
    return _LARGE(0x81, 127, length) + message


def compressed_frame(message: bytes) -> bytes:
    """Frame a compressed text message, whose first reserved bit says so (RFC 7692 section 6)."""
    frame = text_frame(message)
    return bytes((TEXT_HEAD | _COMPRESSED,)) + frame[1:]


def frames_in(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The first byte, all bytes and the payload of each of a server's frames."""
    start = 0
    while start < len(data):
        length = data[start + 1]
        payload = start + 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[payload : payload + size], "big")
            payload += size
        stop = payload + length
        yield data[start], data[start:stop], data[payload:stop]
        start = stop


def messages_in(data: bytes) -> Iterator[bytes]:
    """The messages that `text_frame` has framed, one after the other."""
    return (message for _, _, message in frames_in(data))


def skip_to_close(data: bytes) -> tuple[bytes, bytes]:
    """Drop the whole frames that a client's bytes begin with, before its Close.

    Answers an incomplete frame whose rest has to come, and the bytes from the first frame on
    that is a Close or needs a closer look; one of the two is empty.
    """
    start = 0
    end = len(data)
    while end - start >= 2 and data[start] & _OPCODE != _CLOSE:
        size = data[start + 1] - _MASKED
        head = 6
        if size == 126:
            if end - start < 4:
                return data[start:], b""
            size = data[start + 2] << 8 | data[start + 3]
            head = 8
        elif not 0 <= size < 126:
            return b"", data[start:]
        if start + head + size > end:
            return data[start:], b""
        start += head + size
    if end - start < 2:
        return data[start:], b""
    return b"", data[start:]
