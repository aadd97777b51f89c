"""The embedded broker: one node, nothing outside the process but the journal of durable topics."""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex

from twisted.internet.defer import Deferred
from zope.interface import implementer

from realtime import durable
from realtime.durable import Accepted, DurableTopics
from realtime.history import MAX_BYTES, Histories, Journal
from realtime.idempotency import MAX_KEYS, Keys, Scope
from realtime.interfaces import IBroker
from realtime.model import HistoryPage, Namespace, Position, Publication


@implementer(IBroker)
class MemoryBroker:
    """Hands each publication straight back to the only node there is.

    `seconds` is Unix time. Durable topics need a `journal`, and `open` to have succeeded.
    """

    remote = False
    up = True

    def __init__(
        self,
        seconds: Callable[[], float] = time.time,
        *,
        journal: Journal | None = None,
        max_history_bytes: int = MAX_BYTES,
        max_durable_bytes: int = durable.MAX_BYTES,
        max_keys: int = MAX_KEYS,
        max_waiting: int = durable.MAX_WAITING,
        on_full: Callable[[], object] | None = None,
    ) -> None:
        self._deliver: Callable[[Publication], object] = _not_started
        self._announce: Callable[[str, bytes], object] = _not_started
        self._seconds = seconds
        self._keys: Keys[Position | None, Accepted] = Keys(limit=max_keys)
        self._histories = Histories(_new_epoch, max_bytes=max_history_bytes, full=on_full)
        self._durable: DurableTopics | None = None
        if journal is not None:
            self._durable = DurableTopics(
                journal,
                _new_epoch,
                self._keys,
                seconds,
                max_bytes=max_durable_bytes,
                max_waiting=max_waiting,
            )

    def start(
        self,
        deliver: Callable[[Publication], object],
        announce: Callable[[str, bytes], object],
        accepted: Callable[[Publication], object] | None = None,
    ) -> None:
        """See `IBroker.start`; what is accepted is delivered, and the other way round."""
        if accepted is not None:
            only_deliver = deliver

            def deliver(publication: Publication) -> None:
                only_deliver(publication)
                accepted(publication)

        self._deliver = deliver
        self._announce = announce
        if self._durable is not None:
            self._durable.start(deliver, announce)

    async def open(self, namespace_of: Callable[[str], Namespace | None]) -> None:
        """Read the journal, if there is one; raises `ConfigurationError`.

        `namespace_of` says what now holds for the topics found there.
        """
        if self._durable is not None:
            await self._durable.open(namespace_of, self._histories)

    def publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Position | Deferred[Position | None] | None:
        """Deliver before returning; on a durable topic, before the Deferred fires."""
        if namespace.history_size or key is not None:
            return self._publish(publication, namespace, key)
        self._deliver(publication)
        return None

    def _publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Position | Deferred[Position | None] | None:
        now = self._seconds()
        scope: Scope | None = None
        if key is not None:
            scope = (publication.topic, publication.from_user, key)
            found = self._keys.find(scope, now)
            if found is not None:
                return found[0]
        if namespace.history_size:
            if namespace.durable:
                if self._durable is None:
                    raise RuntimeError("a durable topic without a journal")
                return self._durable.publish(publication, namespace, scope)
            publication = self._histories.append(publication, namespace, now)
        if scope is not None:
            self._keys.done(scope, publication.position, now)
        self._deliver(publication)
        return publication.position

    def announce(self, topic: str, message: bytes) -> None:
        """Deliver before returning, unless publications of the topic wait for their commit."""
        if self._durable is None:
            self._announce(topic, message)
        else:
            self._durable.announce(topic, message)

    def subscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""

    def unsubscribe(self, topic: str) -> None:
        """Nothing to do: every publication is made here."""

    def history(
        self,
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> HistoryPage | None:
        """See `IBroker.history`; None, too, where `namespace` keeps no history."""
        if not namespace.history_size:
            return None
        histories = self._histories
        if namespace.durable and self._durable is not None:
            histories = self._durable.histories
        now = self._seconds()
        return histories.page(topic, namespace, now, since=since, limit=limit, reverse=reverse)

    def remove_history(self, topic: str) -> Deferred[None] | None:
        """Forget what was published; on a durable topic, when the Deferred fires."""
        self._histories.remove(topic)
        return None if self._durable is None else self._durable.remove(topic)

    def advance(self, now: float) -> bool:
        """Forget what is too old, some of it; answer whether that was all.

        To be called once a second: after a failure, the journal is tried again then, too.
        """
        self._keys.expire(now)
        done = self._histories.expire(now)
        return (self._durable is None or self._durable.advance(now)) and done

    async def stop(self) -> None:
        """Take nothing durable more, finish what was taken, and close the journal."""
        if self._durable is not None:
            await self._durable.stop()


def _new_epoch() -> str:
    return token_hex(4)


def _not_started(*args: object) -> None:
    raise RuntimeError("publish before start")
