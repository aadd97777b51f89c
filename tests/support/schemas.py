"""Schemas that notice what they do not have."""

from __future__ import annotations

from typing import Any


def closed(part: Any) -> Any:
    """A schema, or whatever has some in it, with no members allowed but those that it names.

    What is published stays open, as answers may gain members.
    """
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    copy = {name: closed(each) for name, each in part.items()}
    if isinstance(part.get("properties"), dict):
        copy["additionalProperties"] = False
    return copy
