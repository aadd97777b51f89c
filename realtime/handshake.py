"""What a WebSocket's opening request has to be like, and where its token is. Pure."""

from __future__ import annotations

import re

from autobahn.websocket.types import ConnectionRequest

from realtime.errors import InvalidRequest

SUBPROTOCOL = "access_token."
# A request line, then headers whose names start their lines and end in a colon (RFC 9112 section
# 5), without control characters, nor the others that Autobahn takes for line ends.
_TEXT = rb"[\t\x20-\x7e\x80-\x84\x86-\xff]*"
_HEAD = re.compile(_TEXT + rb"\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:" + _TEXT + rb"\r\n)*\r\n")
# A body would be read as frames.
_BODY = re.compile(rb"\r\n(?:transfer-encoding:|content-length:(?!\s*0+\s))", re.IGNORECASE)


def check_head(seen: bytes, max_size: int) -> InvalidRequest | None:
    """What is wrong with a request's head, as far as it is here; its syntax once it is complete.

    Autobahn bounds no head, and reads some that others would read otherwise.
    """
    end = seen.find(b"\r\n\r\n")
    head = seen if end < 0 else seen[: end + 4]
    if len(head) > max_size:
        return InvalidRequest("The request's head is too large", status=431)
    if end >= 0 and _HEAD.fullmatch(head) is None:
        return InvalidRequest("The request's head is malformed")
    if end >= 0 and _BODY.search(head) is not None:
        return InvalidRequest("A handshake has no body")
    return None


def find_token(request: ConnectionRequest, *, in_url: bool = True) -> tuple[str | None, str | None]:
    """The token from the first of its three places, and the subprotocol to select.

    The third is the URL, which counts only with `in_url`.
    """
    selected = next((p for p in request.protocols if p.startswith(SUBPROTOCOL)), None)
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip(), selected
    if selected is not None:
        return selected.removeprefix(SUBPROTOCOL), selected
    if not in_url:
        return None, None
    return next(iter(request.params.get("token", ())), None), None
