"""Attackers who take their time: they do not read, do not finish, or are not there any more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from tests.hostile.attack import Attack, Target, together
from tests.hostile.stream import Stream
from tests.hostile.wire import Line
from tests.support.websocket import request_head

# A small receive buffer, so that the server notices early that nobody reads.
TIGHT = 4096
PAYLOAD = "x" * 16_000


def _publish_until_cut(target: Target, topic: str, readers: int) -> list[str]:
    """Publish until the server has closed those who do not read, which it counts.

    They themselves see the code only if they read it within two seconds.
    """
    before = target.metric("closed_slow_consumers_total")
    publisher = target.websocket("busy")
    until = time.monotonic() + 60
    number = closed = 0
    while closed < readers and time.monotonic() < until:
        for _ in range(8):
            number += 1
            publisher.command("Broadcast", number, topic=topic, payload=PAYLOAD)
            publisher.reply(number)
        closed = target.metric("closed_slow_consumers_total") - before
    publisher.close()
    return ["closed by 4002"] * closed + ["left alone"] * (readers - closed)


def never_reading(target: Target) -> Iterable[str]:
    """Subscribers of a busy topic who read nothing until they are cut off."""
    readers = [target.websocket(receive_buffer=TIGHT) for _ in range(target.many(300, 5))]
    for reader in readers:
        reader.command("Subscribe", 1, topics=["busy"])
        reader.reply(1)
    got = _publish_until_cut(target, "busy", len(readers))
    got += together(Line.ending, readers)
    for reader in readers:
        reader.close()
    return got


def never_reading_streams(target: Target) -> Iterable[str]:
    """The same by server-sent events."""
    readers = [Stream(target, "busy.sse", receive_buffer=TIGHT) for _ in range(target.many(300, 5))]
    got = _publish_until_cut(target, "busy.sse", len(readers))
    return got + together(Stream.ending, readers)


def _trickle(lines: Sequence[Line], byte: bytes, seconds: int) -> list[str]:
    """Send a byte a second on each, for so long; then see what the answers are."""
    for _ in range(seconds):
        started = time.monotonic()
        for line in lines:
            line.send(byte)
        time.sleep(max(0.0, 1 - (time.monotonic() - started)))
    got = together(Line.status, lines)
    for line in lines:
        line.close()
    return got


def slow_handshake(target: Target) -> Iterable[str]:
    """Handshakes and requests whose heads come a byte a second."""
    lines = []
    for path, number in (("/ws", target.many(500, 5)), ("/health", target.many(1200, 5))):
        for _ in range(number):
            line = target.line()
            line.send(request_head(path)[:60])
            lines.append(line)
    return _trickle(lines, b"x", target.many(12, 4))


def slow_body(target: Target) -> Iterable[str]:
    """Requests whose bodies come a byte a second, chunked or not."""
    plain = target.request("POST /sessions HTTP/1.1", "Content-Length: 1000", "Content-Type: a/b")
    chunked = target.request("POST /sse/x-1 HTTP/1.1", "Transfer-Encoding: chunked")
    lines = [target.line() for _ in range(target.many(500, 6))]
    for number, line in enumerate(lines):
        line.send(chunked + b"3e8\r\n" if number % 2 else plain)
    return _trickle(lines, b" ", target.many(32, 5))


def half_open(target: Target) -> Iterable[str]:
    """WebSockets that never answer a Ping, as those of vanished machines do not."""
    lines = [target.websocket() for _ in range(target.many(1500, 5))]
    time.sleep(5)
    got = together(Line.ending, lines)
    for line in lines:
        line.close()
    return got


def half_closed(target: Target) -> Iterable[str]:
    """Connections of which the client has closed its half, early and late."""
    lines = []
    for number in range(target.many(300, 6)):
        line = target.line()
        if number % 3 == 0:
            line.send(request_head("/ws")[:-2])
        elif number % 3 == 1:
            line.upgrade(target.token)
        else:
            line.send(b"GET /health HTTP/1.1\r\n")
        line.finish_writing()
        lines.append(line)
    got = together(lambda line: line.ending(15), lines)
    for line in lines:
        line.close()
    return got


def silent(target: Target) -> Iterable[str]:
    """Connections that say nothing, more than are kept."""
    lines = [target.line() for _ in range(target.many(6000, 50))]
    for line in lines[::2]:
        line.send(b"GET /w")
    got = together(lambda line: line.status(15), lines)
    for line in lines:
        line.close()
    return got


# Who is not heard of for two seconds is closed.
_HASTE = ("--heartbeat-interval=1", "--client-timeout=2")

ATTACKS = (
    Attack("never-reading client", never_reading, {"closed by 4002"}, {"4002", "reset"}),
    Attack("never-reading stream", never_reading_streams, {"closed by 4002"}, {"4002", "1006"}),
    # Those that there are too many of make room.
    Attack("slow-loris handshake", slow_handshake, {"408"}, {"reset"}),
    Attack("slow-loris body", slow_body, {"408"}),
    Attack("half-open sockets", half_open, {"4003"}, options=_HASTE),
    Attack("half-closed sockets", half_closed, {"closed"}, {"reset"}),
    Attack("silent connections", silent, {"reset"}, {"closed"}, needs_many=True),
)
