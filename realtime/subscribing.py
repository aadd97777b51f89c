"""What the command Subscribe means: permissions, recovery, and what is answered."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from realtime.arrivals import Arrival
from realtime.envelope import Subscribe, encode_broadcast
from realtime.errors import Forbidden, InternalError, RealtimeError
from realtime.handlers import DENIAL_COST, ENVELOPE, TOPIC_COST, Caller, forbidden, names_of
from realtime.model import HistoryPage, Namespace, Position, Publication
from realtime.rules import has_right
from realtime.topics import is_pattern

_log = Logger()


class _Room:
    """Bytes of missed publications that one command may still have sent, of all its topics.

    Nothing is left once something did not fit. Histories are read one after the other, under
    `turn`, so that no more is read than may be sent, and once more.
    """

    __slots__ = ("left", "turn")

    def __init__(self, left: int) -> None:
        self.left = left
        self.turn = DeferredLock()


async def subscribe(caller: Caller, command: Subscribe) -> None:
    """Subscribe to topics and patterns; those that are denied are refused one by one."""
    taken: list[dict[str, Any]] = []
    denied: list[RealtimeError] = []
    for joining in _begin(caller, command, denied):
        try:
            taken.append(await joining)
        except RealtimeError as error:
            denied.append(error.bare())
        except Exception:
            _log.failure("Subscribing to one of several topics failed")
            denied.append(InternalError())
    if not caller.is_open:
        return
    if denied:
        caller.spend(len(denied) * DENIAL_COST)
    # The id is answered once: by the Status, or by the first Error where there is none.
    unanswered = command.id if denied and not taken else None
    for refusal in denied:
        # Before the Status, whatever else this turn has for the client.
        caller.refuse(refusal, unanswered, in_order=True)
        unanswered = None
    if taken:
        caller.node.subscribed(caller, [entry["topic"] for entry in taken])
    if taken or not denied:
        caller.tell("Status", {"status": "subscribed", "topics": taken}, command.id)


def _begin(
    caller: Caller, command: Subscribe, denied: list[RealtimeError]
) -> list[Coroutine[Any, Any, dict[str, Any]] | Deferred[dict[str, Any]]]:
    """Begin to subscribe to each topic that may be; where that takes time, to all at once."""
    recover = command.data.recover
    begun: list[Coroutine[Any, Any, dict[str, Any]] | Deferred[dict[str, Any]]] = []
    room = _Room(caller.policy.max_reply)
    new = 0
    for name in names_of(caller, command.data.topics):
        try:
            namespace = _permitted(caller, name)
            if name not in caller.topics:
                limit = caller.policy.max_subscriptions
                if len(caller.topics) + new >= limit:
                    caller.node.counters.limit("max-subscriptions")
                    message = f"A connection has at most {limit} subscriptions"
                    raise Forbidden(message, details={"topic": name})
                new += 1
        except RealtimeError as error:
            denied.append(error.bare())
            continue
        since = recover.get(name)
        position = None if since is None else Position(since.offset, since.epoch)
        joining = _join(caller, name, namespace, position, room)
        begun.append(Deferred.fromCoroutine(joining) if caller.node.remote else joining)
    return begun


def _permitted(caller: Caller, name: str) -> Namespace | None:
    """What holds for a topic, None for a pattern; raises `Forbidden`."""
    namespace = caller.node.lookup(name)
    if isinstance(namespace, Namespace):
        if has_right(caller.identity, "subscribe", namespace, name):
            return namespace
    elif is_pattern(name) and caller.node.rules.may(caller.identity, "subscribe", name):
        return None
    raise forbidden("subscribe to", name)


async def _join(
    caller: Caller,
    name: str,
    namespace: Namespace | None,
    since: Position | None,
    room: _Room,
) -> dict[str, Any]:
    """Subscribe to one, and send what was missed since a position; answer its status."""
    status: dict[str, Any] = {"topic": name}
    arrival, is_new = None, name not in caller.topics
    if is_new and caller.node.remote:
        arrival = caller.node.arrive(caller, name, caller.policy.max_reply)
    try:
        if arrival is not None and arrival.heard is not None:
            await arrival.heard
        page, missed = None, None
        if namespace is not None and namespace.history_size:
            if since is not None and is_new:
                await room.turn.acquire()
                try:
                    page, missed = await _missed(caller, name, namespace, since, room)
                finally:
                    room.turn.release()
            if page is None:
                page = await caller.node.history(name, namespace, limit=0)
    except BaseException:
        if arrival is not None:
            caller.node.turn_back(arrival)
        raise
    if page is not None:
        status |= {"offset": page.position.offset, "epoch": page.position.epoch}
    if is_new:
        if since is not None:
            status["recovered"] = missed is not None
        if missed:
            caller.spend(len(missed) * TOPIC_COST)
        if arrival is not None:
            _land(caller, arrival, namespace, page, missed or ())
        else:
            if missed:
                caller.node.resend(caller, [encode_broadcast(each) for each in missed])
            caller.node.enter(caller, name, namespace)
    return status


async def _missed(
    caller: Caller, topic: str, namespace: Namespace, since: Position, room: _Room
) -> tuple[HistoryPage | None, tuple[Publication, ...] | None]:
    """A page of what was published after a position, and all of that, if it can be sent."""
    if room.left <= 0:
        return None, None
    # More than fit are not even looked at.
    most = room.left // ENVELOPE + 1
    page = await caller.node.history(topic, namespace, since=since, limit=most)
    if page is None:
        return None, None
    missed = page.publications
    newest = missed[-1].position if missed else since
    size = sum(ENVELOPE + len(bytes(publication.payload)) for publication in missed)
    if newest != page.position or (missed and size > room.left):
        room.left = 0
        return page, None
    room.left -= size
    return page, missed


def _land(
    caller: Caller,
    arrival: Arrival,
    namespace: Namespace | None,
    page: HistoryPage | None,
    missed: tuple[Publication, ...],
) -> None:
    if not caller.is_open:
        caller.node.turn_back(arrival)
        return
    caller.node.land(arrival, namespace, missed, None if page is None else page.position)
