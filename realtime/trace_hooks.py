"""What traces see of a node: while there is one, its methods are wrapped; else nothing is.

So what nobody traces costs nothing. No answer is changed on its way, and what fails in here fails
nobody else. Of tokens and URLs nothing is kept but whom a refused token names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, Final, ParamSpec

import msgspec
from msgspec import Raw, Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.admission import Admission
from realtime.errors import ErrorCode, RealtimeError
from realtime.interfaces import Peer
from realtime.model import Identity, Namespace, Position, Publication
from realtime.node import Node
from realtime.rules import Right
from realtime.topics import covers
from realtime.trace import SHOWN, Trace, named_by, payload, some

P = ParamSpec("P")
_log = Logger()

_HOOKS: Final = (
    *("connect", "leave", "disconnect", "subscribed", "unsubscribe_all"),
    *("publish", "direct", "reply", "send", "resend"),
)
_ADMITTING: Final = ("admit", "ask")
_ERROR: Final = b'{"type":"Error"'
# What a refusal says was not allowed.
_RIGHTS: Final[dict[str, Right]] = {
    "publish on": "publish",
    "subscribe to": "subscribe",
    "read the history": "read_history",
    "see who is": "read_presence",
}


class _Refusal(Struct):
    code: str
    message: str
    details: dict[str, Any] = {}


class _Error(Struct):
    data: _Refusal


class _Named(Struct):
    topic: str


class _Broadcast(Struct):
    data: _Named


_decode_error: Final = msgspec.json.Decoder(_Error).decode
_decode_broadcast: Final = msgspec.json.Decoder(_Broadcast).decode


def _harmless(note: Callable[P, None]) -> Callable[P, None]:
    """What takes note of something, and raises nothing."""

    @wraps(note)
    def safely(*args: P.args, **named: P.kwargs) -> None:
        try:
            note(*args, **named)
        except Exception:
            _log.failure("Something could not be traced")

    return safely


class TraceHooks:
    """Wraps a node and its admission for some traces. `authenticate` judges tokens."""

    def __init__(
        self,
        node: Node,
        admission: Admission,
        authenticate: Callable[[str], Identity],
        traces: Mapping[str, Trace],
    ) -> None:
        self._node = node
        self._admission = admission
        self._authenticate = authenticate
        self._traces = traces
        # Methods set on the objects themselves would leave all access to them slower for good.
        self._kinds = (type(node), type(admission))
        self._telling = (self._wrap(type(node), _HOOKS), self._wrap(type(admission), _ADMITTING))
        # While the node publishes: what has been delivered of that, and to how many.
        self._publishing = False
        self._delivered: tuple[Publication, int] | None = None

    def do(self) -> None:
        """Have them be of classes that tell."""
        self._become(self._telling, self._deliver)

    def undo(self) -> None:
        """Leave them as they were."""
        self._become(self._kinds, self._node.hub.deliver)

    def _become(
        self, kinds: tuple[type[Any], type[Any]], deliver: Callable[[Publication], object]
    ) -> None:
        self._node.__class__, self._admission.__class__ = kinds
        self._node.deliver_by(deliver)

    def _wrap(self, kind: type[Any], names: Iterable[str]) -> type[Any]:
        """A class like another, some of whose methods are called by the hooks named after them."""

        def wrapped(name: str) -> Callable[..., Any]:
            method, hook = getattr(kind, name), getattr(self, f"_{name}")
            return lambda wrapped, *args, **named: hook(partial(method, wrapped), *args, **named)

        return type(kind.__name__, (kind,), {name: wrapped(name) for name in names})

    @_harmless
    def _tell(self, peer: Peer, topics: Iterable[str] | None, what: str, **more: Any) -> None:
        """Note what a connection has done, in the traces that it concerns."""
        identity, now = peer.identity, self._node.now()
        for trace in self._traces.values():
            if trace.wants(identity, topics):
                named = {} if topics is None else some(trace.names(topics))
                trace.note(now, what, **_who(peer), **named, **more)

    # -- connections -------------------------------------------------------------------------

    def _connect(self, connect: Callable[[Peer], None], peer: Peer) -> None:
        connect(peer)
        for trace in self._traces.values():
            if trace.is_of_user(peer.identity):
                trace.learn(peer.identity.user_id)
        self._tell(peer, None, "connected")

    def _leave(self, leave: Callable[[Peer], None], peer: Peer) -> None:
        topics = list(peer.topics)
        leave(peer)
        if topics:
            self._left(peer, topics)

    @_harmless
    def _left(self, peer: Peer, topics: Sequence[str]) -> None:
        # A trace of a user alone is told that the connection ends.
        for trace in self._traces.values():
            if trace.topic is not None and trace.wants(peer.identity, topics):
                names = some(trace.names(topics))
                trace.note(self._node.now(), "left", **_who(peer), **names)

    def _disconnect(self, disconnect: Callable[[Peer, int], None], peer: Peer, code: int) -> None:
        disconnect(peer, code)
        self._tell(peer, None, "disconnected", code=int(code))

    def _subscribed(
        self, subscribed: Callable[[Peer, Sequence[str]], None], peer: Peer, names: Sequence[str]
    ) -> None:
        subscribed(peer, names)
        self._tell(peer, names, "subscribed")

    def _unsubscribe_all(
        self, unsubscribe: Callable[[Peer, Iterable[str]], None], peer: Peer, names: Iterable[str]
    ) -> None:
        left = [name for name in names if name in peer.topics]
        unsubscribe(peer, left)
        if left:
            self._tell(peer, left, "unsubscribed")

    def _reply(self, reply: Callable[[Peer, bytes], None], peer: Peer, message: bytes) -> None:
        reply(peer, message)
        if message.startswith(_ERROR):
            self._refused(peer, message)

    _send = _reply  # of Errors in order with publications

    @_harmless
    def _refused(self, peer: Peer, message: bytes) -> None:
        refusal = _decode_error(message).data
        topic = refusal.details.get("topic")
        topics = [topic] if isinstance(topic, str) else None
        why = None if topics is None else self._why(peer.identity, refusal, topics[0])
        said = refusal.message[: 4 * SHOWN]
        self._tell(peer, topics, "refused", code=refusal.code, message=said, why=why)

    def _why(self, identity: Identity, refusal: _Refusal, topic: str) -> str | None:
        """What the rules say of a topic that was refused."""
        if refusal.code != ErrorCode.FORBIDDEN:
            return None
        for words, right in _RIGHTS.items():
            if words in refusal.message:
                decision = self._node.rules.explain(identity, right, topic)
                return None if decision.allowed else decision.reason
        return None

    def _resend(
        self,
        resend: Callable[[Peer, Sequence[bytes]], None],
        peer: Peer,
        messages: Sequence[bytes],
    ) -> None:
        resend(peer, messages)
        self._recovered(peer, messages)

    @_harmless
    def _recovered(self, peer: Peer, messages: Sequence[bytes]) -> None:
        topic = _decode_broadcast(messages[0]).data.topic
        self._tell(peer, [topic], "recovered", publications=len(messages))

    # -- handshakes --------------------------------------------------------------------------

    def _admit(self, admit: Callable[..., Identity], token: str | None, *more: Any) -> Identity:
        try:
            return admit(token, *more)
        except RealtimeError as error:
            self._turned_away(error, token)
            raise

    async def _ask(self, ask: Callable[..., Any], identity: Identity, *more: Any) -> Any:
        try:
            return await ask(identity, *more)
        except RealtimeError as error:
            self._note_turned_away(error, identity, None)
            raise

    @_harmless
    def _turned_away(self, error: RealtimeError, token: str | None) -> None:
        """A handshake was refused: of whom, the token says, be it good or not."""
        try:
            identity, unverified = self._authenticate(token or ""), None
        except RealtimeError:
            named, unverified = named_by(token or ""), True
            if named is None:
                return
            identity = named
        self._note_turned_away(error, identity, unverified)

    @_harmless
    def _note_turned_away(
        self, error: RealtimeError, identity: Identity, unverified: bool | None
    ) -> None:
        for trace in self._traces.values():
            if trace.is_of_user(identity):
                trace.note(
                    self._node.now(),
                    "turned_away",
                    user=identity.user_id,
                    username=identity.username,
                    code=str(error.code),
                    message=error.message[: 4 * SHOWN],
                    unverified=unverified,
                )

    # -- messages ----------------------------------------------------------------------------

    def _publish(
        self,
        publish: Callable[..., Position | Deferred[Position | None] | None],
        topic: str,
        namespace: Namespace,
        text: bytes | Raw,
        from_user: str,
        now: float,
        key: str | None = None,
        exclude: str | None = None,
    ) -> Position | Deferred[Position | None] | None:
        self._publishing, self._delivered = True, None
        try:
            result = publish(topic, namespace, text, from_user, now, key, exclude)
        finally:
            self._publishing = False
        delivered, self._delivered = self._delivered, None
        publication = Publication(topic, text, from_user, int(now * 1000), None, exclude)
        if isinstance(result, Deferred):
            result.addCallbacks(
                self._accepted,
                self._failed,
                callbackArgs=(publication,),
                errbackArgs=(publication,),
            )
        elif delivered is not None:
            self._note_publication("published", delivered[0], result, delivered[1])
        else:
            self._note_publication("repeated", publication, result, None)
        return result

    def _accepted(self, position: Position | None, publication: Publication) -> Position | None:
        self._note_publication("published", publication, position, None)
        return position

    def _failed(self, failure: Failure, publication: Publication) -> Failure:
        self._note_publication(
            "failed", publication, None, None, message=str(failure.value)[:SHOWN]
        )
        return failure

    def _deliver(self, publication: Publication) -> None:
        counters = self._node.counters
        before = counters.messages_sent
        self._node.hub.deliver(publication)
        delivered = counters.messages_sent - before
        if self._publishing:
            self._delivered = (publication, delivered)
        else:
            self._note_publication("delivered", publication, publication.position, delivered)

    @_harmless
    def _note_publication(
        self,
        what: str,
        publication: Publication,
        position: Position | None,
        delivered: int | None,
        **more: Any,
    ) -> None:
        """Note it in the traces of its topic, of its publisher and of users who have it."""
        now, topic = self._node.now(), publication.topic
        for trace in self._traces.values():
            of_user = self._had_by(trace, publication) if delivered is not None else {}
            if trace.topic is None:
                if not trace.is_of_id(publication.from_user) and not of_user.get("user_had"):
                    continue
            elif not trace.names((topic,)):
                continue
            trace.note(
                now,
                what,
                topic=topic,
                **{"from": publication.from_user},
                offset=None if position is None else position.offset,
                delivered=delivered,
                **payload(publication.payload),
                **of_user,
                **more,
            )

    def _had_by(self, trace: Trace, publication: Publication) -> dict[str, int]:
        """How many connections the user of a trace has here, and how many of them had it."""
        if not trace.has_user:
            return {}
        topic = publication.topic
        peers = peers_of(self._node, trace.users)
        had = left_out = 0
        for peer in peers:
            if any(covers(name, topic) for name in peer.topics):
                had += 1
                left_out += peer.connection_id == publication.exclude
        return {
            "user_connections": len(peers),
            "user_had": had - left_out,
            "user_left_out": left_out,
        }

    def _direct(
        self,
        direct: Callable[..., int | Deferred[int]],
        target_user: str,
        text: bytes | Raw,
        from_user: str,
        *more: Any,
    ) -> int | Deferred[int]:
        result = direct(target_user, text, from_user, *more)
        if isinstance(result, Deferred):
            result.addCallback(self._directed, target_user, text, from_user)
        else:
            self._directed(result, target_user, text, from_user)
        return result

    def _directed(self, delivered: int, target: str, text: bytes | Raw, from_user: str) -> int:
        self._note_direct(delivered, target, text, from_user)
        return delivered

    @_harmless
    def _note_direct(self, delivered: int, target: str, text: bytes | Raw, from_user: str) -> None:
        for trace in self._traces.values():
            if trace.topic is None and (trace.is_of(target) or trace.is_of_id(from_user)):
                more = {"from": from_user, "to": target[:255], **payload(text)}
                trace.note(self._node.now(), "direct", delivered=delivered, **more)


def peers_of(node: Node, user: Iterable[str]) -> list[Peer]:
    """The connections on a node of the user with these ids and names."""
    found: dict[Peer, None] = {}
    for name in user:
        found |= dict.fromkeys(node.hub.connections_of(name))
    return list(found)


def _who(peer: Peer) -> dict[str, Any]:
    identity = peer.identity
    return {
        "user": identity.user_id,
        "username": identity.username,
        "connection": peer.connection_id,
    }
