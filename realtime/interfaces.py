"""Contracts between the floors, with the guarantees that each side may rely on.

What has implementations to choose from at assembly is a zope interface; how a lower floor sees
an object of a higher one is a typing protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface

from realtime.errors import CloseCode
from realtime.model import Identity, Position, Publication


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashed by identity."""

    number: int
    identity: Identity
    # Changed by the hub alone.
    topics: dict[str, None]
    # Writes framed bytes and answers how many were taken; may raise OSError. Never re-enters the
    # hub. After the connection's end it takes everything silently.
    send: Callable[[bytes], int]

    def unsent(self, data: bytes, sent: int) -> None:
        """Queue what `send` did not take of `data`, in order; may end the connection."""


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

    def unsent(self, data: bytes, sent: int) -> None:
        """As `Subscriber.unsent`."""

    def ping(self) -> None:
        """Make the other side show that it is alive."""

    def close(self, code: CloseCode) -> None:
        """Start the closing handshake, which mutes the client."""


class Pausable(Protocol):
    """A transport whose reading can be held."""

    def pauseProducing(self) -> None:
        """Stop reading."""

    def resumeProducing(self) -> None:
        """Read on."""


class IBroker(Interface):
    """Carries publications between nodes.

    Every publication accepted on a topic reaches the callback given to `start` once on each
    node that has subscribed to the topic, in the order accepted.
    """

    def start(deliver: Callable[[Publication], object]) -> None:
        """Begin; `deliver` is called for each publication."""

    def publish(publication: Publication) -> Position | Deferred[Position | None] | None:
        """Accept a publication. Raises, or fails with, `Unavailable` when it was not taken."""

    def subscribe(topic: str) -> None:
        """The node has its first subscriber to `topic`."""

    def unsubscribe(topic: str) -> None:
        """The node's last subscriber to `topic` has left."""
