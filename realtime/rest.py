"""The HTTP interface: a Klein application, and the frame that every answer of it gets.

Reference: REST Management Endpoints; DESIGN section 4. Whatever happens, the answer is JSON, an
error has the reference's envelope, and CORS headers are there for the origins allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from werkzeug import exceptions

from realtime import __version__
from realtime.addresses import Proxies
from realtime.answers import SERVER, answer, answer_error, answer_json, cors_headers
from realtime.asyncapi import asyncapi
from realtime.audit import Audit
from realtime.auth import Auth
from realtime.backends import Backends
from realtime.console import add_console
from realtime.envelope import encode_json
from realtime.errors import (
    ConfigurationError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RealtimeError,
)
from realtime.http_request import Request
from realtime.metrics import JSON, Metrics, negotiate
from realtime.node import Node
from realtime.nodes import Nodes
from realtime.openapi import openapi
from realtime.origins import Origins
from realtime.page import add_page
from realtime.peer import SERVER_NAME
from realtime.rest_connections import add_connections
from realtime.rest_console import Console, add_console_data
from realtime.rest_publish import add_publish
from realtime.rest_sessions import add_sessions
from realtime.rest_topics import add_topics
from realtime.sse import Streams, add_sse

FEATURES = (
    "websocket",
    "heartbeat",
    "topic_subscription",
    "broadcast_messaging",
    "direct_messaging",
    "connection_management",
    "metrics",
)
_HEADERS = {
    "Server": SERVER,
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "7200",
}
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What `/info` has under `config`."""

    host: str
    port: int
    max_connections: int
    heartbeat_interval_secs: int
    client_timeout_secs: int
    max_frame_size: int


