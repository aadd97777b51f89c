"""What a node talks to, in memory: transports, a reader of frames, a whole small world."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from realtime.errors import CloseCode, InvalidToken
from realtime.interfaces import Events, IBroker
from realtime.model import Identity, Namespace, Permissions, Piece, Position, Publication
from realtime.peer import Client
from realtime.policy import ClientPolicy
from tests.support.node import make_node

# Late enough for Unix seconds to have lost the precision that they lose in life.
START = 1_790_000_000.0


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def strict_json(text: bytes) -> Any:
    """Decode JSON as a strict client does."""
    return json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)


def read_frame(data: bytes) -> tuple[bytes, bytes] | None:
    """Take one frame off `data`, as RFC 6455 has it; None where it is not complete."""
    if len(data) < 2:
        return None
    assert data[0] == 0b1000_0001, "final, no extension, text"
    assert data[1] < 128, "a server does not mask"
    length, start = data[1], 2
    if length > 125:
        start = {126: 4, 127: 10}[length]
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
        assert length > {4: 125, 10: 65535}[start], "the shortest encoding is demanded"
    if len(data) < start + length:
        return None
    return data[start : start + length], data[start + length :]


def read_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """All complete messages in `data`, and what follows them."""
    messages = []
    while (taken := read_frame(data)) is not None:
        message, data = taken
        messages.append(message)
    return messages, data


def identity_of(
    user_id: str = "user_1",
    *,
    username: str | None = None,
    session_id: str | None = None,
    expires_at: float = START + 3600,
    permissions: Permissions | None = None,
    key: str | None = None,
) -> Identity:
    """Make an identity as a verified token gives it."""
    roles = frozenset({"user"})
    return Identity(user_id, username, roles, session_id, expires_at, permissions, key)


class MemoryTransport:
    """A transport (`interfaces.Transport`) whose other side reads all at once."""

    def __init__(self) -> None:
        self.client: Client
        self.written = b""
        self.pings = 0
        self.holds = 0
        self.close_code: CloseCode | None = None
        # Bytes that `send` still takes; what it refuses is a reason to end the connection.
        self.room = 1 << 30

    def send(self, data: bytes) -> int:
        """Take all or nothing."""
        assert self.close_code is None, "written after the Close frame"
        if len(data) > self.room:
            return -1
        self.room -= len(data)
        self.written += data
        return len(data)

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """End the connection: the other side is too slow."""
        self.close(CloseCode.SLOW_CONSUMER)

    def hold(self) -> None:
        """Read nothing more."""
        self.holds += 1

    def release(self) -> None:
        """Undo `hold`."""
        self.holds -= 1
        assert self.holds >= 0

    def ping(self) -> None:
        """Count the pings."""
        self.pings += 1

    def close(self, code: CloseCode) -> None:
        """Keep the first code, and mute the client."""
        if self.close_code is None:
            self.close_code = code
            self.client.mute()


@implementer(IBroker)
class ScriptedBroker:
    """A broker whose `answer` to a publication the test chooses; it keeps what it is told."""

    remote = False
    up = True

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.published: list[Publication] = []
        self.deliver: Callable[[Publication], object]
        self.announce: Callable[[str, bytes], object]
        self.answer: Callable[[Publication], Position | Deferred[Position | None] | None] = (
            lambda publication: None
        )

    def start(
        self,
        deliver: Callable[[Publication], object],
        announce: Callable[[str, bytes], object],
        accepted: Callable[[Publication], object] | None = None,
    ) -> None:
        """See `IBroker.start`."""
        self.deliver = deliver
        self.announce = announce

    def publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Position | Deferred[Position | None] | None:
        """See `IBroker.publish`."""
        self.published.append(publication)
        return self.answer(publication)

    def subscribe(self, topic: str) -> None:
        """See `IBroker.subscribe`."""
        assert topic not in self.topics, "subscribed twice"
        self.topics.append(topic)

    def unsubscribe(self, topic: str) -> None:
        """See `IBroker.unsubscribe`."""
        self.topics.remove(topic)

    def history(self, topic: str, namespace: Namespace, **options: Any) -> None:
        """See `IBroker.history`."""

    def remove_history(self, topic: str) -> None:
        """See `IBroker.remove_history`."""


class World:
    """A node on a clock of its own, with clients to connect to it."""

    def __init__(
        self,
        broker: IBroker | None = None,
        max_connections: int = 100,
        topics: Sequence[Namespace] = (),
        strict: bool = False,
        grace: int = 5,
        events: Events | None = None,
        **policy: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.node = make_node(
            self.clock,
            broker=broker,
            max_connections=max_connections,
            topics=topics,
            strict=strict,
            grace=grace,
            events=events,
        )
        self.counters = self.node.counters
        self.hub = self.node.hub
        self.tokens: dict[str, Identity | Exception] = {}
        options: dict[str, Any] = {
            "message_rate": 1000,
            "message_burst": 1000,
            "byte_rate": 1 << 40,
            "max_subscriptions": 100,
            "max_topics": 1000,
            "heartbeat_interval": 30,
            "client_timeout": 60,
            "max_frame_size": 65536,
            "max_reply": 1 << 19,
            "on_token_expiry": "close",
        }
        self.policy = ClientPolicy(authenticate=self._authenticate, **(options | policy))

    def _authenticate(self, token: str) -> Identity:
        found = self.tokens.get(token) or InvalidToken()
        if isinstance(found, Exception):
            raise found
        return found

    def connect(self, user_id: str = "user_1", **more: Any) -> Wire:
        """Connect a user and read the welcome."""
        wire = self.open(identity_of(user_id, **more))
        wire.read()
        return wire

    def open(self, identity: Identity) -> Wire:
        """Connect, leaving the welcome unread."""
        transport = MemoryTransport()
        client = transport.client = Client(self.node, self.policy, transport, identity)
        client.open()
        return Wire(self, client, transport)

    def turn(self) -> None:
        """End the present turn of the reactor."""
        self.clock.advance(0)

    def settle(self) -> None:
        """Run turns until nothing is left to be done soon."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.turn()

    def pass_seconds(self, seconds: int, each: Callable[[], object] | None = None) -> None:
        """Let time pass, with a tick a second as the service has."""
        for _ in range(seconds):
            self.clock.advance(1)
            if each is not None:
                each()
            self.node.advance()


