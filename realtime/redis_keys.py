"""What is what in Redis: keys, channels, and what is said on the channels. Pure.

Everything begins with the prefix, so that several services share one server. On a topic's channel
a message is an announcement, `!` and the message for clients, or a publication: its offset, a
blank, its epoch, a blank and the rest as `encode_rest` has it; without a history, offset 0 and an
empty epoch.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import DecodeError, Struct, msgpack

from realtime.model import Position, Publication

ANNOUNCEMENT: Final = b"!"
DEFAULT_PREFIX: Final = "realtime:"


class _Rest(Struct, array_like=True, gc=False):
    """What of a publication is the same wherever it is."""

    from_user: str
    timestamp: int
    exclude: str | None
    payload: bytes


Message: TypeAlias = bytes | Publication


class Keys:
    """Names under a prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX, database: int = 0) -> None:
        # Channels know no databases: their number is in the prefix, so that they are kept apart.
        self.prefix = (f"{prefix}{database}:" if database else prefix).encode()
        self._channel = self.prefix + b"t:"
        self._skip = len(self._channel)

    def key(self, sort: str, name: str = "") -> bytes:
        """The key of a sort of thing: `prefix sort:name`, or `prefix sort`."""
        return self.prefix + (f"{sort}:{name}" if name else sort).encode()

    def beginning(self, sort: str) -> bytes:
        """What the keys of a sort of thing begin with."""
        return self.prefix + f"{sort}:".encode()

    def channel(self, topic: str) -> bytes:
        """The channel of a topic."""
        return self._channel + topic.encode()

    def topic(self, channel: bytes) -> str:
        """The topic of a channel."""
        return channel[self._skip :].decode()

    def glob(self, pattern: str) -> bytes:
        """A glob that matches at least the channels of the topics that a pattern matches."""
        # Parts of patterns are whole: `*` for one, `>` for the rest.
        parts = ["*" if part in ("*", ">") else _escape(part) for part in pattern.split(".")]
        return _escape(self._channel.decode()).encode() + ".".join(parts).encode()


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\*?[]" else letter for letter in text)


_encoder: Final = msgpack.Encoder()
_decode = msgpack.Decoder(_Rest).decode


def encode_rest(publication: Publication) -> bytes:
    """A publication but for its topic and position."""
    return _encoder.encode(
        _Rest(
            publication.from_user,
            publication.timestamp,
            publication.exclude,
            bytes(publication.payload),
        )
    )


def decode_rest(topic: str, position: Position | None, rest: bytes) -> Publication:
    """Undo `encode_rest`; raises `ValueError`."""
    try:
        found = _decode(rest)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return Publication(
        topic, found.payload, found.from_user, found.timestamp, position, found.exclude
    )


def encode_message(publication: Publication) -> bytes:
    """What is said on the channel of a publication that has no history."""
    return b"0  " + encode_rest(publication)


def decode_message(topic: str, message: bytes) -> Message:
    """An announcement's text, or a publication; raises `ValueError`."""
    if message[:1] == ANNOUNCEMENT:
        return message[1:]
    offset, epoch, rest = message.split(b" ", 2)
    position = Position(int(offset), epoch.decode()) if epoch else None
    return decode_rest(topic, position, rest)
