"""What HTTP answers look like: JSON, or the reference's error envelope."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.web.iweb import IRequest

from realtime.envelope import encode_error_body, encode_json
from realtime.errors import RealtimeError

SERVER = "realtime-server"


def answer(
    request: IRequest, body: bytes, content_type: str = "application/json", status: int = 200
) -> bytes:
    """Set the headers of a whole answer; give back its body, to be written."""
    request.setResponseCode(status)
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


def whole_answer(error: RealtimeError) -> bytes:
    """The last answer of a connection, for a request that nobody could read."""
    body = encode_error_body(error)
    headers = _headers_of(error)
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
