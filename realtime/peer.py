"""One connected peer: commands in, policy, replies out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import length_hint
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime import __version__
from realtime.envelope import (
    Authenticate,
    BadCommand,
    Broadcast,
    Command,
    CommandId,
    DirectMessage,
    History,
    Ping,
    Presence,
    Subscribe,
    Unsubscribe,
    decode_command,
    encode_message,
    error_object,
    read_id,
)
from realtime.errors import (
    CloseCode,
    Forbidden,
    InternalError,
    InvalidRequest,
    RateLimited,
    RealtimeError,
)
from realtime.handlers import (
    forbidden,
    ping,
    presence,
    read_history,
    topic_namespace,
    unsubscribe,
)
from realtime.interfaces import Transport
from realtime.limits import TokenBucket, take_of
from realtime.model import Identity, Namespace, Piece, Position
from realtime.node import Node
from realtime.policy import ClientPolicy
from realtime.rules import may_publish
from realtime.subscribing import subscribe

SERVER_NAME = "WebSocket Real-time Communication Server"
# Seconds before its token's expiry at which a client is told.
EXPIRY_NOTICE = 60
# Refusals that a connection may collect at once; with more it is closed: 4502 for malformed
# messages, of which so many are forgiven a second, and 4004 for messages above the rate, of
# which as many are forgiven as are allowed, so that who waits as told is never closed.
MAX_REFUSALS = 100
FORGIVENESS = 2.0


class Client:
    """An authenticated connection (`interfaces.Peer`). `node_id` and `number` name it."""

    __slots__ = (
        "_bucket",
        "_due",
        "_excess",
        "_malformed",
        "_next_ping",
        "_rates",
        "_warned",
        "heard",
        "identity",
        "node",
        "number",
        "policy",
        "received",
        "send",
        "topics",
        "transport",
    )
    _log = Logger()

    def __init__(
        self, node: Node, policy: ClientPolicy, transport: Transport, identity: Identity
    ) -> None:
        self.node = node
        self.policy = policy
        self.transport = transport
        self._bucket = TokenBucket(policy.message_rate, policy.message_burst)
        self._malformed: TokenBucket | None = None
        self._excess: TokenBucket | None = None
        # By the pattern of a namespace that has a rate.
        self._rates: dict[str, TokenBucket] | None = None
        self.identity = identity
        self.number = node.next_number()
        self.topics: dict[str, None] = {}
        self.send: Callable[[bytes], int] = transport.send
        # The second in which the client was last heard of, and the bytes it has sent in that.
        self.heard = node.tick
        self.received = 0
        self._next_ping = node.tick + policy.heartbeat_interval
        self._warned = False
        self._due = 0

    @property
    def connection_id(self) -> str:
        """Unique among all nodes."""
        return f"{self.node.node_id}-{self.number:x}"

    @property
    def is_open(self) -> bool:
        """See `Caller.is_open`."""
        return self.send is not length_hint

    # -- the transport's side ----------------------------------------------------------------

    def open(self) -> None:
        """Join the node and welcome the client (DESIGN section 3)."""
        policy = self.policy
        identity = self.identity
        self.node.connect(self)
        self._schedule()
        welcome: dict[str, Any] = {
            "status": "connected",
            "connection_id": self.connection_id,
            "session_id": identity.session_id,
            "user_id": identity.user_id,
            "username": identity.username,
            "expires_at": int(identity.expires_at),
            "heartbeat_interval_secs": policy.heartbeat_interval,
            "client_timeout_secs": policy.client_timeout,
            "max_frame_size": policy.max_frame_size,
            "server": {"name": SERVER_NAME, "version": __version__},
        }
        for optional in ("session_id", "username"):
            if welcome[optional] is None:
                del welcome[optional]
        now = int(self.node.now() * 1000)
        self.node.greet(self, encode_message("Status", welcome, now))

    def mute(self) -> None:
        """Deliver nothing more: the transport is closing."""
        self.send = length_hint
        self.node.deadlines.cancel(self, self._due)
        self.node.leave(self)

    def closed(self, code: int) -> None:
        """Leave the node: the transport has ended, with this close code."""
        self.mute()
        self.node.disconnect(self, code)

    def took(self, size: int) -> bool:
        """The client is there, and has sent so many bytes; answer whether that is too fast."""
        if self.heard != self.node.tick:
            self.heard = self.node.tick
            self.received = 0
        self.received += size
        if self.received <= self.policy.byte_rate:
            return False
        self.node.counters.limit("byte-rate")
        return True

    def receive(self, message: bytes) -> None:
        """Obey one command, given as UTF-8."""
        now = self.node.now()
        if wait := self._bucket.take(now):
            self.refuse(RateLimited(wait), read_id(message))
            self._exceed(now)
            return
        try:
            command = decode_command(message)
        except BadCommand as error:
            self.refuse(error, error.id)
            if self._malformed is None:
                self._malformed = TokenBucket(FORGIVENESS, MAX_REFUSALS)
            if self._malformed.take(now):
                self.close(CloseCode.TOO_MANY_ERRORS)
            return
        self.obey(command, now)

    def obey(self, command: Command, now: float) -> None:
        """Obey a command that has been counted."""
        try:
            if type(command) is Broadcast:
                self._broadcast(command, now)
            else:
                result = _HANDLERS[type(command)](self, command)
                if result is not None:
                    self.run(result, command)
        except RealtimeError as error:
            self.refuse(error, command.id)
        except Exception:
            self._log.failure("A {command} command failed", command=type(command).__name__)
            self.refuse(InternalError(), command.id)

    def run(self, obeying: Coroutine[Any, Any, None], command: Command) -> None:
        """Obey a command to its end, which takes no time where there is one node."""
        with suppress(StopIteration):
            obeying.send(None)
            raise RuntimeError("a command takes time, and the client does not wait")

    def charge(self) -> bool:
        """Count a frame that is no message; answer whether it is within the rate."""
        now = self.node.now()
        if self._bucket.take(now):
            self._exceed(now)
            return False
        return True

    def spend(self, messages: float) -> None:
        """See `Caller.spend`."""
        self._bucket.spend(messages, self.node.now())

    def _exceed(self, now: float) -> None:
        self.node.counters.limit("message-rate")
        if self._excess is None:
            rate = max(FORGIVENESS, self.policy.message_rate)
            self._excess = TokenBucket(rate, MAX_REFUSALS)
        if self._excess.take(now):
            self.close(CloseCode.RATE_LIMITED)

    # -- the node's side ---------------------------------------------------------------------

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """See `Subscriber.unsent`."""
        self.transport.unsent(data, sent, pieces)

    def close(self, code: CloseCode) -> None:
        """End the connection; nothing is sent after the Close frame."""
        self.transport.close(code)

    def on_deadline(self, tick: int) -> None:
        """See to heartbeat, silence and the token's expiry."""
        policy = self.policy
        expires_at = self.identity.expires_at
        if tick >= expires_at and policy.on_token_expiry == "close":
            self.close(CloseCode.TOKEN_EXPIRED)
            return
        if tick - self.heard >= policy.client_timeout:
            self.node.counters.limit("client-timeout")
            self.close(CloseCode.CLIENT_TIMEOUT)
            return
        if tick >= expires_at - EXPIRY_NOTICE and not self._warned:
            self._warned = True
            self.answer("Status", {"status": "token_expiring", "expires_at": int(expires_at)}, None)
        if tick >= self._next_ping:
            self._next_ping = tick + policy.heartbeat_interval
            self.transport.ping()
        # Writing may have ended the connection.
        if self.is_open:
            self._schedule()

    def _schedule(self) -> None:
        due = min(self._next_ping, self.heard + self.policy.client_timeout)
        expires_at = self.identity.expires_at
        if not self._warned:
            due = min(due, _second(expires_at - EXPIRY_NOTICE))
        if self.policy.on_token_expiry == "close":
            due = min(due, _second(expires_at))
        self._due = self.node.deadlines.schedule(self, due)

    # -- commands ----------------------------------------------------------------------------

    def _broadcast(self, command: Broadcast, now: float) -> None:
        data, identity = command.data, self.identity
        topic = data.topic
        namespace = self.node.lookup(topic)
        if type(namespace) is not Namespace:
            namespace = topic_namespace(self.node, topic)
        if namespace is None or not may_publish(identity, namespace, topic):
            raise forbidden("publish on", topic)
        if namespace.rate is not None or namespace.max_payload is not None:
            self.check_limits(namespace, data.payload, "data.payload")
        exclude = None if data.echo else self.connection_id
        result = self.node.publish(
            topic, namespace, data.payload, identity.user_id, now, data.key, exclude
        )
        if result is None:
            if command.id is not None:
                self._published(None, command)
        elif isinstance(result, Deferred):
            result.addCallbacks(
                self._published, self.failed, callbackArgs=(command,), errbackArgs=(command,)
            )
        else:
            self._published(result, command)

    def check_limits(self, namespace: Namespace, payload: Raw, field: str) -> None:
        """See `Caller.check_limits`."""
        limit = namespace.max_payload
        if limit is not None and len(bytes(payload)) > limit:
            raise InvalidRequest(
                f"A payload on this topic has at most {limit} bytes",
                details={"field": field, "max_payload": limit},
            )
        if namespace.rate is not None:
            if self._rates is None:
                self._rates = {}
            wait = take_of(self._rates, namespace.pattern, namespace.rate, self.node.now())
            if wait:
                raise RateLimited(wait, "Too many publications on these topics")

    def _published(self, position: Position | None, command: Broadcast) -> None:
        if command.id is not None:
            data: dict[str, Any] = {"topic": command.data.topic}
            if position is not None:
                data |= {"offset": position.offset, "epoch": position.epoch}
            self.answer("Ack", data, command.id)

    def failed(self, failure: Failure, command: Command) -> None:
        """A command that took time has failed."""
        if not isinstance(error := failure.value, RealtimeError):
            self._log.failure("A {command} failed", failure, command=type(command).__name__)
            error = InternalError()
        self.refuse(error, command.id)

    def _direct_message(self, command: DirectMessage) -> None:
        data = command.data
        if not data.target_user:
            raise InvalidRequest(
                "'target_user' cannot be empty", details={"field": "data.target_user"}
            )
        node = self.node
        sender = self.identity.user_id
        result = node.direct(data.target_user, data.payload, sender, node.now(), data.key)
        if isinstance(result, Deferred):
            result.addCallbacks(
                self._directed, self.failed, callbackArgs=(command,), errbackArgs=(command,)
            )
        else:
            self._directed(result, command)

    def _directed(self, delivered: int, command: DirectMessage) -> None:
        if command.id is not None:
            self.answer("Ack", {"delivered": delivered}, command.id)

    def _authenticate(self, command: Authenticate) -> None:
        try:
            identity = self.policy.authenticate(command.data.token)
            if identity.user_id != self.identity.user_id:
                raise Forbidden("The token is another user's")
        except RealtimeError as error:
            error.actor = self.identity.user_id
            self.policy.refused(error, self.connection_id)
            raise
        # The hub has indexed the connection by its username, which therefore stays.
        self.identity = replace(identity, username=self.identity.username)
        self._warned = False
        self.node.deadlines.cancel(self, self._due)
        self._schedule()
        may = self.node.rules.may
        lost = [topic for topic in self.topics if not may(identity, "subscribe", topic)]
        self.node.unsubscribe_all(self, lost)
        for topic in lost:
            gone = {"status": "unsubscribed", "topics": [topic], "reason": "permission"}
            self.tell("Status", gone, None)
        data = {"status": "authenticated", "expires_at": int(identity.expires_at)}
        self.answer("Status", data, command.id)

    # -- answers -----------------------------------------------------------------------------

    def tell(self, type: str, data: dict[str, Any], id: CommandId) -> None:
        """See `Caller.tell`."""
        self.node.send(self, encode_message(type, data, int(self.node.now() * 1000), id))

    def answer(self, type: str, data: dict[str, Any], id: CommandId) -> None:
        """See `Caller.answer`."""
        self.node.reply(self, encode_message(type, data, int(self.node.now() * 1000), id))

    def refuse(self, error: RealtimeError, id: CommandId, *, in_order: bool = False) -> None:
        """See `Caller.refuse`."""
        self.node.counters.errors += 1
        (self.tell if in_order else self.answer)("Error", error_object(error), id)


def _second(time: float) -> int:
    """The first whole second at which `time` has come."""
    return -int(-time // 1)


# A handler that has to wait for something answers a coroutine.
_HANDLERS: dict[type[Any], Callable[[Client, Any], Coroutine[Any, Any, None] | None]] = {
    DirectMessage: Client._direct_message,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Ping: ping,
    Authenticate: Client._authenticate,
    History: read_history,
    Presence: presence,
}
