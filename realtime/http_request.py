"""HTTP requests with bounds: how large a body may be, and what is no request at all."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request as ServerRequest

from realtime.answers import answer_error
from realtime.errors import InternalError, InvalidRequest, RealtimeError

_log = Logger()


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may take. Times are seconds, sizes bytes.

    `head` and `body` count from the request's first byte, `idle` from the last answer; `close`
    is how long a closing connection may take to read its answer.
    """

    head: float = 10
    body: float = 30
    idle: float = 60
    close: float = 5
    head_size: int = 16 * 1024
    headers: int = 100
    body_size: int = 64 * 1024
    connections: int = 1000


class BodyTooLarge(Exception):
    """The body has become larger than the limit."""


class Request(ServerRequest):
    """A request. `refusal` is set where it is to be refused whatever it asks for."""

    channel: Any
    content: BytesIO
    refusal: RealtimeError | None = None

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, if there is room."""
        limits: HttpLimits = self.channel.site.limits
        if self.content.tell() + len(data) > limits.body_size:
            raise BodyTooLarge
        super().handleContentChunk(data)

    def process(self) -> None:
        """Make the target a path, then find and render the resource."""
        path = self.path
        for scheme in (b"http://", b"https://"):
            if path[: len(scheme)].lower() == scheme:  # absolute form, as proxies send it
                path = b"/" + path[len(scheme) :].partition(b"/")[2]
        if not path.startswith(b"/"):
            if path != b"*" or self.method != b"OPTIONS":
                self.refusal = self.refusal or InvalidRequest("The request's target is no path")
            path = b"/"
        self.path = path
        if problem := self._problem():
            self.refusal = self.refusal or InvalidRequest(problem)
        super().process()

    def _problem(self) -> str | None:
        """What Twisted lets pass, and nobody should send (RFC 9110 section 9.1, 9112 3.2)."""
        hosts = len(self.requestHeaders.getRawHeaders(b"Host", ()))
        if hosts > 1 or (hosts == 0 and self.clientproto == b"HTTP/1.1"):
            return "A request has exactly one Host header"
        if self.method != self.method.upper():
            return "The method is not in capitals"
        return None

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer for a failure that nobody has handled, telling nothing of it."""
        _log.failure("A request failed", reason)
        body = answer_error(self, InternalError())
        self.write(body)
        self.finish()
        return reason
