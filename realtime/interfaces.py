"""Contracts between the floors, with the guarantees that each side may rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from realtime.model import Identity, Position, Publication


class ISubscriber(Interface):
    """A connection as the hub sees it. Hashable by identity."""

    connection_id: str = Attribute("Unique in the cluster.")
    identity: Identity = Attribute("Who is connected; may be renewed for the same user.")
    topics: Any = Attribute("The topics subscribed to; the hub alone changes it.")
    send: Callable[[bytes], int] = Attribute(
        "Write framed bytes, answer how many were taken. May raise OSError. Never re-enters "
        "the hub, and after the connection's end takes everything silently."
    )

    def unsent(data: bytes, sent: int) -> None:
        """Queue what `send` did not take of `data`, in order; may end the connection."""

    def close(code: int, reason: str) -> None:
        """End the connection with a close code; what is queued may be lost."""


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
