"""How far the client has come on each topic."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

# Topics heard by patterns only, whose positions serve to drop what comes twice.
HEARD = 1000


class Position(NamedTuple):
    """A publication's place in its topic's history."""

    offset: int
    epoch: str


def position_in(data: Mapping[str, Any]) -> Position | None:
    """The position that a message's data, or a topic's status, names, if it names one."""
    offset, epoch = data.get("offset"), data.get("epoch")
    if isinstance(offset, int) and isinstance(epoch, str):
        return Position(offset, epoch)
    return None


class Positions:
    """The newest positions, of the topics subscribed to and of some that patterns matched."""

    def __init__(self) -> None:
        self._subscribed: dict[str, Position | None] = {}
        self._heard: OrderedDict[str, Position] = OrderedDict()

    @property
    def topics(self) -> list[str]:
        """The topics and patterns subscribed to, in that order."""
        return list(self._subscribed)

    def __contains__(self, topic: str) -> bool:
        return topic in self._subscribed

    def add(self, topic: str) -> None:
        """Subscribe to a topic; nothing is known of it yet."""
        self._subscribed.setdefault(topic, None)

    def remove(self, topic: str) -> None:
        """Leave a topic, and forget how far it was read."""
        self._subscribed.pop(topic, None)
        self._heard.pop(topic, None)

    def of(self, topic: str) -> Position | None:
        """How far a topic subscribed to has come."""
        return self._subscribed.get(topic)

    def move(self, topic: str, position: Position) -> bool:
        """Take in a publication; answer whether it is new."""
        known = self._subscribed.get(topic) or self._heard.get(topic)
        if known is not None and known.epoch == position.epoch and known.offset >= position.offset:
            return False
        self.set(topic, position)
        return True

    def skip(self, topic: str, position: Position | None) -> None:
        """Take in one's own publication that does not come back, if it is what comes next."""
        known = self._subscribed.get(topic)
        if known is not None and position == Position(known.offset + 1, known.epoch):
            self._subscribed[topic] = position

    def set(self, topic: str, position: Position) -> None:
        """Take in where a topic is now."""
        if topic in self._subscribed:
            self._subscribed[topic] = position
            return
        self._heard[topic] = position
        self._heard.move_to_end(topic)
        if len(self._heard) > HEARD:
            self._heard.popitem(last=False)
