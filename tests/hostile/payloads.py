"""Messages and bodies that are more than they seem, or not what they say."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable

from tests.hostile.attack import Attack, Target, together
from tests.hostile.wire import ANYTHING, Line
from tests.support.websocket import CLOSE, CONTINUATION, TEXT, command, frame

BOMB = 40 * 1024 * 1024
TOPICS = [f"t{number}" for number in range(100_000)]
# So that a command with so many topics comes through at all.
_ROOM = ("--max-frame-size=4000000",)


def many_topics(target: Target) -> Iterable[str]:
    """100,000 topics in one command, which is too large a message."""
    packed = command("Subscribe", {"topics": TOPICS})
    lines = [target.websocket() for _ in range(target.many(10, 1))]
    for line in lines:
        line.send(packed)
    return together(Line.ending, lines)


def many_topics_taken(target: Target) -> Iterable[str]:
    """The same where messages may be as large: the command is refused, and paid for."""
    got = []
    for type in ("Subscribe", "Unsubscribe"):
        for _ in range(target.many(10, 3)):
            line = target.websocket()
            for _ in range(2):
                line.command(type, 1, topics=TOPICS)
                reply = line.reply(1)
                got.append(reply["data"]["code"])
            line.close()
    return got


def many_subscriptions(target: Target) -> Iterable[str]:
    """As many topics as a command may have, again and again."""
    got = []
    for number in range(target.many(20, 1)):
        line = target.websocket(f"mallory{number}")
        for part in range(3):
            line.command("Subscribe", part, topics=[f"{number}.{part}.{n}" for n in range(1000)])
            reply = line.reply(part)
            got.append(reply["data"].get("code") or reply["data"]["status"])
        line.close()
    return got


def bomb(target: Target) -> Iterable[str]:
    """40 MB of blanks in 40 KB, in one frame and in fragments."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (packer.compress(b" " * BOMB) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    half = len(packed) // 2
    split = frame(packed[:half], TEXT, final=False, reserved=4)
    for data in (
        frame(packed, TEXT, reserved=4),
        split + frame(packed[half:], CONTINUATION),
    ):
        lines = [
            target.line().upgrade(target.token, Sec_WebSocket_Extensions="permessage-deflate")
            for _ in range(target.many(50, 2))
        ]
        for line in lines:
            line.send(data)
        yield from together(Line.ending, lines)


def broken_compression(target: Target) -> Iterable[str]:
    """Frames that say they are compressed and are not, and compressed where nobody agreed."""
    for _ in range(target.many(50, 2)):
        line = target.line().upgrade(target.token, Sec_WebSocket_Extensions="permessage-deflate")
        line.send(frame(b"\xff" * 100, TEXT, reserved=4))
        yield line.ending()
        line = target.websocket()
        line.send(frame(b"\xff" * 100, TEXT, reserved=4))
        yield line.ending()


def large_json(target: Target) -> Iterable[str]:
    """Messages of sizes that are only announced, and one byte too many."""
    for _ in range(target.many(20, 1)):
        for data in (
            frame(b"", TEXT, length=1 << 40, form=64) + b"x" * 1000,
            frame(b"", TEXT, length=(1 << 63) - 1, form=64),
            frame(b'"' + b"x" * 65_536),
        ):
            line = target.websocket()
            line.send(data)
            yield line.ending()


_DEEP = b"[" * 30_000
_NESTED = b'{"a":' * 5_000 + b"1" + b"}" * 5_000


def deep_json(target: Target) -> Iterable[str]:
    """Commands nested deeply, or with numbers, strings and keys that are hard to read."""
    broadcast = b'{"type":"Broadcast","id":1,"data":{"topic":"a","payload":%b}}'
    bad = [
        broadcast % _DEEP,
        broadcast % _NESTED,
        broadcast % (b"[" * 30_000 + b"]" * 30_000),
        b'{"type":"Ping","id":%b}' % (b"9" * 60_000),
        b'{"type":"Ping","data":{"timestamp":%b}}' % (b"1" * 60_000),
        b'{"type":"Subscribe","data":{"topics":%b}}' % _DEEP,
        b'{"type":%b' % _DEEP,
        b'{"type":"Ping","x":%b}' % _NESTED,
        _DEEP,
        _NESTED,
    ]
    for _ in range(target.many(20, 1)):
        line = target.websocket()
        for message in bad:
            line.send(frame(message))
            yield line.reply(ANYTHING)["data"]["code"]
        # The connection lives, and obeys.
        line.command("Ping", 2)
        yield line.reply(2)["type"]
        # One that is malformed often enough does not.
        for _ in range(120):
            line.send(frame(_DEEP[:1000]))
        yield line.ending()


