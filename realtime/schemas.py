"""JSON schemas of what the server takes and sends, for the two documents that describe it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from msgspec.json import schema_components

from realtime.errors import ErrorCode

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
ANY: Schema = {}
TIMESTAMP: Schema = {"type": "integer", "description": "Unix milliseconds."}


def object_of(optional: Iterable[str] = (), **members: Schema) -> Schema:
    """An object whose members are all required but those named as optional."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": members,
        "required": [name for name in members if name not in left_out],
    }


def list_of(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def constant(value: str) -> Schema:
    """One text."""
    return {"type": "string", "const": value}


def reference(name: str) -> Schema:
    """A schema of `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


def components(structures: Iterable[type]) -> dict[str, Schema]:
    """The schemas of msgspec structures and of what they are made of, by name."""
    _, found = schema_components(structures, ref_template="#/components/schemas/{name}")
    return dict(found)


ERROR = object_of(
    code={"type": "string", "enum": [code.value for code in ErrorCode]},
    message=TEXT,
    details={"type": "object"},
)
MEMBER = object_of(("username", "state"), user_id=TEXT, connections=COUNT, username=TEXT, state=ANY)
ENTRY = object_of(payload=ANY, from_user=TEXT, timestamp=TIMESTAMP, offset=COUNT)
HISTORY = object_of(topic=TEXT, publications=list_of(reference("Entry")), offset=COUNT, epoch=TEXT)
PRESENCE = object_of(
    ("after",),
    topic=TEXT,
    users=COUNT,
    connections=COUNT,
    members=list_of(reference("Member")),
    after=TEXT,
)
SHARED = {"Error": ERROR, "Member": MEMBER, "Entry": ENTRY}
