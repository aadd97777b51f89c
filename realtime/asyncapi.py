"""The AsyncAPI document of the WebSocket messages."""

from __future__ import annotations

from typing import Any, get_args

from realtime import __version__
from realtime.envelope import COMMANDS, Command
from realtime.schemas import (
    ANY,
    COUNT,
    ERROR,
    HISTORY,
    NUMBER,
    PRESENCE,
    SHARED,
    TEXT,
    TIMESTAMP,
    Schema,
    components,
    constant,
    list_of,
    object_of,
    reference,
)

_ID: Schema = {"anyOf": [TEXT, {"type": "integer"}]}
_SUBSCRIBED = object_of(
    ("offset", "epoch", "recovered"),
    topic=TEXT,
    offset=COUNT,
    epoch=TEXT,
    recovered={"type": "boolean"},
)
_STATUS: Schema = {
    "oneOf": [
        object_of(
            ("session_id", "username"),
            status=constant("connected"),
            connection_id=TEXT,
            session_id=TEXT,
            user_id=TEXT,
            username=TEXT,
            expires_at=COUNT,
            heartbeat_interval_secs=COUNT,
            client_timeout_secs=COUNT,
            max_frame_size=COUNT,
            server=object_of(name=TEXT, version=TEXT),
        ),
        object_of(status=constant("subscribed"), topics=list_of(_SUBSCRIBED)),
        object_of(("reason",), status=constant("unsubscribed"), topics=list_of(TEXT), reason=TEXT),
        object_of(status=constant("authenticated"), expires_at=COUNT),
        object_of(status=constant("token_expiring"), expires_at=COUNT),
        object_of(status=constant("draining")),
        object_of(status=constant("gap"), topics=list_of(TEXT)),
    ]
}
_ACK: Schema = {
    "oneOf": [
        object_of(("offset", "epoch"), topic=TEXT, offset=COUNT, epoch=TEXT),
        object_of(delivered=COUNT),
    ]
}
_WHO = {"topic": TEXT, "user_id": TEXT, "username": TEXT}
# What the server sends, by type: when, and its data.
SENT: dict[str, tuple[str, Schema]] = {
    "Status": ("Something about the connection or its subscriptions has changed.", _STATUS),
    "Broadcast": (
        "A publication on a topic subscribed to.",
        object_of(
            ("offset", "epoch"), topic=TEXT, payload=ANY, from_user=TEXT, offset=COUNT, epoch=TEXT
        ),
    ),
    "DirectMessage": ("A message to this user.", object_of(from_user=TEXT, payload=ANY)),
    "Ack": ("A Broadcast or DirectMessage with an id was accepted.", _ACK),
    "Pong": (
        "The answer to a Ping command.",
        object_of(("timestamp",), timestamp=NUMBER, server_time=TIMESTAMP),
    ),
    "Error": ("A command was refused.", ERROR),
    "History": ("The answer to a History command.", HISTORY),
    "Presence": (
        "The answer to a Presence command.",
        {**PRESENCE, "required": ["topic", "members"]},
    ),
    "Join": ("A user has come to a topic.", object_of(("username",), **_WHO)),
    "Leave": ("A user has left a topic.", object_of(("username",), **_WHO)),
    "Update": ("A user has another state on a topic.", object_of(("username",), **_WHO, state=ANY)),
}
_TAKEN = {
    # Their names among the schemas; Broadcast, say, is sent as well as taken.
    name: f"{name}Command"
    for name in COMMANDS
}


def sent_schema(type: str) -> Schema:
    """The schema of a whole message from the server."""
    return object_of(("id",), type=constant(type), id=_ID, data=SENT[type][1], timestamp=TIMESTAMP)


def asyncapi() -> dict[str, Any]:
    """The document (AsyncAPI 3.0)."""
    taken = components(get_args(Command))
    schemas = SHARED | {_TAKEN.get(name, name): schema for name, schema in taken.items()}
    messages: dict[str, Any] = {}
    for name in COMMANDS:
        messages[_TAKEN[name]] = {
            "name": name,
            "summary": taken[name]["description"],
            "payload": reference(_TAKEN[name]),
        }
    for name, (summary, _) in SENT.items():
        messages[name] = {"name": name, "summary": summary, "payload": sent_schema(name)}
    channel = {"$ref": "#/channels/ws"}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "realtime-server", "version": __version__, "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": "/ws",
                "description": "A WebSocket of JSON text messages. An access token stands in the "
                "Authorization header, in the subprotocol access_token.<jwt>, or in ?token=.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"query": object_of(("token",), token=TEXT)}},
            }
        },
        # As the server sees it: it receives commands, and sends the rest.
        "operations": {
            "receive": {
                "action": "receive",
                "channel": channel,
                "messages": [_of_channel(_TAKEN[name]) for name in COMMANDS],
            },
            "send": {
                "action": "send",
                "channel": channel,
                "messages": [_of_channel(name) for name in SENT],
            },
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _of_channel(name: str) -> dict[str, str]:
    return {"$ref": f"#/channels/ws/messages/{name}"}
