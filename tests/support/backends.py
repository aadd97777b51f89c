"""An operator's backends, whose part the test plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred

from realtime.errors import RealtimeError
from realtime.model import Identity, Publication


class Gate:
    """A gatekeeper whose answers the test gives."""

    def __init__(self, *wants: str) -> None:
        self.wants = frozenset(wants)
        self.asked: list[Any] = []
        self.answers: list[Deferred[Any]] = []

    def _ask(self, *question: Any) -> Deferred[Any]:
        self.asked.append(question)
        answer: Deferred[Any] = Deferred()
        self.answers.append(answer)
        return answer

    async def connect(self, identity: Identity) -> None:
        """See `Gatekeeper.connect`."""
        await self._ask("connect", identity.user_id)

    async def subscribe(
        self, identity: Identity, connection_id: str, topics: Sequence[str]
    ) -> Mapping[str, RealtimeError]:
        """See `Gatekeeper.subscribe`."""
        denied: Mapping[str, RealtimeError] = await self._ask("subscribe", *topics)
        return denied

    async def publish(
        self, identity: Identity, connection_id: str, topic: str, payload: bytes | Raw
    ) -> bytes | Raw:
        """See `Gatekeeper.publish`."""
        rewritten: bytes = await self._ask("publish", topic, bytes(payload))
        return rewritten


class Recorder:
    """`Events` that are kept."""

    def __init__(self, *wants: str) -> None:
        self.wants = frozenset(wants)
        self.told: list[tuple[Any, ...]] = []

    def take(self) -> list[tuple[Any, ...]]:
        """What has been told since the last taking."""
        told, self.told = self.told, []
        return told

    def connected(self, identity: Identity, connection_id: str, now: float) -> None:
        """See `Events.connected`."""
        self.told.append(("connect", identity.user_id))

    def disconnected(self, identity: Identity, connection_id: str, code: int, now: float) -> None:
        """See `Events.disconnected`."""
        self.told.append(("disconnect", identity.user_id, int(code)))

    def subscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """See `Events.subscribed`."""
        self.told.append(("subscribe", identity.user_id, *topics))

    def unsubscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """See `Events.unsubscribed`."""
        self.told.append(("unsubscribe", identity.user_id, *topics))

    def published(self, publication: Publication) -> None:
        """See `Events.published`."""
        position = publication.position
        offset = None if position is None else position.offset
        self.told.append(("publish", publication.topic, bytes(publication.payload), offset))

    def occupied(self, topic: str) -> None:
        """See `Events.occupied`."""
        self.told.append(("occupied", topic))

    def vacated(self, topic: str) -> None:
        """See `Events.vacated`."""
        self.told.append(("vacated", topic))
