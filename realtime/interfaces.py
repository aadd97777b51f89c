"""Contracts between the floors, with the guarantees that each side may rely on.

What has implementations to choose from at assembly is a zope interface; how a lower floor sees
an object of a higher one is a typing protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Raw
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from realtime.errors import CloseCode, RealtimeError
from realtime.model import (
    HistoryPage,
    Identity,
    Member,
    Namespace,
    Piece,
    Position,
    PresencePage,
    Publication,
    Session,
)

# Seconds for which the key of a publication is remembered.
KEY_TTL = 300
# How many times as many logins are heard from a network, and of a user, as of a user from one
# network.
NETWORK_LOGINS = 10
USER_LOGINS = 20


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashed by identity."""

    number: int
    identity: Identity
    # Topics and patterns, changed by the hub alone.
    topics: dict[str, None]
    # Writes framed bytes and answers how many were taken; may raise OSError. Never re-enters the
    # hub. After the connection's end it takes everything silently.
    send: Callable[[bytes], int]

    @property
    def connection_id(self) -> str:
        """Unique among all nodes: the node's id, a hyphen, and the number in hexadecimal."""

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """Queue what `send` did not take of `data`, in order; may end the connection.

        `pieces` are what `data` consists of, where some of it may be dropped.
        """


class Deadline(Protocol):
    """What can ask to be told when a second has come."""

    def on_deadline(self, tick: int) -> None:
        """Whole second `tick` has come."""


class Peer(Subscriber, Deadline, Protocol):
    """A connection as the node sees it."""

    def close(self, code: CloseCode) -> None:
        """End the connection, telling the other side why."""


class Transport(Protocol):
    """What carries one client's messages: a WebSocket."""

    def send(self, data: bytes) -> int:
        """As `Subscriber.send`; the transport may set its client's `send` to something faster."""

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """As `Subscriber.unsent`."""

    def hold(self) -> None:
        """Read nothing more until as many calls of `release` as of this."""

    def release(self) -> None:
        """Undo one `hold`."""

    def ping(self) -> None:
        """Make the other side show that it is alive."""

    def close(self, code: CloseCode) -> None:
        """Start the closing handshake, which mutes the client."""


class Holdable(Protocol):
    """A publisher whose reading can be held: see `Transport`."""

    def hold(self) -> None:
        """Stop reading."""

    def release(self) -> None:
        """Read on."""


class Events(Protocol):
    """Who wants to know what happens on this node. Cheap, never raises; `now` is Unix seconds."""

    wants: frozenset[str]

    def connected(self, identity: Identity, connection_id: str, now: float) -> None:
        """A connection is open."""

    def disconnected(self, identity: Identity, connection_id: str, code: int, now: float) -> None:
        """A connection has ended, and with it its subscriptions; 1006 without a Close frame."""

    def subscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """A connection has subscribed to topics and patterns."""

    def unsubscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """An open connection has left topics and patterns."""

    def published(self, publication: Publication) -> None:
        """A publication was accepted."""

    def occupied(self, topic: str) -> None:
        """A topic has its first subscriber here; patterns are ignored."""

    def vacated(self, topic: str) -> None:
        """A topic has no subscriber here any more; patterns are ignored."""


class Gatekeeper(Protocol):
    """Who is asked before clients may do what is in `wants`: connect, subscribe, publish."""

    wants: frozenset[str]

    async def connect(self, identity: Identity) -> None:
        """Return if a user may connect; raises `Forbidden` or `Unavailable`."""

    async def subscribe(
        self, identity: Identity, connection_id: str, topics: Sequence[str]
    ) -> Mapping[str, RealtimeError]:
        """Answer which topics and patterns a connection may not subscribe to, and why."""
        ...

    async def publish(
        self, identity: Identity, connection_id: str, topic: str, payload: bytes | Raw
    ) -> bytes | Raw:
        """Answer what is to be published, JSON text; raises `Forbidden` or `Unavailable`."""
        ...


class Cluster(Protocol):
    """The other nodes of the service."""

    @property
    def refused(self) -> bool:
        """Whether the broker is within reach and refuses what this node tells the others."""

    def changed(self, user_id: str, username: str | None, connections: int) -> None:
        """A user has so many connections here now."""

    def direct(
        self, target_user: str, message: bytes, scope: tuple[str, str, str] | None
    ) -> Deferred[int]:
        """Send a message to a user's connections on all nodes; fires with their number.

        What was sent before with the same `scope` is not sent again. Fails with `Unavailable`.
        """

    async def ask(self, question: str, *args: Any, node: str | None = None) -> list[Any]:
        """Answers of all nodes, or of one; those that do not answer in time are left out."""

    async def nodes(self) -> list[dict[str, Any]]:
        """What each node says of itself."""


