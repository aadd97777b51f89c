"""The node: what one server process does with topics, users and connections.

A publication goes down to the broker and comes back up from it, also on the node where it
was made; a direct message goes to the user's connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from realtime.arrivals import Arrival, Arrivals
from realtime.envelope import encode_broadcast, encode_direct_message, encode_message
from realtime.errors import CloseCode, ServerFull, Unavailable
from realtime.hub import Hub
from realtime.idempotency import Keys
from realtime.interfaces import Cluster, Deadline, Events, IBroker, IPresence, Peer
from realtime.metrics import Counters
from realtime.model import (
    Health,
    HistoryPage,
    Member,
    Namespace,
    Position,
    PresencePage,
    Publication,
)
from realtime.names import is_name, new_node_id
from realtime.rules import Rules
from realtime.topics import check_pattern, check_topic, is_pattern
from realtime.wheel import TimerWheel

# Deadlines served in one turn of the reactor, a few milliseconds of them.
DEADLINES_A_TURN = 100
# Names that are looked up once only.
CACHED_NAMES = 4096


class Node:
    """The heart of a server process. Times are seconds of `clock`."""

    def __init__(
        self,
        broker: IBroker,
        presence: IPresence,
        hub: Hub[Peer],
        rules: Rules,
        counters: Counters,
        clock: IReactorTime,
        deadlines: TimerWheel[Deadline],
        *,
        max_connections: int,
        node_id: str | None = None,
        events: Events | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._events = events
        self._cluster = cluster
        self._broker = broker
        self._presence = presence
        self.hub = hub
        self.rules = rules
        self.lookup = lru_cache(maxsize=CACHED_NAMES)(self._lookup)
        self.clock = clock
        self.counters = counters
        self.max_connections = max_connections
        self.node_id = node_id or new_node_id()
        self.draining = False
        self.now: Callable[[], float] = clock.seconds
        self._started_at = clock.seconds()
        self.tick = int(self._started_at)
        self.deadlines = deadlines
        self._last_number = 0
        self._when_empty: list[Deferred[None]] = []
        self._direct_keys: Keys[int, None] = Keys()
        # Whether subscribing and reading histories takes time.
        self.remote = broker.remote
        self._arrivals = Arrivals(hub.deliver)
        self.deliver_by(hub.deliver)
        hub.lookup = self.lookup
        presence.start(broker.announce)

    def deliver_by(self, deliver: Callable[[Publication], object]) -> None:
        """Have what the broker delivers go to `deliver`: the hub's, or what watches and calls it.

        So watching costs nothing while nobody does.
        """
        self._arrivals.deliver_on = deliver
        events = self._events
        self._broker.start(
            self._arrivals.deliver if self.remote else deliver,
            self.hub.announce,
            events.published if events is not None and "publish" in events.wants else None,
        )

    # -- connections -----------------------------------------------------------------------

    def admit(self) -> None:
        """Raise `Unavailable` or `ServerFull` where no connection more can be taken."""
        if self.draining:
            raise Unavailable("The server is shutting down.")
        if self.counters.active_connections >= self.max_connections:
            self.counters.limit("max-connections")
            raise ServerFull()

    def next_number(self) -> int:
        """A number for a new connection, unique on this node."""
        self._last_number += 1
        return self._last_number

    def connect(self, peer: Peer) -> None:
        """Take in an admitted connection."""
        self.hub.add(peer)
        if self._cluster is not None:
            self._tell_cluster(peer, self._cluster)
        self.counters.active_connections += 1
        self.counters.total_connections += 1
        if self._events is not None:
            self._events.connected(peer.identity, peer.connection_id, self.now())

    def leave(self, peer: Peer) -> None:
        """Deliver nothing more to a connection; it may still be closing."""
        for name in self.hub.remove(peer):
            self._vacate(name)
        self._presence.leave_all(peer.connection_id)
        if self._cluster is not None:
            self._tell_cluster(peer, self._cluster)

    def _tell_cluster(self, peer: Peer, cluster: Cluster) -> None:
        identity = peer.identity
        cluster.changed(identity.user_id, identity.username, self.hub.count(identity.user_id))

    def disconnect(self, peer: Peer, code: int) -> None:
        """Forget a connection that has ended with a close code."""
        self.leave(peer)
        if self._events is not None:
            self._events.disconnected(peer.identity, peer.connection_id, code, self.now())
        self.counters.active_connections -= 1
        if self.counters.active_connections == 0:
            waiting, self._when_empty = self._when_empty, []
            for done in waiting:
                done.callback(None)

    def revoke(self, kind: str, id: str) -> None:
        """Close connections: of a 'session', of a 'user', or whose token a 'key' has signed."""
        code = CloseCode.TOKEN_EXPIRED if kind == "key" else CloseCode.SESSION_TERMINATED
        name = {"session": "session_id", "user": "user_id", "key": "key"}[kind]
        for peer in self.hub.connections():
            if getattr(peer.identity, name) == id:
                peer.close(code)

    def drain(self) -> None:
        """Take no connection more, and tell all, once, that they will be closed."""
        if self.draining:
            return
        self.draining = True
        notice = encode_message("Status", {"status": "draining"}, int(self.now() * 1000))
        self.hub.deliver_to(self.hub.connections(), notice)
        self.hub.flush()

    def when_empty(self) -> Deferred[None]:
        """Fires when there is no connection, closing ones included."""
        done: Deferred[None] = Deferred()
        if self.counters.active_connections == 0:
            done.callback(None)
        else:
            self._when_empty.append(done)
        return done

    def advance(self) -> None:
        """Look at the clock and serve the deadlines that have come; called once a second.

        Where there are many, each turn of the reactor serves some.
        """
        self.tick = int(self.now())
        self.hub.wake()
        self._direct_keys.expire(self.now())
        due = self.deadlines.advance(self.tick, DEADLINES_A_TURN)
        for item in due:
            item.on_deadline(self.tick)
        if len(due) == DEADLINES_A_TURN:
            self.clock.callLater(0, self.advance)

    # -- topics and messages ---------------------------------------------------------------

    def forget_names(self) -> None:
        """The rules have changed: look names up anew."""
        self.lookup.cache_clear()

    def _lookup(self, name: str) -> Namespace | str | None:
        """What holds for a topic, or what is wrong with its name; None where nobody may use it.

        A pattern has no namespace of its own; nothing being wrong with it, it is None.
        """
        if is_pattern(name):
            return check_pattern(name)
        return check_topic(name) or self.rules.namespace(name)

    def arrive(self, peer: Peer, name: str, room: int) -> Arrival:
        """Begin to subscribe a connection to a topic or pattern, where the broker is remote.

        To be ended by `land`, or by `turn_back`. At most `room` bytes of publications wait for it.
        """
        arrival = self._arrivals.begin(peer, name, room)
        if not self.hub.has(name):
            arrival.heard = self._broker.subscribe(name)
        return arrival

    def land(
        self,
        arrival: Arrival,
        namespace: Namespace | None,
        missed: Sequence[Publication],
        position: Position | None,
    ) -> None:
        """Send what was missed up to a position, and what follows from now on.

        A topic has a namespace, a pattern has none.
        """
        self._arrivals.end(arrival)
        peer, name = arrival.peer, arrival.name
        following = arrival.following(position)
        if following is None:
            self._leave_alone(name)
            peer.close(CloseCode.LOST_POSITION)
            return
        if missed or following:
            self.resend(peer, [encode_broadcast(each) for each in (*missed, *following)])
        self.enter(peer, name, namespace)

    def enter(self, peer: Peer, name: str, namespace: Namespace | None) -> None:
        """Subscribe a connection to what the broker hears, or to what no other node publishes."""
        if self.hub.subscribe(peer, name):
            if not self.remote:
                self._broker.subscribe(name)
            if self._events is not None:
                self._events.occupied(name)
        if namespace is not None and namespace.presence:
            self._presence.join(name, namespace, peer.connection_id, peer.identity)

    def turn_back(self, arrival: Arrival) -> None:
        """Undo `arrive`."""
        self._arrivals.end(arrival)
        self._leave_alone(arrival.name)

    def _leave_alone(self, name: str) -> None:
        """Stop hearing a topic or pattern, unless somebody has it or is on the way."""
        if name not in self._arrivals and not self.hub.has(name):
            self._broker.unsubscribe(name)

    def subscribed(self, peer: Peer, names: Sequence[str]) -> None:
        """One command has subscribed a connection to all of these."""
        if self._events is not None:
            self._events.subscribed(peer.identity, peer.connection_id, names, self.now())

    def unsubscribe_all(self, peer: Peer, names: Iterable[str]) -> None:
        """Undo `subscribe` for each of some names that is subscribed to."""
        left = [name for name in names if name in peer.topics]
        for name in left:
            if self.hub.unsubscribe(peer, name):
                self._vacate(name)
            self._presence.leave(name, peer.connection_id)
        if self._events is not None and left:
            self._events.unsubscribed(peer.identity, peer.connection_id, left, self.now())

    def _vacate(self, name: str) -> None:
        if name not in self._arrivals:
            self._broker.unsubscribe(name)
        if self._events is not None:
            self._events.vacated(name)

    def publish(
        self,
        topic: str,
        namespace: Namespace,
        payload: bytes | Raw,
        from_user: str,
        now: float,
        key: str | None = None,
        exclude: str | None = None,
    ) -> Position | Deferred[Position | None] | None:
        """Publish JSON text on a permitted topic of a namespace. See `IBroker.publish`.

        `exclude` is the id of a connection that is not to get it.
        """
        publication = Publication(topic, payload, from_user, int(now * 1000), None, exclude)
        result = self._broker.publish(publication, namespace, key)
        self.counters.messages_received += 1
        return result

    async def history(
        self,
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> HistoryPage | None:
        """See `IBroker.history`."""
        found = self._broker.history(topic, namespace, since=since, limit=limit, reverse=reverse)
        page: HistoryPage | None = await found if isinstance(found, Deferred) else found
        return page

    def lost(self, name: str) -> None:
        """Tell subscribers of a topic or pattern that they may have missed something for good."""
        notice = {"status": "gap", "topics": [name]}
        self.hub.announce(name, encode_message("Status", notice, int(self.now() * 1000)))

    async def remove_history(self, topic: str) -> None:
        """See `IBroker.remove_history`."""
        removed = self._broker.remove_history(topic)
        if removed is not None:
            await removed

    async def present(self, topic: str, *, limit: int, after: str | None) -> PresencePage:
        """See `IPresence.members`."""
        page: PresencePage = await self._presence.members(topic, limit=limit, after=after)
        return page

    async def set_state(self, topic: str, user_id: str, state: bytes | None) -> Member | None:
        """See `IPresence.set_state`."""
        member: Member | None = await self._presence.set_state(topic, user_id, state)
        return member

    def direct(
        self,
        target_user: str,
        payload: bytes | Raw,
        from_user: str,
        now: float,
        key: str | None = None,
    ) -> int | Deferred[int]:
        """Send JSON text to all connections of a user; answer how many.

        A `key` that was used for this user within `KEY_TTL` seconds sends nothing again.
        """
        if not is_name(target_user):
            return 0
        scope = None if key is None else (target_user, from_user, key)
        if scope is not None and self._cluster is None:
            found = self._direct_keys.find(scope, now)
            if found is not None:
                return found[0]
        self.counters.messages_received += 1
        message = encode_direct_message(payload, from_user, int(now * 1000))
        if self._cluster is not None:
            return self._cluster.direct(target_user, message, scope)
        delivered = self.deliver_direct(target_user, message)
        if scope is not None:
            self._direct_keys.done(scope, delivered, now)
        return delivered

    def deliver_direct(self, target_user: str, message: bytes) -> int:
        """Send a message to a user's connections on this node; answer how many."""
        targets = self.hub.connections_of(target_user)
        self.hub.deliver_to(targets, message)
        self.counters.messages_sent += len(targets)
        return len(targets)

    def resend(self, peer: Peer, messages: Sequence[bytes]) -> None:
        """Send one connection the publications that it has missed."""
        self.hub.deliver_to((peer,), *messages)
        self.counters.messages_sent += len(messages)

    def send(self, peer: Peer, message: bytes) -> None:
        """Send a message to one connection, after all that was accepted before."""
        self.hub.deliver_to((peer,), message)

    def greet(self, peer: Peer, message: bytes) -> None:
        """Send a new connection its first message, before all else."""
        self.hub.greet(peer, message)

    def reply(self, peer: Peer, message: bytes) -> None:
        """Answer a command whose order with publications does not matter."""
        self.hub.reply(peer, message)

    # -- health ----------------------------------------------------------------------------

    def health(self) -> Health:
        """The node's health (reference: `GET /health`)."""
        reason = None
        if self.draining:
            reason = "Draining"
        elif self.counters.active_connections >= self.max_connections:
            reason = "At capacity"
        elif not self._broker.up:
            reason = "Broker unreachable"
        elif self._cluster is not None and self._cluster.refused:
            reason = "Broker refuses to write"
        return Health(
            reason,
            self.counters.active_connections,
            self.max_connections,
            int(self.now() - self._started_at),
        )