class Wire:
    """The other end of a client's connection."""

    def __init__(self, world: World, client: Client, transport: MemoryTransport) -> None:
        self.world = world
        self.client = client
        self.transport = transport

    def say(self, type: str, data: Any = None, **more: Any) -> None:
        """Send a command; turns are the caller's."""
        message: dict[str, Any] = {"type": type, **more}
        if data is not None:
            message["data"] = data
        self.client.receive(json.dumps(message).encode())

    def read(self) -> list[dict[str, Any]]:
        """All messages since the last reading, after the work at hand is done."""
        self.world.settle()
        return self.read_now()

    def read_now(self) -> list[dict[str, Any]]:
        """All messages since the last reading that are written already."""
        messages, rest = read_frames(self.transport.written)
        assert rest == b"", "half a frame"
        self.transport.written = b""
        return [strict_json(message) for message in messages]

    def ask(self, type: str, data: Any = None, **more: Any) -> list[dict[str, Any]]:
        """Send a command and read what comes."""
        self.say(type, data, **more)
        return self.read()

    def heard(self) -> None:
        """Show that the other side is alive, as the transport does for whatever comes in."""
        self.client.heard = self.world.node.tick

    @property
    def close_code(self) -> CloseCode | None:
        """The code of the Close frame, when there was one."""
        return self.transport.close_code


def error(code: str, details: Mapping[str, Any] | None = None, id: Any = None) -> dict[str, Any]:
    """The outline of an `Error`, to compare with `outline`."""
    return {"type": "Error", "code": code, "details": dict(details or {}), "id": id}


def outline(message: Mapping[str, Any]) -> dict[str, Any]:
    """What programs read of an `Error`."""
    data = message["data"]
    return {
        "type": message["type"],
        "code": data.get("code"),
        "details": data.get("details"),
        "id": message.get("id"),
    }
