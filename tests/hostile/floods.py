"""Floods: more frames, messages and requests than anybody has a use for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from tests.hostile.attack import Attack, Target, together
from tests.hostile.stream import Stream
from tests.hostile.wire import Line
from tests.support.websocket import CONTINUATION, PING, PONG, TEXT, command, frame

BLOCK = 256 * 1024


def _pour(line: Line, data: bytes, most: int) -> str:
    """Send the same again and again until the server has had enough; never read meanwhile."""
    data *= max(1, BLOCK // len(data))
    sent = 0
    while sent < most and line.send(data):
        sent += len(data)
    got = line.ending()
    line.close()
    return got


def _flood(target: Target, *frames: bytes, first: bytes = b"") -> list[str]:
    """Several connections pour each of some frames."""
    frames *= target.many(8, 2)
    most = target.many(64, 2) * 1024 * 1024
    lines = [target.websocket(f"mallory{number}") for number in range(len(frames))]
    for line in lines:
        line.send(first)
    return together(lambda pair: _pour(*pair, most), list(zip(lines, frames, strict=True)))


def continuations(target: Target) -> Iterable[str]:
    """Fragments without end: empty ones, tiny ones, and Pings between them."""
    return _flood(
        target,
        frame(b"", CONTINUATION, final=False),
        frame(b"x", CONTINUATION, final=False),
        frame(b"", CONTINUATION, final=False) + frame(b"", PING),
        first=frame(b"", TEXT, final=False),
    )


def large_fragments(target: Target) -> Iterable[str]:
    """A message of many large fragments."""
    fragment = frame(b"x" * 1000, CONTINUATION, final=False)
    return _flood(target, fragment, first=frame(b"", TEXT, final=False))


def pings(target: Target) -> Iterable[str]:
    """Pings, whose Pongs nobody reads, and Pongs that nobody has asked for."""
    return _flood(target, frame(b"p" * 125, PING), frame(b"", PING), frame(b"", PONG))


def messages(target: Target) -> Iterable[str]:
    """Commands of all kinds."""
    topics = {"topics": ["flood.a", "flood.b"]}
    return _flood(
        target,
        command("Ping"),
        command("Broadcast", {"topic": "flood.a", "payload": "x" * 100}),
        command("Subscribe", topics) + command("Unsubscribe", topics),
        command("DirectMessage", {"target_user": "nobody", "payload": 1}, id=1),
    )


def malformed(target: Target) -> Iterable[str]:
    """Messages that are no commands, slowly enough for the message rate."""
    lines = [target.websocket() for _ in range(target.many(20, 2))]
    bad = frame(b"{") + frame(b'{"type":"Nothing"}') + frame(b"[]") + frame(b"")
    for line in lines:
        line.send(bad * 50)
    return together(Line.ending, lines)


def handshakes(target: Target) -> Iterable[str]:
    """Connections that open and leave, one after the other, and some that ask for what is not."""
    until = time.monotonic() + target.many(3, 1)
    got = set()

    def storm(number: int) -> None:
        while time.monotonic() < until:
            line = target.line()
            if number % 2:
                line.send(target.request("GET /ws?x HTTP/1.1"))
                got.add(line.status())
            else:
                line.upgrade(target.token)
                got.add("101")
            line.close()

    together(storm, list(range(8)))
    return got


def posts(target: Target) -> Iterable[str]:
    """Commands by POST, a hundred in each and several at once, for one stream."""
    stream = Stream(target, "flood.stream")
    ping = {"type": "Ping"}
    tell = {"type": "Broadcast", "data": {"topic": "flood.stream", "payload": "x" * 100}}
    body = json.dumps([ping, tell] * 50).encode()
    request = target.post(f"/sse/{stream.connection_id}", body)
    turns = target.many(50, 10)

    def pour(_: int) -> list[str]:
        line = target.line()
        # Pipelined: five wait while one is served.
        line.send(request * 5)
        got = []
        for _ in range(turns):
            line.send(request)
            got.append(line.status())
        line.close()
        return got

    answers = [each for got in together(pour, list(range(8))) for each in got]
    return [*set(answers), stream.ending()]


def bodies(target: Target) -> Iterable[str]:
    """Bodies by POST to /sse/{id} that are too large, too many, or none."""
    stream = Stream(target, "flood.bodies")
    path = f"/sse/{stream.connection_id}"
    got = []
    for _ in range(target.many(50, 1)):
        for body in (
            b"x" * 100_000,
            b"[" * 60_000,
            json.dumps([{"type": "Ping"}] * 101).encode(),
            b'{"type":"Ping","id":"\xff"}',
        ):
            line = target.line()
            line.send(target.post(path, body))
            got.append(line.status())
            line.close()
    stream.close()
    return got


ATTACKS = (
    Attack("continuation flood", continuations, {"4004"}),
    Attack("large fragments", large_fragments, {"1009"}),
    Attack("ping flood", pings, {"4004"}, {"4002", "reset"}),
    Attack("message flood", messages, {"4004"}, {"4002", "reset"}),
    Attack("malformed messages", malformed, {"4502"}),
    Attack("handshake storm", handshakes, {"101", "426"}),
    Attack("SSE post flood", posts, {"202", "4004", "404"}, {"503"}),
    Attack("SSE bodies", bodies, {"413", "400"}),
)
