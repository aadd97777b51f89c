"""The node: what one server process does with topics, users and connections.

A publication goes down to the broker and comes back up from it, also on the node where it
was made; a direct message goes to the user's connections.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from realtime.envelope import encode_direct_message, encode_message
from realtime.errors import CloseCode, ServerFull, Unavailable
from realtime.hub import Hub
from realtime.interfaces import Deadline, IBroker, Peer
from realtime.metrics import Counters
from realtime.model import Health, Namespace, Position, Publication
from realtime.wheel import TimerWheel

# Deadlines served in one turn of the reactor, a few milliseconds of them.
DEADLINES_A_TURN = 100
_EVERYTHING = Namespace(">")


class Node:
    """The heart of a server process. Times are seconds of `clock`."""

    def __init__(
        self,
        broker: IBroker,
        hub: Hub[Peer],
        counters: Counters,
        clock: IReactorTime,
        *,
        max_connections: int,
    ) -> None:
        self._broker = broker
        self.hub = hub
        self._clock = clock
        self.counters = counters
        self.max_connections = max_connections
        self.node_id = token_hex(4)
        self.draining = False
        self.now: Callable[[], float] = clock.seconds
        self._started_at = clock.seconds()
        self.tick = int(self._started_at)
        self.deadlines: TimerWheel[Deadline] = TimerWheel(self.tick)
        self._last_number = 0
        self._when_empty: list[Deferred[None]] = []
        broker.start(hub.deliver, hub.announce)

    # -- connections -----------------------------------------------------------------------

    def admit(self) -> None:
        """Raise `Unavailable` or `ServerFull` where no connection more can be taken."""
        if self.draining:
            raise Unavailable("The server is shutting down.")
        if self.counters.active_connections >= self.max_connections:
            raise ServerFull()

    def next_number(self) -> int:
        """A number for a new connection, unique on this node."""
        self._last_number += 1
        return self._last_number

    def connect(self, peer: Peer) -> None:
        """Take in an admitted connection."""
        self.hub.add(peer)
        self.counters.active_connections += 1
        self.counters.total_connections += 1

    def leave(self, peer: Peer) -> None:
        """Deliver nothing more to a connection; it may still be closing."""
        for topic in self.hub.remove(peer):
            self._broker.unsubscribe(topic)

    def disconnect(self, peer: Peer) -> None:
        """Forget a connection that has ended."""
        self.leave(peer)
        self.counters.active_connections -= 1
        if self.counters.active_connections == 0:
            waiting, self._when_empty = self._when_empty, []
            for done in waiting:
                done.callback(None)

    def revoke(self, kind: str, id: str) -> None:
        """Close the connections of an ended session (`kind` "session") or user ("user")."""
        for peer in self.hub.connections():
            identity = peer.identity
            if id == (identity.session_id if kind == "session" else identity.user_id):
                peer.close(CloseCode.SESSION_TERMINATED)

    def close_all(self, code: CloseCode) -> Deferred[None]:
        """Take no connection more and close all; fires when the last has ended."""
        self.draining = True
        notice = encode_message("Status", {"status": "draining"}, int(self.now() * 1000))
        self.hub.deliver_to(self.hub.connections(), notice)
        self.hub.flush()
        for peer in self.hub.connections():
            peer.close(code)
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
        due = self.deadlines.advance(self.tick, DEADLINES_A_TURN)
        for item in due:
            item.on_deadline(self.tick)
        if len(due) == DEADLINES_A_TURN:
            self._clock.callLater(0, self.advance)

    # -- topics and messages ---------------------------------------------------------------

    def subscribe(self, peer: Peer, topic: str) -> None:
        """Subscribe a connection to a valid, permitted topic."""
        if self.hub.subscribe(peer, topic):
            self._broker.subscribe(topic)

    def unsubscribe(self, peer: Peer, topic: str) -> None:
        """Undo `subscribe`."""
        if self.hub.unsubscribe(peer, topic):
            self._broker.unsubscribe(topic)

    def publish(
        self, topic: str, payload: bytes | Raw, from_user: str, now: float
    ) -> Position | Deferred[Position | None] | None:
        """Publish JSON text on a valid, permitted topic. See `IBroker.publish`."""
        publication = Publication(topic, payload, from_user, int(now * 1000), None)
        result = self._broker.publish(publication, _EVERYTHING, None)
        self.counters.messages_received += 1
        return result

    def direct(self, target_user: str, payload: bytes | Raw, from_user: str, now: float) -> int:
        """Send JSON text to all connections of a user; answer how many."""
        self.counters.messages_received += 1
        targets = self.hub.connections_of(target_user)
        if targets:
            message = encode_direct_message(payload, from_user, int(now * 1000))
            self.hub.deliver_to(targets, message)
            self.counters.messages_sent += len(targets)
        return len(targets)

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
        return Health(
            reason,
            self.counters.active_connections,
            self.max_connections,
            int(self.now() - self._started_at),
        )
