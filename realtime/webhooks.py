"""Webhooks: what happens to connections and topics, told to a backend of the operator's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from secrets import token_hex
from typing import Any, Final

from msgspec import Raw
from msgspec.json import Encoder
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from realtime.model import Identity, Publication
from realtime.signed_post import who
from realtime.topics import is_pattern
from realtime.webhook_delivery import Delivery

_log = Logger()

EVENTS: Final = (
    *("connect", "disconnect", "subscribe", "unsubscribe", "publish"),
    *("occupied", "vacated"),
)
# Topics that may wait to be called vacated; with more, the first are called so early.
MAX_VACANT: Final = 100_000


class Webhooks:
    """The `interfaces.Events` that are posted.

    A topic is vacated once it has been so for `debounce` seconds; of one that is occupied again
    before, nothing is told.
    """

    def __init__(
        self,
        delivery: Delivery,
        clock: IReactorTime,
        *,
        events: Iterable[str],
        debounce: float,
    ) -> None:
        self.wants = frozenset(events)
        self._delivery = delivery
        self._clock = clock
        self._debounce = debounce
        # Since when topics have been without subscribers, first those that have been longest.
        self._vacant: dict[str, float] = {}
        self._timer: IDelayedCall | None = None
        self._run = token_hex(8)
        self._numbers = count(1)
        self._encode = Encoder().encode

    async def open(self) -> None:
        """Begin to deliver; raises `ConfigurationError`."""
        await self._delivery.open()

    async def stop(self, seconds: float) -> None:
        """Tell what is left to tell, and try for so many seconds to deliver it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._call_vacated(len(self._vacant))
        await self._delivery.stop(seconds)

    # -- Events --------------------------------------------------------------------------------

    def connected(self, identity: Identity, connection_id: str, now: float) -> None:
        """See `interfaces.Events.connected`."""
        if "connect" in self.wants:
            self._put("connect", int(now * 1000), **who(identity, connection_id))

    def disconnected(self, identity: Identity, connection_id: str, code: int, now: float) -> None:
        """See `interfaces.Events.disconnected`."""
        if "disconnect" in self.wants:
            self._put("disconnect", int(now * 1000), **who(identity, connection_id), code=int(code))

    def subscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """See `interfaces.Events.subscribed`."""
        if "subscribe" in self.wants and topics:
            self._put("subscribe", int(now * 1000), **who(identity, connection_id), topics=topics)

    def unsubscribed(
        self, identity: Identity, connection_id: str, topics: Sequence[str], now: float
    ) -> None:
        """See `interfaces.Events.unsubscribed`."""
        if "unsubscribe" in self.wants and topics:
            self._put("unsubscribe", int(now * 1000), **who(identity, connection_id), topics=topics)

    def published(self, publication: Publication) -> None:
        """See `interfaces.Events.published`."""
        if "publish" in self.wants:
            # As the bytes received: numbers keep their precision.
            more: dict[str, Any] = {"payload": Raw(publication.payload)}
            if publication.position is not None:
                more["offset"] = publication.position.offset
                more["epoch"] = publication.position.epoch
            self._put(
                "publish",
                publication.timestamp,
                topic=publication.topic,
                from_user=publication.from_user,
                **more,
            )

    def occupied(self, topic: str) -> None:
        """See `interfaces.Events.occupied`."""
        if is_pattern(topic):
            return
        if self._vacant.pop(topic, None) is None and "occupied" in self.wants:
            self._put("occupied", int(self._clock.seconds() * 1000), topic=topic)

    def vacated(self, topic: str) -> None:
        """See `interfaces.Events.vacated`."""
        if is_pattern(topic) or self.wants.isdisjoint(("occupied", "vacated")):
            return
        self._vacant[topic] = self._clock.seconds()
        if self._debounce <= 0 or len(self._vacant) > MAX_VACANT:
            self._call_vacated(1)
        if self._timer is None and self._vacant:
            self._timer = self._clock.callLater(self._debounce, self._look)

    # -- one timer for all topics --------------------------------------------------------------

    def _look(self) -> None:
        """Tell of the topics that have been vacated for long enough; come back for the next."""
        self._timer = None
        now = self._clock.seconds()
        due = 0
        for since in self._vacant.values():
            wait = since + self._debounce - now
            if wait > 0:
                self._timer = self._clock.callLater(wait, self._look)
                break
            due += 1
        self._call_vacated(due)

    def _call_vacated(self, number: int) -> None:
        for _ in range(number):
            topic = next(iter(self._vacant))
            since = self._vacant.pop(topic)
            if "vacated" in self.wants:
                self._put("vacated", int(since * 1000), topic=topic)

    # -- one event -----------------------------------------------------------------------------

    def _put(self, event: str, at: int, **more: Any) -> None:
        id = f"{self._run}-{next(self._numbers):x}"
        try:
            body = self._encode({"id": id, "event": event, "timestamp": at, **more})
        except Exception:  # Whatever an issuer has written into a token, clients come first.
            _log.failure("An event {event} could not be encoded", event=event)
            self._delivery.drop(1, "they could not be encoded")
        else:
            self._delivery.put(body)
