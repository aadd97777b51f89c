"""The edge of server-sent events: a stream of messages down, and commands by POST.

What a WebSocket is for `websocket.py`, an answer that does not end is here: the same clients with
the same permissions and limits, for networks where WebSockets are blocked.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
from klein import Klein
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from realtime.admission import Admission
from realtime.answers import answer_json
from realtime.envelope import Subscribe, decode_as, decode_command, encode_json
from realtime.errors import CloseCode, InvalidRequest, NotFound, Unavailable
from realtime.event_stream import (
    CONTENT_TYPE,
    HEARTBEAT,
    MAX_TOPIC_BYTES,
    MAX_TOPICS,
    Positions,
    close_event,
    decode_id,
    event,
)
from realtime.frames import messages_in
from realtime.model import Piece, Position
from realtime.nodes import Nodes
from realtime.peer import Client
from realtime.rest_requests import add_route, bearer_token, query, read_json
from realtime.send_queue import SendQueue
from realtime.topics import check_pattern

_log = Logger()

# Commands that one POST may have, and seconds that it waits for a stream that is held.
MAX_COMMANDS = 100
PATIENCE = 1.5
# Milliseconds after which a browser's EventSource connects again.
_RETRY = b"retry: 2000\n\n"
# The code of a stream that ended without being told why.
_NO_CLOSE = 1006

_decode_commands = msgspec.json.Decoder(list[Raw])


def add_sse(app: Klein, streams: Streams) -> None:
    """Add the routes to an application."""
    add_route(app, "GET", "/sse", streams.open)
    add_route(app, "POST", "/sse/<connection_id>", streams.command)


class Stream:
    """One answer that goes on until the connection ends (`interfaces.Transport`)."""

    __slots__ = ("_admission", "_code", "_holds", "_positions", "_queue", "_released", "_request",
                 "client")  # fmt: skip

    def __init__(
        self, request: Any, admission: Admission, positions: Positions, max_queue_bytes: int
    ) -> None:
        self._request = request
        self._admission = admission
        self._positions = positions
        self._queue = SendQueue(request.write, max_queue_bytes, admission.node.counters)
        self._code: int | None = None
        self._holds = 0
        self._released: list[Deferred[None]] = []
        self.client: Client

    def open(self, client: Client, topics: Sequence[str]) -> Deferred[None]:
        """Begin: welcome the client, and subscribe it. Fires when the stream has ended."""
        self.client = client
        ended: Deferred[None] = Deferred()
        request = self._request
        request.setHeader("Content-Type", CONTENT_TYPE)
        # A proxy that collects what it passes on would keep it from the client.
        request.setHeader("X-Accel-Buffering", "no")
        request.setHeader("Connection", "close")
        request.channel.stream()
        _give_up_after(request.transport, self._admission.policy.client_timeout)
        request.registerProducer(self._queue, True)
        request.notifyFinish().addBoth(self._end).addCallback(ended.callback)
        request.write(_RETRY)
        client.open()
        if topics:
            client.obey(_subscription(topics, self._positions.known), client.node.now())
        return ended

    def _end(self, _: object) -> None:
        self._admission.leave(self.client)
        self.client.closed(self._code or _NO_CLOSE)
        self._holds = 0
        self._let_go()

    # -- interfaces.Transport ----------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """Write framed messages as events; take nothing while others wait."""
        if self._queue.is_waiting:
            return 0
        self._queue.send(b"".join(self._events(data)))
        return len(data)

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """Let it wait; close with 4002 where there is no room for what may not be dropped."""
        if self._code is not None:
            return
        pieces = [
            piece.carried_as(each)
            for piece in pieces or [Piece(data)]
            for each in self._events(piece.frames)
        ]
        if not self._queue.add(b"", 0, pieces):
            self._admission.node.counters.closed_slow_consumers += 1
            self._admission.node.counters.limit("max-queue-bytes")
            self.close(CloseCode.SLOW_CONSUMER)

    def _events(self, data: bytes) -> list[bytes]:
        note = self._positions.note
        return [_event(message, note(message)) for message in _messages(data)]

    def ping(self) -> None:
        """Send a comment; while what was sent is taken, the client is there."""
        if self._queue.send(HEARTBEAT):
            self.client.heard = self._admission.node.tick

    def close(self, code: CloseCode) -> None:
        """Tell why, and end the answer."""
        if self._code is not None:
            return
        keep = code != CloseCode.SLOW_CONSUMER
        if keep:
            self._admission.node.hub.finish(self.client)
            if self._code is not None:  # there was no room for it
                return
        self._code = int(code)
        self._queue.end(keep)
        self.client.mute()
        self._request.write(close_event(int(code), code.meaning))
        self._request.unregisterProducer()
        self._request.finish()

    def hold(self) -> None:
        """See `Transport.hold`."""
        self._holds += 1

    def release(self) -> None:
        """See `Transport.release`."""
        self._holds -= 1
        if self._holds <= 0:
            self._let_go()

    # -- commands ----------------------------------------------------------------------------

    async def take(self, commands: Sequence[bytes]) -> None:
        """Obey commands, once nothing holds the stream. Raises `Unavailable`."""
        if self._holds > 0:
            released: Deferred[None] = Deferred()
            self._released.append(released)
            released.addTimeout(PATIENCE, self._admission.node.clock)
            try:
                await released
            except Exception:
                self._released.remove(released)
                raise Unavailable("The commands before these take their time.") from None
        client = self.client
        hub = self._admission.node.hub
        if client.is_open and client.took(sum(map(len, commands))):
            hub.rest(self)
        for command in commands:
            if client.is_open:
                client.receive(command)
        if hub.congested and client.is_open:
            hub.hold(self)

    def _let_go(self) -> None:
        waiting, self._released = self._released, []
        for released in waiting:
            released.callback(None)


class Streams:
    """The streams of a node; at most `max_queue_bytes` wait for the client of each to read."""

    def __init__(self, admission: Admission, nodes: Nodes, max_queue_bytes: int) -> None:
        nodes.take_commands = self._take
        self._admission = admission
        self._nodes = nodes
        self._max_queue_bytes = max_queue_bytes

    async def open(self, request: Any) -> bytes | None:
        """Begin a stream, subscribed to what the query names; return when it has ended."""
        admission = self._admission
        topics = _topics(request)
        last_id = request.getHeader("Last-Event-ID") or query(request, "last_event_id")
        known = decode_id(last_id) if last_id else {}
        in_url = query(request, "token") if admission.token_in_url else None
        token = bearer_token(request, in_url)
        forwarded = request.requestHeaders.getRawHeaders("X-Forwarded-For", [])
        network = admission.network(request.transport, forwarded)
        identity = admission.admit(
            token, request.getHeader("Origin"), request.getHeader("Host"), network
        )
        if admission.asks:
            identity = await admission.ask(identity, token, network)
        if request.method == b"HEAD":
            request.setHeader("Content-Type", CONTENT_TYPE)
            return b""
        stream = Stream(request, admission, Positions(topics, known), self._max_queue_bytes)
        await stream.open(admission.client(stream, identity, network), topics)
        return None

    async def command(self, request: IRequest, connection_id: str) -> bytes:
        """Take commands for a stream of the same user; the replies come on the stream."""
        identity = self._admission.identify(bearer_token(request))
        body = read_json(request)
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest("The body is not UTF-8") from None
        commands = [body]
        if body.lstrip(b" \t\r\n").startswith(b"["):
            commands = [bytes(each) for each in decode_as(body, _decode_commands)]
        limit = self._admission.policy.max_frame_size
        if len(commands) > MAX_COMMANDS or any(len(each) > limit for each in commands):
            raise InvalidRequest(
                f"At most {MAX_COMMANDS} commands are taken at once, of {limit} bytes each",
                status=413,
                details={"max_commands": MAX_COMMANDS, "max_frame_size": limit},
            )
        if not await self._nodes.command(connection_id, identity.user_id, commands):
            raise NotFound("You have no such stream")
        return answer_json(request, {}, 202)

    async def _take(self, connection_id: str, user_id: str, commands: Sequence[bytes]) -> bool:
        """Give commands to a stream of this node; answer whether there is that one."""
        client = self._admission.node.hub.connection(connection_id)
        if not isinstance(client, Client) or client.identity.user_id != user_id:
            return False
        stream = client.transport
        if not isinstance(stream, Stream):
            return False
        await stream.take(commands)
        return True


# What many streams get is the same for all of them, and waits once for those that do not read.
@lru_cache(maxsize=16)
def _messages(data: bytes) -> tuple[bytes, ...]:
    return tuple(messages_in(data))


@lru_cache(maxsize=64)
def _event(message: bytes, id: bytes | None) -> bytes:
    return event(message, id)


def _topics(request: IRequest) -> list[str]:
    """The topics and patterns that a stream's URL names; raises `InvalidRequest`."""
    names: list[str] = []
    for value in request.args.get(b"topics", []):
        try:
            names += [name for name in value.decode("utf-8").split(",") if name]
        except UnicodeDecodeError:
            raise InvalidRequest("'topics' is not UTF-8", details={"field": "topics"}) from None
    topics = list(dict.fromkeys(names))
    for name in topics:
        if (problem := check_pattern(name)) is not None:
            raise InvalidRequest(problem, details={"field": "topics"})
    if len(topics) > MAX_TOPICS or sum(len(name.encode()) for name in topics) > MAX_TOPIC_BYTES:
        raise InvalidRequest(
            f"A URL names at most {MAX_TOPICS} topics, of {MAX_TOPIC_BYTES} bytes in all; "
            "subscribe to more by command",
            details={"field": "topics"},
        )
    return topics


def _subscription(topics: Sequence[str], known: Mapping[str, Position]) -> Any:
    """The command that subscribes to topics, and recovers those whose positions are known."""
    recover = {
        topic: {"offset": position.offset, "epoch": position.epoch}
        for topic, position in known.items()
    }
    data = {"topics": topics, "recover": recover}
    command = decode_command(encode_json({"type": "Subscribe", "data": data}))
    assert isinstance(command, Subscribe)  # noqa: S101
    return command


def _give_up_after(transport: Any, seconds: int) -> None:
    """Have the kernel end a connection whose other side has been silent for so long.

    Heartbeats into the void would fill its buffer for hours before anybody noticed.
    """
    with suppress(AttributeError, OSError):  # a unix socket, or in memory
        transport.getHandle().setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000
        )
