"""What HTTP answers look like: JSON, or the reference's error envelope."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from twisted.web.iweb import IRequest

from realtime.envelope import encode_error_body, encode_json
from realtime.errors import RealtimeError
from realtime.origins import Origins

SERVER = "realtime-server"


def answer(
    request: IRequest, body: bytes, content_type: str = "application/json", status: int = 200
) -> bytes:
    """Set the headers of a whole answer; give back its body, to be written."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


def answer_json(request: IRequest, value: Any, status: int = 200) -> bytes:
    """Answer with a value as JSON."""
    return answer(request, encode_json(value), status=status)


def answer_error(request: IRequest, error: RealtimeError) -> bytes:
    """Answer with the error envelope (reference: Error Handling)."""
    for name, value in _headers_of(error).items():
        request.setHeader(name, value)
    return answer(request, encode_error_body(error), status=error.status)


def _headers_of(error: RealtimeError) -> dict[str, str]:
    # Every 401 names a scheme; Basic would make browsers ask for a password themselves.
    default = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return default | error.headers


def cors_headers(origins: Origins, origin: str | None) -> dict[str, str]:
    """What lets a page of `origin` read an answer, refusals included, where it may."""
    if origins.everything:
        headers = {"Access-Control-Allow-Origin": "*"}
    elif origin is None or not origins.allows(origin):
        return {"Vary": "Origin"}
    else:
        headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    headers["Access-Control-Expose-Headers"] = "Allow, Retry-After, WWW-Authenticate"
    return headers


def whole_answer(error: RealtimeError, extra: Mapping[str, str] | None = None) -> bytes:
    """The last answer of a connection, for a request that nobody could read.

    `extra` are headers beyond those of the error, CORS ones say.
    """
    body = encode_error_body(error)
    headers = _headers_of(error) | dict(extra or {})
    head = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"Server: {SERVER}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close" + (", Upgrade" if "Upgrade" in headers else ""),
        *(f"{name}: {value}" for name, value in headers.items() if name != "Connection"),
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + body