def deep_bodies(target: Target) -> Iterable[str]:
    """The same in bodies of requests."""
    deep = (_DEEP, _NESTED, b'{"username":%b}' % _DEEP, b'{"username":"\\ud800","password":"x"}')
    for _ in range(target.many(20, 1)):
        for body in (*deep, b'"' + b"x" * 65_536):
            for path in ("/sessions", "/sessions/refresh"):
                line = target.line()
                line.send(target.post(path, body))
                yield line.status()
                line.close()


BAD_UTF8 = {
    "a lone byte": b"\xff",
    "an overlong slash": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "cut short": b"\xe2\x82",
    "a lone continuation": b"\x80",
}


def bad_utf8(target: Target) -> Iterable[str]:
    """What is no UTF-8, in messages, fragments, compressed messages, and reasons of closing."""
    for _ in range(target.many(20, 1)):
        for bad in BAD_UTF8.values():
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(b'"' + bad + b'"') + packer.flush(zlib.Z_SYNC_FLUSH)
            for data in (
                frame(b'{"type":"Ping","id":"' + bad + b'"}'),
                frame(b'"', TEXT, final=False) + frame(bad + b'"', CONTINUATION),
                frame(packed[:-4], TEXT, reserved=4),
                frame(struct.pack("!H", 1000) + bad, CLOSE),
            ):
                line = target.line().upgrade(
                    target.token, Sec_WebSocket_Extensions="permessage-deflate"
                )
                line.send(data)
                yield line.ending()
                line.close()


def bad_utf8_bodies(target: Target) -> Iterable[str]:
    """What is no UTF-8, in bodies, paths, queries and headers of requests."""
    for _ in range(target.many(20, 1)):
        for bad in BAD_UTF8.values():
            for data in (
                target.post("/sessions", b'{"username":"' + bad + b'","password":"x"}'),
                target.post("/sse/x-1", b'{"type":"' + bad + b'"}'),
                target.request(
                    "GET /sse?topics=" + "".join(f"%{b:02x}" for b in bad) + " HTTP/1.1"
                ),
            ):
                line = target.line()
                line.send(data)
                yield line.status()
                line.close()


def bad_frames(target: Target) -> Iterable[str]:
    """Frames that no client may send."""
    ping = json.dumps({"type": "Ping"})
    for _ in range(target.many(20, 1)):
        for data in (
            frame(ping, masked=False),
            frame(ping, reserved=2),
            frame(ping, 3),
            frame(ping, 11),
            frame(b"x" * 126, 9),
            frame(b"", 9, final=False),
            frame(b"x", CONTINUATION),
            frame(b"x", TEXT, final=False) + frame(ping),
            frame(b"x", form=64),
            frame(b"x", CLOSE),
            frame(struct.pack("!H", 1005), CLOSE),
        ):
            line = target.websocket()
            line.send(data)
            yield line.ending()
            line.close()


ATTACKS = (
    Attack("100,000 topics", many_topics, {"1009"}),
    Attack(
        "100,000 topics, taken",
        many_topics_taken,
        {"INVALID_REQUEST", "RATE_LIMITED"},
        options=_ROOM,
    ),
    Attack("many subscriptions", many_subscriptions, {"subscribed", "FORBIDDEN"}, {"RATE_LIMITED"}),
    Attack("compression bomb", bomb, {"1009"}),
    Attack("broken compression", broken_compression, {"1002", "1007"}),
    Attack("huge JSON", large_json, {"1009"}, {"1002"}),
    Attack("deep JSON", deep_json, {"INVALID_REQUEST", "Pong", "4502"}),
    Attack("deep bodies", deep_bodies, {"400", "413"}),
    Attack("invalid UTF-8", bad_utf8, {"1007"}),
    Attack("invalid UTF-8 bodies", bad_utf8_bodies, {"400"}),
    Attack("invalid frames", bad_frames, {"1002"}),
)
