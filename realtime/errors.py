"""The error tree, and the tables of error codes and WebSocket close codes.

Every refusal that a client sees, over REST or WebSocket, is a `RealtimeError`.
The documentation of the codes is generated from the two tables here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from math import ceil
from typing import Any, Self


class ErrorCode(StrEnum):
    """What `error.code` can say (reference: Error Handling; DESIGN section 4).

    Each member carries the HTTP status that it has where nothing says otherwise.
    """

    status: int
    meaning: str

    def __new__(cls, code: str, status: int, meaning: str) -> ErrorCode:
        """Make a member whose value is its code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.meaning = meaning
        return member

    INVALID_TOKEN = ("INVALID_TOKEN", 401, "The authentication token is missing or invalid.")
    TOKEN_EXPIRED = ("TOKEN_EXPIRED", 401, "The authentication token has expired.")
    INVALID_CREDENTIALS = ("INVALID_CREDENTIALS", 401, "The username or the password is wrong.")
    FORBIDDEN = ("FORBIDDEN", 403, "The token is valid, but it does not permit this.")
    NOT_FOUND = ("NOT_FOUND", 404, "There is no such thing.")
    METHOD_NOT_ALLOWED = ("METHOD_NOT_ALLOWED", 405, "The path exists, the method does not.")
    CONFLICT = ("CONFLICT", 409, "The request contradicts the present state.")
    INVALID_REQUEST = ("INVALID_REQUEST", 400, "The request is malformed.")
    RATE_LIMITED = ("RATE_LIMITED", 429, "Too many requests; wait before the next one.")
    SERVER_FULL = ("SERVER_FULL", 503, "The server is at capacity.")
    UNAVAILABLE = ("UNAVAILABLE", 503, "Something that the request needs is out of reach.")
    INTERNAL_ERROR = ("INTERNAL_ERROR", 500, "The server failed; it has logged why.")


class CloseCode(IntEnum):
    """Why the server closes a WebSocket (RFC 6455 section 7.4; DESIGN section 3).

    Of our own, 4000-4499 invite the client to connect again, 4500-4999 do not.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str) -> CloseCode:
        """Make a member whose value is its number."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    NORMAL = (1000, "The client asked for it.")
    GOING_AWAY = (1001, "The endpoint goes away.")
    PROTOCOL_ERROR = (1002, "The peer broke the WebSocket protocol.")
    UNSUPPORTED_DATA = (1003, "Binary frames are not supported.")
    INVALID_PAYLOAD = (1007, "A text frame was not UTF-8.")
    MESSAGE_TOO_BIG = (1009, "A frame or message was larger than max_frame_size.")
    SERVICE_RESTART = (1012, "The server restarts; connect again.")
    TOKEN_EXPIRED = (4001, "The token has expired; get a new one, then connect again.")
    SLOW_CONSUMER = (4002, "The client read too slowly and its queue was full.")
    CLIENT_TIMEOUT = (4003, "Nothing was heard of the client for client_timeout seconds.")
    RATE_LIMITED = (4004, "The client kept sending above its rate limit.")
    LOST_POSITION = (4005, "The server lost a topic's position; recover from history.")
    SESSION_TERMINATED = (4500, "The session was ended.")
    FORCED = (4501, "An operator closed the connection.")
    TOO_MANY_ERRORS = (4502, "The client sent too many malformed messages.")

    @property
    def reconnect(self) -> bool:
        """Whether a client should connect again after this code."""
        return self in (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART) or 4000 <= self < 4500


class RealtimeError(Exception):
    """A refusal with a code, a sentence for people, and details for programs.

    `status` is the HTTP status, `headers` go with it; neither is sent on a WebSocket.
    """

    code: ErrorCode = ErrorCode.INTERNAL_ERROR
    # For the audit log: whose request it was, where that is known, and whether it is written.
    actor: str | None = None
    noted = False

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or self.code.meaning
        self.details: dict[str, Any] = dict(details or {})
        self.status = status or self.code.status
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(self.message)

    def bare(self) -> Self:
        """The error to be kept, without the frames that it came through.

        They refer to who keeps it, and such a cycle stays until all objects are looked at.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class InvalidToken(RealtimeError):
    """The token is missing, malformed, badly signed, revoked or of the wrong kind."""

    code = ErrorCode.INVALID_TOKEN

    def __init__(self, message: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.headers.setdefault("WWW-Authenticate", "Bearer")


class TokenExpired(InvalidToken):
    """The token is genuine, but past its `exp`."""

    code = ErrorCode.TOKEN_EXPIRED


class InvalidCredentials(RealtimeError):
    """Unknown user or wrong password: the answer does not tell which."""

    code = ErrorCode.INVALID_CREDENTIALS


class Forbidden(RealtimeError):
    """The identity is known, and not permitted."""

    code = ErrorCode.FORBIDDEN


class NotFound(RealtimeError):
    """There is no such resource."""

    code = ErrorCode.NOT_FOUND


class MethodNotAllowed(RealtimeError):
    """The resource does not take this method."""

    code = ErrorCode.METHOD_NOT_ALLOWED


class Conflict(RealtimeError):
    """The request contradicts the present state."""

    code = ErrorCode.CONFLICT


class InvalidRequest(RealtimeError):
    """The request is malformed."""

    code = ErrorCode.INVALID_REQUEST


class RateLimited(RealtimeError):
    """Too many requests. `retry_after` is in seconds."""

    code = ErrorCode.RATE_LIMITED

    def __init__(self, retry_after: float, message: str | None = None) -> None:
        super().__init__(
            message,
            details={"retry_after_ms": max(1, ceil(retry_after * 1000))},
            headers={"Retry-After": str(max(1, ceil(retry_after)))},
        )


class TooManyConnections(RateLimited):
    """The user or the address (`limit`) has as many connections as one may have."""

    def __init__(self, limit: str) -> None:
        super().__init__(1.0, f"There are too many connections of this {limit}")
        self.details["limit"] = limit


class ServerFull(RealtimeError):
    """No connection more is taken now."""

    code = ErrorCode.SERVER_FULL

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class Unavailable(RealtimeError):
    """A part that the request needs is out of reach; trying later may help."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class InternalError(RealtimeError):
    """Our own fault. The cause is in the log, never in the answer."""


class ConfigurationError(Exception):
    """An operator's mistake, told in one line that names the option or file."""
