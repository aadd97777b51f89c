"""The server API: publishing and messaging from an operator's backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from klein import Klein
from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from realtime.answers import answer_json
from realtime.backends import Backends
from realtime.envelope import MAX_KEY, Key, error_object
from realtime.errors import InternalError, InvalidRequest, RealtimeError
from realtime.handlers import forbidden, topic_namespace
from realtime.model import Identity, Position
from realtime.names import ADMIN_ROLE, is_name
from realtime.node import Node
from realtime.rest_requests import add_route, bearer_token, read_body

T = TypeVar("T")
_log = Logger()

# Topics that one publication may go to, and commands of a batch.
MAX_AT_ONCE = 1000

Topics = Annotated[list[str], Meta(min_length=1, max_length=MAX_AT_ONCE)]


class Publish(Struct):
    """Publish on one topic, or the same on many; `exclude` is a connection to leave out."""

    payload: Raw
    topic: str | None = None
    topics: Topics | None = None
    key: Key | None = None
    from_user: str | None = None
    exclude: str | None = None


class Message(Struct):
    """Message all connections of a user."""

    payload: Raw
    key: Key | None = None
    from_user: str | None = None


class Direct(Message, kw_only=True):
    """A message within a batch."""

    user: str


class BatchCommand(Struct):
    """One of the two."""

    publish: Publish | None = None
    direct: Direct | None = None


class Batch(Struct):
    """Commands, obeyed in their order."""

    commands: Annotated[list[BatchCommand], Meta(max_length=MAX_AT_ONCE)]


_decode_publish = Decoder(Publish)
_decode_message = Decoder(Message)
_decode_batch = Decoder(Batch)


def add_publish(app: Klein, node: Node, backends: Backends) -> None:
    """Add the routes to an application."""
    api = _Publish(node, backends)
    add_route(app, "POST", "/publish", api.publish)
    add_route(app, "POST", "/batch", api.batch)
    add_route(app, "POST", "/users/<path:user>/messages", api.message)


# What came of one publication so far.
_Outcome: TypeAlias = Position | RealtimeError | None
_Begun: TypeAlias = _Outcome | Deferred[_Outcome]


class _Publish:
    def __init__(self, node: Node, backends: Backends) -> None:
        self._node = node
        self._backends = backends

    async def publish(self, request: IRequest) -> bytes:
        """Publish on one topic or many."""
        identity = self._backends.authenticate(bearer_token(request))
        body = read_body(request, _decode_publish)
        done = await self._publish(identity, body)
        self._note(request, identity, [body])
        return answer_json(request, done)

    async def batch(self, request: IRequest) -> bytes:
        """Obey several commands in order; each has its own result, whatever comes of others."""
        identity = self._backends.authenticate(bearer_token(request))
        # All are begun before the first is waited for: durable ones are committed together.
        commands = read_body(request, _decode_batch).commands
        begun = [Deferred.fromCoroutine(self._obey(identity, command)) for command in commands]
        results = [await each for each in begun]
        self._note(request, identity, [each.publish or each.direct for each in commands])
        return answer_json(request, {"results": results})

    async def message(self, request: IRequest, user: str) -> bytes:
        """Message a user."""
        identity = self._backends.authenticate(bearer_token(request))
        body = read_body(request, _decode_message)
        done = await self._direct(identity, user, body)
        self._note(request, identity, [body], user=user)
        return answer_json(request, done)

    def _note(
        self,
        request: IRequest,
        identity: Identity,
        bodies: Sequence[Publish | Message | None],
        user: str | None = None,
    ) -> None:
        """Have the audit log tell of what admins publish, and of what anybody does as another."""
        senders = {body.from_user for body in bodies if body is not None} - {None}
        if ADMIN_ROLE not in identity.roles and senders <= {identity.user_id}:
            return
        first = bodies[0] if len(bodies) == 1 else None
        topic = first.topic if isinstance(first, Publish) else None
        sender = next(iter(senders)) if len(senders) == 1 else None
        about = {"user": user, "topic": topic, "sender": sender}
        self._backends.audit.act(request, identity, "publish", commands=len(bodies), **about)

    async def _obey(self, identity: Identity, command: BatchCommand) -> dict[str, Any]:
        """Obey a command of a batch; answer its result, be it a refusal.

        It raises nothing but to whoever waits and gives up: nobody may wait yet, or any more.
        """
        try:
            if command.publish is not None and command.direct is None:
                return await self._publish(identity, command.publish)
            if command.direct is not None and command.publish is None:
                return await self._direct(identity, command.direct.user, command.direct)
            raise InvalidRequest(
                "A command is either 'publish' or 'direct'", details={"field": "commands"}
            )
        except CancelledError:
            raise
        except Exception as error:
            return {"error": error_object(_refusal(error))}

    async def _publish(self, identity: Identity, body: Publish) -> dict[str, Any]:
        if (body.topic is None) == (body.topics is None):
            raise InvalidRequest("Either 'topic' or 'topics' is needed", details={"field": "topic"})
        from_user = _sender(identity, body.from_user)
        topics = body.topics if body.topics is not None else [body.topic or ""]
        begun = [(topic, self._begin(topic, body, from_user)) for topic in topics]
        if body.topics is None:
            return await _finish(*begun[0])
        results = []
        for topic, result in begun:
            try:
                results.append(await _finish(topic, result))
            except RealtimeError as error:
                results.append({"topic": topic, "error": error_object(error)})
        return {"results": results}

    def _begin(self, topic: str, body: Publish, from_user: str) -> _Begun:
        """Publish on one topic, as the rules of no role and no rate say; answer what came of it."""
        try:
            namespace = topic_namespace(self._node, topic, field="topic")
            if namespace is None:
                raise forbidden("publish on", topic)
            limit = namespace.max_payload
            if limit is not None and len(bytes(body.payload)) > limit:
                raise InvalidRequest(
                    f"A payload on this topic has at most {limit} bytes",
                    details={"field": "payload", "max_payload": limit},
                )
            now = self._node.now()
            key = _scoped(body.key)
            begun = self._node.publish(
                topic, namespace, body.payload, from_user, now, key, body.exclude
            )
        except RealtimeError as error:
            return error
        return _settled(begun) if isinstance(begun, Deferred) else begun

    async def _direct(self, identity: Identity, user: str, body: Message) -> dict[str, Any]:
        if not user:
            raise InvalidRequest("'user' cannot be empty", details={"field": "user"})
        from_user = _sender(identity, body.from_user)
        now = self._node.now()
        begun = self._node.direct(user, body.payload, from_user, now, _scoped(body.key))
        if isinstance(begun, int):
            return {"delivered": begun}
        settled = _settled(begun)
        delivered = await settled
        if isinstance(delivered, RealtimeError):
            raise delivered
        return {"delivered": delivered}


def _settled(begun: Deferred[T]) -> Deferred[T | RealtimeError]:
    """What comes of something begun, be it a refusal.

    A backend that is gone, or gives up, undoes nothing; whatever comes of it then is nobody's.
    """
    settled: Deferred[T | RealtimeError] = Deferred()
    begun.addCallbacks(settled.callback, lambda failure: settled.callback(_refusal(failure.value)))
    return settled


def _refusal(error: BaseException) -> RealtimeError:
    """What a backend is told of an error; our own are logged."""
    if isinstance(error, RealtimeError):
        return error
    failure = Failure(error)  # type: ignore[no-untyped-call]
    _log.failure("A command of a backend failed", failure)
    return InternalError()


def _scoped(key: str | None) -> str | None:
    """A key as no client can send it: so a backend's are its own, whoever it publishes for."""
    return None if key is None else f"{len(key)} {key}".ljust(MAX_KEY + 1)


async def _finish(topic: str, begun: _Begun) -> dict[str, Any]:
    position = await begun if isinstance(begun, Deferred) else begun
    if isinstance(position, RealtimeError):
        raise position
    if position is None:
        return {"topic": topic}
    return {"topic": topic, "offset": position.offset, "epoch": position.epoch}


def _sender(identity: Identity, named: str | None) -> str:
    """Who is said to have sent it: the backend itself, unless it names another."""
    if named is None:
        return identity.user_id
    if not is_name(named):
        raise InvalidRequest("'from_user' is no user's id", details={"field": "from_user"})
    return named
