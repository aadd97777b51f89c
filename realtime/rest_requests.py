"""What REST requests bring along: tokens, JSON bodies, queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from klein import Klein
from msgspec import Struct
from msgspec.json import Decoder
from twisted.web.iweb import IRequest
from werkzeug.http import parse_options_header

from realtime.envelope import decode_as
from realtime.errors import InvalidRequest, InvalidToken

S = TypeVar("S", bound=Struct)
_JSON = "application/json"


def add_route(app: Klein, method: str, path: str, answer: Callable[..., Any]) -> None:
    """Add a route; its endpoint is named after it, as methods of several classes have one name."""
    app.route(path, methods=[method], endpoint=f"{method} {path}")(answer)


def bearer_token(request: IRequest, otherwise: str | None = None) -> str:
    """The token of the Authorization header, or what counts where there is no such header.

    Raises `InvalidToken` where there is neither.
    """
    header = request.getHeader("Authorization")
    if header is None and otherwise:
        return otherwise
    scheme, _, token = (header or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise InvalidToken("A token is needed: Authorization: Bearer <access_token>")
    return token


def read_json(request: IRequest) -> bytes:
    """The body, which has to say that it is JSON."""
    media_type, _ = parse_options_header(request.getHeader("Content-Type"))
    if media_type.lower() != _JSON:
        raise InvalidRequest(
            f"The body has to be {_JSON}",
            status=415,
            headers={"Accept-Post": _JSON},
            details={"field": "Content-Type"},
        )
    if request.requestHeaders.hasHeader("Content-Encoding"):
        raise InvalidRequest(
            "The body may not be encoded", status=415, details={"field": "Content-Encoding"}
        )
    body: bytes = request.content.read()
    return body


def read_body(request: IRequest, decoder: Decoder[S]) -> S:
    """The body as a structure; raises `InvalidRequest` that names the field."""
    return decode_as(read_json(request), decoder)


def query(request: IRequest, name: str) -> str | None:
    """A parameter of the query; the last one counts."""
    values: list[bytes] = request.args.get(name.encode("ascii"), [])
    if not values:
        return None
    try:
        return values[-1].decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"'{name}' is not UTF-8", details={"field": name}) from None


def query_number(request: IRequest, name: str, default: int, most: int) -> int:
    """A whole number of the query, from 0 up; more than `most` is `most`."""
    text = query(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidRequest(f"'{name}' is not a whole number", details={"field": name})
    return min(int(text), most)


def query_switch(request: IRequest, name: str) -> bool:
    """A truth of the query: `true` or `false`, which is the default."""
    text = query(request, name) or "false"
    if text not in ("true", "false"):
        raise InvalidRequest(f"'{name}' is neither true nor false", details={"field": name})
    return text == "true"


def page_of(items: list[Any], after: str | None, name: str) -> dict[str, Any]:
    """A page of a list; `after` is there where another page follows."""
    return {name: items} if after is None else {name: items, "after": after}
