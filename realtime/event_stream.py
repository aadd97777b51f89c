"""Server-sent events as bytes, and the ids from which a stream goes on (HTML section 9.2). Pure."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from realtime.errors import InvalidRequest
from realtime.model import Position

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
HEARTBEAT: Final = b":\n\n"
# Topics that a stream's URL may name, and their bytes: their positions are in every id, which has
# to fit the head of the next request, the URL beside it.
MAX_TOPICS: Final = 50
MAX_TOPIC_BYTES: Final = 2048
MAX_ID: Final = 8192

_EVENT: Final = b"data: %b\n\n"
_IDENTIFIED: Final = b"id: %b\ndata: %b\n\n"
_CLOSE: Final = b"event: close\ndata: %b\n\n"
# How the messages begin that may tell positions.
_TELLING: Final = (b'{"type":"Broadcast"', b'{"type":"Status"')


class _Joined(Struct, gc=False):
    topic: str
    offset: int | None = None
    epoch: str | None = None


class _Data(_Joined, gc=False):
    topic: str = ""
    status: str | None = None
    topics: Raw = Raw()


class _Message(Struct, gc=False):
    data: _Data


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_joined = msgspec.json.Decoder(list[_Joined]).decode
_decode_id = msgspec.msgpack.Decoder(
    dict[str, tuple[Annotated[int, Meta(ge=0)], Annotated[str, Meta(max_length=128)]]]
).decode


def event(message: bytes, id: bytes | None = None) -> bytes:
    """A message as an event. Line ends in JSON are blanks between its tokens, and become such."""
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\n", b" ").replace(b"\r", b" ")
    return _EVENT % message if id is None else _IDENTIFIED % (id, message)


def close_event(code: int, reason: str) -> bytes:
    """The last event of a stream: the code and reason that a WebSocket would be closed with."""
    return _CLOSE % msgspec.json.encode({"code": code, "reason": reason})


def encode_id(positions: Mapping[str, Position]) -> bytes:
    """The id of an event after which the topics have these positions."""
    known = {topic: (position.offset, position.epoch) for topic, position in positions.items()}
    return urlsafe_b64encode(msgspec.msgpack.encode(known)).rstrip(b"=")


def decode_id(text: str) -> dict[str, Position]:
    """The positions of an id. Raises `InvalidRequest`."""
    try:
        if len(text) > MAX_ID:
            raise ValueError("it is too long")
        known = _decode_id(urlsafe_b64decode(text.encode("ascii") + b"==="))
    except (ValueError, msgspec.DecodeError):
        message = "The last event's id is none of this server's"
        raise InvalidRequest(message, details={"field": "Last-Event-ID"}) from None
    return {topic: Position(offset, epoch) for topic, (offset, epoch) in known.items()}


class Positions:
    """How far a stream has come on the topics that its URL names."""

    __slots__ = ("_known", "_topics")

    def __init__(self, topics: Iterable[str], known: Mapping[str, Position]) -> None:
        self._topics = frozenset(topics)
        self._known = {topic: known[topic] for topic in known if topic in self._topics}

    @property
    def known(self) -> Mapping[str, Position]:
        """Those that are known so far."""
        return self._known

    def note(self, message: bytes) -> bytes | None:
        """Take in a message that is sent; answer the id of its event where it tells positions."""
        if not self._topics or not message.startswith(_TELLING):
            return None
        try:
            data = _decode_message(message).data
        except RecursionError:  # in a payload nested as deep as the decoder goes
            return None
        told: list[_Joined] = [data]
        if data.status == "subscribed":
            told = _decode_joined(data.topics)
        moved = False
        for each in told:
            if each.offset is not None and each.epoch is not None and each.topic in self._topics:
                self._known[each.topic] = Position(each.offset, each.epoch)
                moved = True
        return encode_id(self._known) if moved else None
