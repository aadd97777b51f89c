"""A reader of server-sent events, as HTML section 9.2.6 has it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """An event. `id` is that of the field, None where there was none."""

    data: str
    name: str = "message"
    id: str | None = field(default=None, compare=False)


def read_events(data: bytes) -> tuple[list[Event], bytes]:
    """The whole events in what a server has sent, and the bytes that follow them."""
    whole, end, rest = data.rpartition(b"\n\n")
    events = []
    for block in (whole + end).decode("utf-8").split("\n\n"):
        lines = [line.partition(":") for line in _LINE.split(block) if line]
        values: dict[str, list[str]] = {}
        for name, _, value in lines:
            values.setdefault(name, []).append(value.removeprefix(" "))
        if "data" in values:
            name = values.get("event", ["message"])[-1]
            id = values["id"][-1] if "id" in values else None
            events.append(Event("\n".join(values["data"]), name, id))
    return events, rest


def comments(data: bytes) -> int:
    """How many comments there are."""
    return sum(line.startswith(b":") for line in data.split(b"\n"))
