"""Frozen values that the parts exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Raw, Struct

# End the connection, drop its oldest publications, or all but the newest of each topic.
SlowConsumers: TypeAlias = Literal["close", "drop-oldest", "latest"]


@dataclass(frozen=True, slots=True)
class Permissions:
    """Topic patterns that a token grants; None where the token does not say."""

    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a verified access token says its bearer is. `expires_at` is Unix seconds.

    `key` is the id of the secret of ours that has signed the token, None for an issuer's.
    """

    user_id: str
    username: str | None
    roles: frozenset[str]
    session_id: str | None
    expires_at: float
    permissions: Permissions | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """An account of the embedded user store. `created_at` is Unix seconds."""

    user_id: str
    username: str
    roles: tuple[str, ...]
    created_at: float
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A login. Times are Unix seconds; `expires_at` is that of its last refresh token."""

    session_id: str
    user_id: str
    created_at: float
    expires_at: float


class Position(Struct, frozen=True, gc=False):
    """A publication's place in its topic's history, and which history that is.

    A structure, as `Publication`: of each that is kept there is one.
    """

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """What holds for the topics of a pattern, in which a part may be `$user`.

    The four rights name roles, and `$user` for the user whom that part of a topic names; None
    is every authenticated user. `history_size` counts publications; `history_ttl` is seconds,
    0 for no limit; `rate` is publications a second and connection; `max_payload` bytes.
    `slow_consumers` says what becomes of publications that wait for a client that reads slowly.
    """

    pattern: str
    subscribe: frozenset[str] | None = None
    publish: frozenset[str] | None = None
    read_presence: frozenset[str] | None = None
    read_history: frozenset[str] | None = None
    history_size: int = 0
    history_ttl: float = 0.0
    durable: bool = False
    presence: bool = False
    join_leave: bool = False
    rate: float | None = None
    max_payload: int | None = None
    slow_consumers: SlowConsumers = "close"


class Publication(Struct, frozen=True, gc=False):
    """One message accepted on a topic. `payload` is JSON text; `timestamp` Unix milliseconds.

    `exclude` is the id of a connection that is not to get it. A `Raw` payload is a view into
    the whole message received: who keeps it copies it to bytes.
    A msgspec structure, because one is made for every message: it costs a quarter of a dataclass.
    """

    topic: str
    payload: bytes | Raw
    from_user: str
    timestamp: int
    position: Position | None = None
    exclude: str | None = None


class Piece(NamedTuple):
    """Frames of one message. One with a topic may be dropped for a client that reads slowly.

    With `newest_only` it is, once there is a newer one of the topic; else where there is no room.
    """

    frames: bytes
    topic: str | None = None
    newest_only: bool = False

    def carried_as(self, frames: bytes) -> Piece:
        """The same in another form."""
        return Piece(frames, self.topic, self.newest_only)


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Publications of a topic, and the position of its newest."""

    publications: tuple[Publication, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Member:
    """A user who is present on a topic; `state` is JSON text that the user has set."""

    user_id: str
    username: str | None
    connections: int
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class PresencePage:
    """Who is present on a topic: how many in all, and some of them.

    With `after` as its user id, the next page begins; None where there is none.
    """

    users: int
    connections: int
    members: tuple[Member, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """What `/health` reports; `reason` is None while the node is healthy."""

    reason: str | None
    active_connections: int
    max_connections: int
    uptime_seconds: int