class IBroker(Interface):
    """Carries publications between nodes, and keeps the topics' histories.

    Every publication accepted on a topic reaches the callback given to `start` once on each
    node that has subscribed to the topic, in the order accepted. With a history it has a
    position by then: offsets of one epoch are 1, 2, 3 and so on, without gaps.
    """

    remote: bool = Attribute("Whether answers take time, and other nodes publish.")
    up: bool = Attribute("Whether it is within reach.")

    def start(
        deliver: Callable[[Publication], object],
        announce: Callable[[str, bytes], object],
        accepted: Callable[[Publication], object] | None = None,
    ) -> None:
        """Begin; `deliver` is called for each publication, `announce` for each announcement.

        `accepted` is called for each publication that was accepted here, with its position;
        not for what its key shows to be a repetition. May be called again, with others.
        """

    def publish(
        publication: Publication, namespace: Namespace, key: str | None
    ) -> Position | Deferred[Position | None] | None:
        """Accept a publication; it is kept as `namespace` says.

        A `key` that its user has used on the topic within `KEY_TTL` seconds makes this the
        publication of then, whose position is given back: nothing is delivered again. Raises,
        or fails with, `Unavailable` when it was not taken.
        """

    def announce(topic: str, message: bytes) -> None:
        """Carry a message of the server's to the subscribers of a topic; it is not kept."""

    def subscribe(topic: str) -> Deferred[None] | None:
        """The node has a subscriber to a topic or pattern; None, or fires, when it is heard.

        May be called again before it is undone. Fails with `Unavailable`; it is to be undone then.
        """

    def unsubscribe(topic: str) -> None:
        """The node's last subscriber to a topic or pattern has left."""

    def history(
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> HistoryPage | Deferred[HistoryPage | None] | None:
        """What was published after `since`, or all there is: oldest first, or newest first.

        None where `since` is of another epoch, or what followed it is no longer all there. A page
        may end before `limit`. On a node that has subscribed to the topic, all that is on the
        page, or older, has been delivered by then; answered at once, nothing newer has.
        """

    def remove_history(topic: str) -> Deferred[None] | None:
        """Forget what was published on `topic`, and begin another epoch."""


class IPresence(Interface):
    """Who is on a topic now, by user, over all nodes.

    A user is present from the first subscription of a connection to some seconds of grace after
    the last one has gone; who comes back in time has not been away. Where the namespace has
    `join_leave`, subscribers are told by `Join`, `Leave` and, of a new state, `Update`.
    """

    def start(announce: Callable[[str, bytes], object]) -> None:
        """Begin; `announce` carries messages as `IBroker.announce` does."""

    def join(topic: str, namespace: Namespace, connection_id: str, identity: Identity) -> None:
        """A connection has subscribed to a topic."""

    def leave(topic: str, connection_id: str) -> None:
        """A connection has left a topic; unknown ones are ignored."""

    def leave_all(connection_id: str) -> None:
        """A connection has ended."""

    async def members(topic: str, *, limit: int, after: str | None) -> PresencePage:
        """At most `limit` users who are present, by id, those that follow the id `after`."""

    async def set_state(topic: str, user_id: str, state: bytes | None) -> Member | None:
        """Set a present user's state, JSON text, or clear it; None where they are not present."""


class ISessions(Interface):
    """Logins, and whose tokens are refused before they expire. Times are Unix seconds.

    What has been ended on one node is refused there at once, and on all within two seconds;
    sessions and refusals outlive every process. Methods raise `Unavailable` when the store is
    out of reach.
    """

    async def start(listener: Callable[[str, str], object]) -> None:
        """Begin; `listener` is told kind ("session" or "user") and id of all that is revoked."""

    async def stop() -> None:
        """End what `start` began. May be called twice."""

    def is_revoked(identity: Identity, issued_at: float) -> bool:
        """Whether a token issued at `issued_at` is refused: its session, or all of its time."""

    async def create(
        user_id: str, *, refresh_id: str, access_until: float, since: float | None = None
    ) -> Session:
        """Begin a session whose refresh token has the jti `refresh_id`.

        `access_until` is when its access token can last be used. Raises `InvalidCredentials`
        when the user was removed, disabled or revoked after `since`, when the password was seen.
        """

    async def get(session_id: str) -> Session | None:
        """A session that has neither ended nor expired."""

    async def renew(
        session_id: str,
        user_id: str,
        refresh_id: str,
        *,
        access_until: float,
        next_refresh_id: str | None = None,
    ) -> None:
        """Count a use of the refresh token `refresh_id`, and replace it where a next is given.

        Raises `InvalidToken` when the session is over. A refresh token that was replaced has
        been stolen, or its thief has been here before: its session ends.
        """

    async def end(session_id: str, *, access_until: float | None = None) -> bool:
        """End a session and refuse its access tokens; answer whether there was one.

        Its tokens are refused up to `access_until` at least; that is how the session of another
        issuer, which is not stored here, is ended.
        """


class ILoginLimits(Interface):
    """How many attempts to log in are heard.

    The limit that a guesser meets is that of one user from one network, so that guessing locks
    nobody else out. `NETWORK_LOGINS` times as many are heard from a network, `USER_LOGINS` times
    as many of a user.
    """

    async def take(user: str, network: str, now: float) -> float:
        """Count an attempt; answer 0.0, or the seconds to wait. Raises `Unavailable`."""
        ...

    async def forgive(user: str, network: str) -> None:
        """Forget the failures that came before a success. Never raises."""
