"""The OpenAPI document of the HTTP interface."""

from __future__ import annotations

from typing import Any

from realtime import __version__
from realtime.rest_publish import Batch, Message, Publish
from realtime.schemas import (
    COUNT,
    HISTORY,
    PRESENCE,
    SHARED,
    TEXT,
    Schema,
    components,
    constant,
    list_of,
    object_of,
    reference,
)

_JSON = "application/json"
_SESSION = object_of(
    ("refresh_token", "session_id", "user"),
    access_token=TEXT,
    refresh_token=TEXT,
    expires_in=COUNT,
    token_type=constant("Bearer"),
    session_id=TEXT,
    user=object_of(id=TEXT, username=TEXT, roles=list_of(TEXT)),
)
_COUNTERS = object_of(
    active_connections=COUNT,
    total_connections=COUNT,
    messages_sent=COUNT,
    messages_received=COUNT,
    errors=COUNT,
)
_HEALTH = object_of(
    ("uptime_seconds", "reason"),
    status={"type": "string", "enum": ["healthy", "unhealthy"]},
    active_connections=COUNT,
    max_connections=COUNT,
    uptime_seconds=COUNT,
    reason=TEXT,
)
_NODE = object_of(
    node_id=TEXT,
    version=TEXT,
    uptime_seconds=COUNT,
    connections=COUNT,
    status=TEXT,
)
_INFO = object_of(
    ("nodes",),
    server=object_of(
        name=TEXT,
        version=TEXT,
        config=object_of(
            host=TEXT,
            port=COUNT,
            max_connections=COUNT,
            heartbeat_interval_secs=COUNT,
            client_timeout_secs=COUNT,
            max_frame_size=COUNT,
        ),
    ),
    stats=_COUNTERS,
    features=list_of(TEXT),
    nodes=list_of(_NODE),
)
_PUBLISHED = object_of(
    ("offset", "epoch", "error"), topic=TEXT, offset=COUNT, epoch=TEXT, error=reference("Error")
)
_RESULTS = object_of(results=list_of(reference("Published")))
_DELIVERED = object_of(delivered=COUNT)
_REFUSED = object_of(error=reference("Error"))
_CONNECTION = object_of(
    ("username", "session_id"),
    connection_id=TEXT,
    user_id=TEXT,
    subscriptions=COUNT,
    username=TEXT,
    session_id=TEXT,
)


def _parameter(name: str, place: str, schema: Schema, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": meaning,
    }


_TOPIC = _parameter("topic", "path", TEXT, "A topic, percent-encoded.")
_USER = _parameter("user", "path", TEXT, "A user's id or, failing that, username.")
_LIMIT = _parameter("limit", "query", COUNT, "Entries of a page; 100 by default, at most 1000.")
_AFTER = _parameter("after", "query", TEXT, "What the page before gave as `after`.")


# Refusals of whatever is asked: malformed, too slow, too large a body or head, and our own fault.
_ANY_REQUEST = (400, 408, 413, 431, 500)


def _operation(
    summary: str,
    answers: dict[int, Schema | None],
    *parameters: dict[str, Any],
    body: str | Schema | None = None,
    open: bool = False,
    refusals: tuple[int, ...] = (),
) -> dict[str, Any]:
    """An endpoint; it may refuse as it says, and as all that ask who asks or need a store do."""
    responses: dict[str, Any] = {}
    for status, schema in answers.items():
        responses[str(status)] = {"description": "Good."}
        if schema is not None:
            responses[str(status)]["content"] = {_JSON: {"schema": schema}}
    for status in sorted({*refusals, *(() if open else (401, 403, 503)), *_ANY_REQUEST}):
        responses.setdefault(str(status), {"$ref": "#/components/responses/Refused"})
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        schema = reference(body) if isinstance(body, str) else body
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
        responses["415"] = {"$ref": "#/components/responses/Refused"}
    if open:
        operation["security"] = []
    return operation


_METRICS = _operation("Counters, or Prometheus text as Accept asks for.", {200: None}, open=True)
_METRICS["responses"]["200"]["content"] = {
    _JSON: {"schema": _COUNTERS},
    "text/plain": {"schema": TEXT},
    "application/openmetrics-text": {"schema": TEXT},
}
_STREAM = _operation(
    "Opens a stream of server-sent events: the messages of a WebSocket.",
    {200: None},
    _parameter("topics", "query", TEXT, "Topics and patterns to subscribe to, with commas."),
    _parameter("token", "query", TEXT, "An access token, where no header has one."),
    _parameter("last_event_id", "query", TEXT, "As the header Last-Event-ID."),
    _parameter("Last-Event-ID", "header", TEXT, "The id of the last event that came."),
    refusals=(429,),
)
_STREAM["responses"]["200"]["content"] = {"text/event-stream": {}}
_HEALTHY = _operation("Health.", {200: _HEALTH, 503: _HEALTH}, open=True)
_TEXTS = object_of(username=TEXT, password=TEXT)

