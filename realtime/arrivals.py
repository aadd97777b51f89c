"""Subscriptions that have been asked for and have not begun, as the broker takes time to hear.

What is published meanwhile, on a topic that has a history, waits for the subscriber, so that it
gets what was missed first, and then what follows, without a gap and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from realtime.interfaces import Peer
from realtime.model import Position, Publication

# What a publication that waits counts beside its payload, in bytes.
OVERHEAD = 120


class Arrival:
    """A connection on its way to a topic or pattern. `heard` fires when the broker hears it."""

    __slots__ = ("_room", "_waiting", "heard", "name", "peer")

    def __init__(self, peer: Peer, name: str, room: int) -> None:
        self.peer = peer
        self.name = name
        self.heard: Deferred[None] | None = None
        self._room = room
        self._waiting: list[Publication] = []

    def keep(self, publication: Publication) -> None:
        """Keep a publication for later, while there is room."""
        self._room -= len(bytes(publication.payload)) + OVERHEAD
        if self._room < 0:
            self._waiting.clear()
        else:
            self._waiting.append(publication)

    def following(self, position: Position | None) -> list[Publication] | None:
        """What has come and is above a position; None where it was too much to keep."""
        if self._room < 0:
            return None
        own = self.peer.connection_id
        return [
            publication
            for publication in self._waiting
            if publication.exclude != own and _follows(publication.position, position)
        ]


def _follows(position: Position | None, other: Position | None) -> bool:
    return (
        position is None
        or other is None
        or position.epoch != other.epoch
        or position.offset > other.offset
    )


class Arrivals:
    """All that are on their way to this node's topics."""

    def __init__(self, deliver: Callable[[Publication], object]) -> None:
        self.deliver_on = deliver
        self._by_name: dict[str, list[Arrival]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def begin(self, peer: Peer, name: str, room: int) -> Arrival:
        """A connection is on its way; `room` bytes of publications may wait for it."""
        arrival = Arrival(peer, name, room)
        self._by_name.setdefault(name, []).append(arrival)
        return arrival

    def end(self, arrival: Arrival) -> None:
        """It has arrived, or never will."""
        others = self._by_name[arrival.name]
        others.remove(arrival)
        if not others:
            del self._by_name[arrival.name]

    def deliver(self, publication: Publication) -> None:
        """Pass on what the broker delivers, and keep it for those on their way."""
        for arrival in self._by_name.get(publication.topic, ()):
            arrival.keep(publication)
        self.deliver_on(publication)
