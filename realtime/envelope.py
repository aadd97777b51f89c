"""The wire codec: commands in, messages out (DESIGN section 3). Pure.

Payloads are never decoded: they are checked, kept as the bytes received, and spliced into what
subscribers get, so that numbers keep their precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from realtime.errors import InvalidRequest, RealtimeError
from realtime.model import Publication

T = TypeVar("T")
CommandId: TypeAlias = str | int | None

_encode = msgspec.json.encode

# Characters that a key or an epoch may have; entries on a page where the command does not say.
MAX_KEY = 128
DEFAULT_PAGE = 100

_BROADCAST = b'{"type":"Broadcast","data":{"topic":%b,"payload":%b,"from_user":%b},"timestamp":%d}'
_POSITIONED = (
    b'{"type":"Broadcast","data":{"topic":%b,"payload":%b,"from_user":%b,"offset":%d,"epoch":%b},'
    b'"timestamp":%d}'
)
_ENTRY = b'{"payload":%b,"from_user":%b,"timestamp":%d,"offset":%d}'


class _Command(Struct, tag_field="type", gc=False):
    pass


Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]


class _Position(Struct, gc=False):
    offset: Annotated[int, Meta(ge=0)]
    epoch: Annotated[str, Meta(max_length=MAX_KEY)]


class _Topics(Struct, gc=False):
    topics: list[str]


class _Subscription(_Topics, gc=False):
    recover: dict[str, _Position] = {}


class _Publication(Struct, gc=False):
    topic: str
    payload: Raw
    key: Key | None = None
    echo: bool = True


class _DirectMessage(Struct, gc=False):
    target_user: str
    payload: Raw
    key: Key | None = None


class _History(Struct, gc=False):
    topic: str
    since: _Position | None = None
    limit: Annotated[int, Meta(ge=0)] = DEFAULT_PAGE
    reverse: bool = False


class _Presence(Struct, gc=False):
    topic: str
    limit: Annotated[int, Meta(ge=0)] = DEFAULT_PAGE
    after: str | None = None
    state: Raw | UnsetType = UNSET


class _Ping(Struct, gc=False):
    timestamp: int | float | None = None


class _Token(Struct, gc=False):
    token: str


class Subscribe(_Command, tag="Subscribe", gc=False):
    """Subscribe to topics and patterns; `recover` says up to where some are known."""

    data: _Subscription
    id: CommandId = None


class Unsubscribe(_Command, tag="Unsubscribe", gc=False):
    """Leave topics."""

    data: _Topics
    id: CommandId = None


class Broadcast(_Command, tag="Broadcast", gc=False):
    """Publish on a topic."""

    data: _Publication
    id: CommandId = None


class DirectMessage(_Command, tag="DirectMessage", gc=False):
    """Message all connections of a user."""

    data: _DirectMessage
    id: CommandId = None


class Ping(_Command, tag="Ping", gc=False):
    """Ask for a Pong."""

    data: _Ping | None = None
    id: CommandId = None


class Authenticate(_Command, tag="Authenticate", gc=False):
    """Renew the connection's token."""

    data: _Token
    id: CommandId = None


class History(_Command, tag="History", gc=False):
    """Read what was published on a topic."""

    data: _History
    id: CommandId = None


class Presence(_Command, tag="Presence", gc=False):
    """Read who is on a topic, or set one's own state there."""

    data: _Presence
    id: CommandId = None


Command: TypeAlias = (
    Subscribe | Unsubscribe | Broadcast | DirectMessage | Ping | Authenticate | History | Presence
)
COMMANDS = tuple(command.__struct_config__.tag for command in get_args(Command))


class _Outline(Struct, gc=False):
    id: CommandId = None


_decode = msgspec.json.Decoder(Command).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_any = msgspec.json.Decoder().decode


class BadCommand(InvalidRequest):
    """A message that is no command. `id` is the one to answer, where it could be read."""

    def __init__(self, message: str, field: str | None = None, id: CommandId = None) -> None:
        super().__init__(message, details={"field": field} if field else None)
        self.id = id


def decode_command(message: bytes) -> Command:
    """Read one command from UTF-8 JSON text. Raises `BadCommand`."""
    try:
        command: Command = _decode(message)
        return command
    except msgspec.ValidationError as error:
        raise _explain(message, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadCommand(str(error)) from None
    except RecursionError:
        raise BadCommand("JSON is nested too deeply") from None


def read_id(message: bytes) -> CommandId:
    """The id of a command that is refused, or None where there is none to be read."""
    try:
        return _decode_outline(message).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _explain(message: bytes, problem: str) -> BadCommand:
    problem, _, path = problem.partition(" - at `$")
    field = path.rstrip("`").lstrip(".") or None
    if field == "type":
        problem = f"'type' must be one of {', '.join(COMMANDS)}"
    return BadCommand(problem, field, read_id(message))


def decode_json(text: bytes) -> Any:
    """Decode JSON strictly: no NaN, no trailing text, no deep nesting. Raises `InvalidRequest`."""
    try:
        return _decode_any(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("The body is not JSON: it is nested too deeply") from None


def decode_as(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode JSON as a structure. Raises `InvalidRequest` that names the field."""
    try:
        # Not by msgspec alone, which does not look into what is Raw.
        return decoder.decode(text.decode("utf-8"))
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        raise InvalidRequest(problem, details={"field": field} if field else None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("The body is not JSON: it is nested too deeply") from None


def encode_json(value: Any) -> bytes:
    """Encode a value as JSON."""
    return _encode(value)


def error_object(error: RealtimeError) -> dict[str, Any]:
    """What REST has under `error` and WebSocket `Error` messages have as `data`."""
    return {"code": error.code.value, "message": error.message, "details": error.details}


def encode_error_body(error: RealtimeError) -> bytes:
    """The JSON body of a refused HTTP request (reference: Error Handling)."""
    return _encode({"error": error_object(error)})


def encode_message(
    type: str, data: Mapping[str, Any], timestamp: int, id: CommandId = None
) -> bytes:
    """A message from the server; with `id`, the reply to that command."""
    if id is None:
        return _encode({"type": type, "data": data, "timestamp": timestamp})
    return _encode({"type": type, "id": id, "data": data, "timestamp": timestamp})


def encode_broadcast(publication: Publication) -> bytes:
    """A publication as its subscribers get it."""
    position = publication.position
    if position is None:
        return _BROADCAST % (
            _encode(publication.topic),
            publication.payload,
            _encode(publication.from_user),
            publication.timestamp,
        )
    return _POSITIONED % (
        _encode(publication.topic),
        publication.payload,
        _encode(publication.from_user),
        position.offset,
        _encode(position.epoch),
        publication.timestamp,
    )


def encode_entries(publications: Iterable[Publication]) -> Raw:
    """The list of publications of a history, all of one topic and epoch."""
    entries = [
        _ENTRY
        % (
            publication.payload,
            _encode(publication.from_user),
            publication.timestamp,
            publication.position.offset if publication.position is not None else 0,
        )
        for publication in publications
    ]
    return Raw(b"[%b]" % b",".join(entries))


def encode_direct_message(payload: bytes | Raw, from_user: str, timestamp: int) -> bytes:
    """A direct message as its receiver gets it."""
    return b'{"type":"DirectMessage","data":{"from_user":%b,"payload":%b},"timestamp":%d}' % (
        _encode(from_user),
        payload,
        timestamp,
    )