PATHS: dict[str, dict[str, Any]] = {
    "/health": {"get": _HEALTHY},
    "/health/ready": {"get": _HEALTHY},
    "/health/live": {
        "get": _operation(
            "Whether the process runs.", {200: object_of(status=constant("alive"))}, open=True
        )
    },
    "/metrics": {"get": _METRICS},
    "/info": {"get": _operation("What this server is.", {200: _INFO}, open=True, refusals=(503,))},
    "/ws": {
        "get": _operation(
            "Opens a WebSocket: see /asyncapi.json.",
            {101: None},
            _parameter("token", "query", TEXT, "An access token, where no header has one."),
            refusals=(426, 429, 503),
        )
    },
    "/sse": {"get": _STREAM},
    "/sse/{connection_id}": {
        "post": _operation(
            "Take a command of the WebSocket protocol, or several, for a stream of one's own.",
            {202: {"type": "object"}},
            _parameter("connection_id", "path", TEXT, "The stream's connection."),
            body={"anyOf": [{"type": "object"}, list_of({"type": "object"})]},
            refusals=(404,),
        )
    },
    "/sessions": {
        "post": _operation(
            "Log in.", {200: _SESSION}, body=_TEXTS, open=True, refusals=(401, 429, 503)
        )
    },
    "/sessions/refresh": {
        "post": _operation(
            "Issue another access token.",
            {200: _SESSION},
            body=object_of(refresh_token=TEXT),
            open=True,
            refusals=(401, 503),
        )
    },
    "/sessions/{session_id}": {
        "delete": _operation(
            "End a session of one's own, or as admin anybody's, and close its connections.",
            {204: None},
            _parameter("session_id", "path", TEXT, "The session's id."),
            refusals=(404, 503),
        )
    },
    "/publish": {
        "post": _operation(
            "Publish on a topic, or the same on many.",
            {200: {"anyOf": [reference("Published"), _RESULTS]}},
            body="Publish",
            refusals=(503,),
        )
    },
    "/batch": {
        "post": _operation(
            "Several commands, each with its own result.",
            {
                200: object_of(
                    results=list_of(
                        {"anyOf": [reference("Published"), _RESULTS, _DELIVERED, _REFUSED]}
                    )
                )
            },
            body="Batch",
        )
    },
    "/users/{user}/messages": {
        "post": _operation(
            "Message all connections of a user.",
            {200: _DELIVERED},
            _USER,
            body="Message",
            refusals=(404,),
        )
    },
    "/users/{user}/connections": {
        "delete": _operation(
            "Close all connections of a user.",
            {200: object_of(closed=COUNT)},
            _USER,
            refusals=(404,),
        )
    },
    "/topics": {
        "get": _operation(
            "Topics that have subscribers, by name.",
            {
                200: object_of(
                    ("after",),
                    topics=list_of(object_of(topic=TEXT, subscribers=COUNT)),
                    after=TEXT,
                )
            },
            _parameter("prefix", "query", TEXT, "What the topics begin with."),
            _LIMIT,
            _AFTER,
        )
    },
    "/topics/{topic}/presence": {
        "get": _operation(
            "Who is on a topic.", {200: PRESENCE}, _TOPIC, _LIMIT, _AFTER, refusals=(404,)
        )
    },
    "/topics/{topic}/history": {
        "get": _operation(
            "What was published on a topic.",
            {200: HISTORY},
            _TOPIC,
            _LIMIT,
            _parameter("since_offset", "query", COUNT, "Begin after this offset."),
            _parameter("since_epoch", "query", TEXT, "The offset's epoch."),
            _parameter("reverse", "query", {"type": "boolean"}, "The newest first."),
            refusals=(404, 409),
        ),
        "delete": _operation(
            "Forget what was published, and begin another epoch.",
            {204: None},
            _TOPIC,
            refusals=(404, 503),
        ),
    },
    "/connections": {
        "get": _operation(
            "Open connections, the oldest first.",
            {200: object_of(("after",), connections=list_of(reference("Connection")), after=TEXT)},
            _parameter("user", "query", TEXT, "Of this user only."),
            _LIMIT,
            _AFTER,
        )
    },
    "/connections/{connection_id}": {
        "delete": _operation(
            "Close a connection.",
            {204: None},
            _parameter("connection_id", "path", TEXT, "The connection's id."),
            refusals=(404,),
        )
    },
    "/openapi.json": {"get": _operation("This document.", {200: {"type": "object"}}, open=True)},
    "/asyncapi.json": {
        "get": _operation(
            "The document of the WebSocket messages.", {200: {"type": "object"}}, open=True
        )
    },
}


def _given(name: str, type: str) -> Schema:
    """What has a member that is not null."""
    return {"required": [name], "properties": {name: {"type": type}}}


def _bodies() -> dict[str, Schema]:
    """What the server API takes: the structures, and what their types do not say."""
    bodies = components((Publish, Message, Batch))
    bodies["Publish"]["oneOf"] = [_given("topic", "string"), _given("topics", "array")]
    bodies["BatchCommand"]["oneOf"] = [_given("publish", "object"), _given("direct", "object")]
    bodies["Direct"]["properties"]["user"] = TEXT | {"minLength": 1}
    return bodies


def openapi() -> dict[str, Any]:
    """The document (OpenAPI 3.1)."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "realtime-server",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"bearer": []}],
        "paths": PATHS,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token; for the server API, of role service or "
                    "admin, or an API key.",
                }
            },
            "responses": {
                "Refused": {
                    "description": "Refused: the error says why.",
                    "content": {_JSON: {"schema": _REFUSED}},
                }
            },
            "schemas": {
                **SHARED,
                "Published": _PUBLISHED,
                "Connection": _CONNECTION,
                **_bodies(),
            },
        },
    }