class RestApi:
    """All of HTTP as one `resource`.

    `info` is asked for each answer, as the port is known only once the server listens.
    `ws_resource` takes over the connections that upgrade to WebSockets.
    """

    def __init__(
        self,
        node: Node,
        auth: Auth,
        *,
        metrics: Metrics,
        info: Callable[[], ServerInfo],
        origins: Origins,
        ws_resource: IResource,
        backends: Backends | None = None,
        nodes: Nodes | None = None,
        streams: Streams | None = None,
        proxies: Proxies | None = None,
        console: Console | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._node = node
        self._nodes = nodes or Nodes(node)
        self._metrics = metrics
        self._info = info
        self._ws_resource = ws_resource
        app = Klein()
        app.url_map.merge_slashes = False
        routes: dict[str, Callable[[IRequest], Any]] = {
            "/health": self._health,
            "/health/ready": self._health,
            "/health/live": self._live,
            "/metrics": self._metrics_,
            "/info": self._about,
            "/ws": self._websocket,
            "/openapi.json": _document(openapi()),
            "/asyncapi.json": _document(asyncapi()),
        }
        for path, endpoint in routes.items():
            app.route(path, methods=["GET"], endpoint=path)(endpoint)
        add_sessions(app, auth, proxies)
        if backends is not None:
            add_publish(app, node, backends)
            add_topics(app, self._nodes, backends)
            add_connections(app, self._nodes, backends)
            if console is not None:
                add_console_data(app, console, self._nodes, backends, auth)
        if streams is not None:
            add_sse(app, streams)
        add_page(app)
        add_console(app)
        self.resource: IResource = _Frame(app, origins, node, audit or Audit())

    def _health(self, request: IRequest) -> bytes:
        health = self._node.health()
        body: dict[str, object] = {
            "status": "healthy",
            "active_connections": health.active_connections,
            "max_connections": health.max_connections,
            "uptime_seconds": health.uptime_seconds,
        }
        if health.reason is None:
            return answer_json(request, body)
        del body["uptime_seconds"]
        return answer_json(request, body | {"status": "unhealthy", "reason": health.reason}, 503)

    def _live(self, request: IRequest) -> bytes:
        return answer_json(request, {"status": "alive"})

    def _metrics_(self, request: IRequest) -> bytes:
        request.responseHeaders.addRawHeader("Vary", "Accept")
        accept = ",".join(request.requestHeaders.getRawHeaders("Accept", []))
        media_type = negotiate(accept)
        if media_type == JSON:
            return answer_json(request, self._metrics.counters.as_reference())
        content_type, body = self._metrics.exposition(media_type)
        return answer(request, body, content_type)

    async def _about(self, request: IRequest) -> bytes:
        about: dict[str, Any] = {
            "server": {
                "name": SERVER_NAME,
                "version": __version__,
                "config": asdict(self._info()),
            },
            "stats": self._node.counters.as_reference(),
            "features": FEATURES,
        }
        nodes = await self._nodes.describe()
        if nodes is not None:
            about["nodes"] = nodes
        return answer_json(request, about)

    def _websocket(self, request: IRequest) -> IResource:
        upgrades = ",".join(request.requestHeaders.getRawHeaders("Upgrade", []))
        wanted = {name.strip().lower() for name in upgrades.split(",")}
        if "websocket" not in wanted or request.method != b"GET":
            raise InvalidRequest(
                "Only WebSockets are served here: an Upgrade is needed",
                status=426,
                headers={
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Version": "13",
                },
            )
        return self._ws_resource


def _document(document: dict[str, Any]) -> Callable[[IRequest], bytes]:
    body = encode_json(document)

    def serve(request: IRequest) -> bytes:
        return answer(request, body)

    return serve


class Watched(Resource):
    """Of the root resource `whole` what operators watch: metrics and health."""

    isLeaf = True

    def __init__(self, whole: IResource) -> None:
        super().__init__()
        self._whole = whole

    def render(self, request: IRequest) -> Any:
        """Answer, or say that there is nothing."""
        if request.path.split(b"/")[1:2] in ([b"health"], [b"metrics"]):
            return self._whole.render(request)
        return answer_error(request, NotFound("There is nothing at this path of this port"))


class _Frame(Resource):
    """The root resource: what all answers have in common, errors above all."""

    isLeaf = True
    _log = Logger()

    def __init__(self, app: Klein, origins: Origins, node: Node, audit: Audit) -> None:
        super().__init__()
        self._audit = audit
        self._origins = origins
        self._counters = node.counters
        app.handle_errors(Exception)(self._failed)
        self._app = app.resource()

    def render(self, request: IRequest) -> Any:
        """Answer any request."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        try:
            _check_headers(request)
            self._allow_origin(request)
            if isinstance(request, Request) and request.refusal is not None:
                raise request.refusal
            _check_target(request)
            return self._app.render(request)
        except Exception:
            return self._failed(request, Failure())

    def _allow_origin(self, request: IRequest) -> None:
        """Let pages of the origins allowed read the answer."""
        for name, value in cors_headers(self._origins, request.getHeader("Origin")).items():
            request.responseHeaders.addRawHeader(name, value)

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer for anything that was raised, by whatever part."""
        error = failure.value
        if isinstance(error, exceptions.MethodNotAllowed):
            methods = sorted({*(error.valid_methods or ()), "OPTIONS"})
            if request.method == b"OPTIONS":
                return self._options(request, methods)
            error = MethodNotAllowed(headers={"Allow": ", ".join(methods)})
        elif isinstance(error, exceptions.NotFound):
            error = NotFound("There is nothing at this path")
        elif isinstance(error, exceptions.HTTPException):
            error = InvalidRequest("The request is malformed")
        elif isinstance(error, ConfigurationError):  # What the operator has to mend.
            self._log.error("{method} failed: {error}", method=request.method, error=str(error))
            error = InternalError()
        elif not isinstance(error, RealtimeError):
            self._log.failure("{method} failed", failure, method=request.method)
            error = InternalError()
        if error.status >= 500:
            self._counters.errors += 1
        elif error.status in (401, 403, 429):
            event, about = _attempt(request)
            self._audit.refused(event, error, address=self._audit.client(request), **about)
        return answer_error(request, error)

    def _options(self, request: IRequest, methods: list[str]) -> bytes:
        """Answer a preflight, or any other question of what a path takes."""
        request.setResponseCode(204)
        request.setHeader("Allow", ", ".join(methods))
        if request.responseHeaders.hasHeader("Access-Control-Allow-Origin"):
            request.setHeader("Access-Control-Allow-Methods", ", ".join(methods))
            for name, value in _PREFLIGHT.items():
                request.setHeader(name, value)
        return b""


def _check_headers(request: IRequest) -> None:
    """Refuse headers that are not UTF-8, which whoever reads them would stumble over."""
    for name, values in request.requestHeaders.getAllRawHeaders():
        for value in values:
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                shown = name.decode("ascii", "replace")
                raise InvalidRequest(f"The header {shown} is not UTF-8") from None


def _check_target(request: IRequest) -> None:
    """Refuse what Klein cannot decode, and would answer for itself."""
    try:
        if _BAD_ESCAPE.search(request.path):
            raise InvalidRequest("The path has a malformed %-escape")
        path = unquote_to_bytes(request.path).decode("utf-8")
        request.getRequestHostname().decode("ascii")
        request.method.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidRequest("The path or the Host header cannot be decoded") from None
    if path.startswith("//"):  # Klein's router would not see the difference.
        raise NotFound("There is nothing at this path")


def _attempt(request: IRequest) -> tuple[str, dict[str, str]]:
    """What a refused request was, as the audit log has it: of its path the first part only."""
    first = request.path.split(b"/")[1]
    if first == b"sse" and request.method == b"GET":
        return "connect", {}
    attempt = request.method + b" /" + first
    return "request", {"request": attempt.decode("ascii", "replace")}
