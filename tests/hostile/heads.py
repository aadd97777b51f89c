"""Heads of requests: too large, or read one way here and another way by a proxy."""

from __future__ import annotations

from collections.abc import Iterable

from tests.hostile.attack import Attack, Target
from tests.support.websocket import request_head

LARGE = 100_000
# Seconds in which what hides behind a refused request would be answered.
PAUSE = 0.3


def large_headers(target: Target) -> Iterable[str]:
    """100 KB of head: in one header, in many, in the request line, and without a line's end."""
    many = {f"X-{number}": "x" * 90 for number in range(1000)}
    heads = [
        request_head("/ws", {"X-Large": "x" * LARGE}),
        request_head("/ws", many),
        request_head(f"/ws?token={'x' * LARGE}"),
        b"GET /ws " + b"x" * LARGE,
        request_head("/health", {"X-Large": "x" * LARGE}),
        request_head("/health", many),
        request_head(f"/health?{'x' * LARGE}"),
        b"GET /health" + b"x" * LARGE,
        request_head("/sse", {"Last-Event-ID": "x" * LARGE}),
    ]
    got = []
    for _ in range(target.many(20, 1)):
        for head in heads:
            line = target.line()
            line.send(head)
            got.append(line.status())
            line.close()
    return got


_GET = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
_POST = b"POST /sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
# What a front end that reads the head in another way would take for a body, or for a request.
_HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
_WS = request_head("/ws")[:-2]

SMUGGLED = {
    "length and chunks": _POST + b"Content-Length: 5\r\n" + _CHUNKED + b"\r\n0\r\n\r\n" + _HIDDEN,
    "chunks and length": _POST + _CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "two lengths": _POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345" + _HIDDEN,
    "the same length twice": _POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + _HIDDEN,
    "a list of lengths": _POST + b"Content-Length: 0, 0\r\n\r\n" + _HIDDEN,
    "a signed length": _POST + b"Content-Length: +0\r\n\r\n" + _HIDDEN,
    "a negative length": _POST + b"Content-Length: -1\r\n\r\n" + _HIDDEN,
    "a hexadecimal length": _POST + b"Content-Length: 0x0\r\n\r\n" + _HIDDEN,
    "an empty length": _POST + b"Content-Length:\r\n\r\n" + _HIDDEN,
    "a length of many digits": _POST + b"Content-Length: " + b"0" * 5000 + b"\r\n\r\n" + _HIDDEN,
    "two codings": _POST + _CHUNKED + _CHUNKED + b"\r\n0\r\n\r\n" + _HIDDEN,
    "a list of codings": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "an unknown coding": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "the coding that is none": _POST
    + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n"
    + _HIDDEN,
    "a coding in quotes": _POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + _HIDDEN,
    "a coding after a vertical tab": _POST
    + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"
    + _HIDDEN,
    "chunks in HTTP/1.0": _POST.replace(b"1.1", b"1.0") + _CHUNKED + b"\r\n0\r\n\r\n" + _HIDDEN,
    "a folded coding": _POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "a folded header": _GET + b"X-A: b\r\n\tContent-Length: 5\r\n\r\n" + _HIDDEN,
    "a folded first header": b"GET /health/live HTTP/1.1\r\n Host: a\r\n\r\n" + _HIDDEN,
    "a blank before the colon": _POST + b"Content-Length : 5\r\n\r\n12345" + _HIDDEN,
    "a tab before the colon": _POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "a blank in a name": _GET + b"Content Length: 5\r\n\r\n" + _HIDDEN,
    "no colon": _GET + b"Content-Length 5\r\n\r\n" + _HIDDEN,
    "no name": _GET + b": 5\r\n\r\n" + _HIDDEN,
    "a NUL": _GET + b"X-A: \x00\r\n\r\n" + _HIDDEN,
    "a bare CR": _GET + b"X-A: b\rContent-Length: 5\r\n\r\n" + _HIDDEN,
    "a bare LF": _GET + b"X-A: b\nContent-Length: 5\r\n\r\n" + _HIDDEN,
    "bare LFs": b"GET /health/live HTTP/1.1\nHost: a\n\n\r\n\r\n",
    "two hosts": _GET + b"Host: b\r\n\r\n",
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "a blank in the target": b"GET /health/live HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET /health/live HTTP/3.7\r\nHost: a\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a chunk of negative size": _POST + _CHUNKED + b"\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "a chunk of size 0x5": _POST + _CHUNKED + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "a chunk with a longer end": _POST + _CHUNKED + b"\r\n5\r\nabcdeX\r\n0\r\n\r\n",
    "a handshake with a body": _WS + b"Content-Length: 5\r\n\r\n12345",
    "a chunked handshake": _WS + _CHUNKED + b"\r\n0\r\n\r\n",
    "a folded handshake": _WS + b"X-A: b\r\n Upgrade: h2c\r\n\r\n",
    "a handshake with a blank before a colon": _WS + b"Content-Length : 5\r\n\r\n12345",
    "a handshake with a bare CR": _WS + b"X-A: b\rContent-Length: 5\r\n\r\n",
    "a handshake with a bare LF": _WS + b"X-A: b\nContent-Length: 5\r\n\r\n",
    "a handshake with two hosts": _WS + b"Host: b\r\n\r\n",
    "a handshake with two keys": _WS + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}


def smuggling(target: Target) -> Iterable[str]:
    """Requests that are ambiguous: one refusal each, and what hides behind is not answered."""
    got = []
    for _ in range(target.many(5, 1)):
        for name, data in SMUGGLED.items():
            line = target.line()
            line.send(data)
            status = line.status()
            more = line.rest(PAUSE).count(b"HTTP/1.1 ")
            line.close()
            if status != "400":
                status = f"{status} for {name}"
            got.append(f"{more} hidden answers for {name}" if more else status)
    return got


ATTACKS = (
    Attack("100 KB headers", large_headers, {"431"}),
    Attack("header smuggling", smuggling, {"400"}),
)
