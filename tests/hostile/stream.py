"""A stream of server-sent events, as an attacker opens it."""

from __future__ import annotations

import json
import re

from tests.hostile.attack import Target
from tests.hostile.wire import Line

_CODE = re.compile(rb'event: close\ndata: \{"code":(\d+)')


class Stream:
    """One stream; `connection_id` is told by its welcome."""

    def __init__(self, target: Target, topic: str, *, receive_buffer: int | None = None) -> None:
        self._line = target.line(receive_buffer=receive_buffer)
        self._line.send(target.request(f"GET /sse?topics={topic} HTTP/1.1"))
        self.welcome = _welcome(self._line)
        self.connection_id: str = self.welcome["connection_id"]

    def ending(self, seconds: float = 30) -> str:
        """The code of the event `close`, or how else it ended."""
        data = self._line.rest(seconds)
        self._line.close()
        found = _CODE.search(data)
        return found[1].decode() if found else "1006"

    def close(self) -> None:
        """Leave."""
        self._line.close()


def _welcome(line: Line) -> dict[str, str]:
    status = line.status()
    if status != "200":
        raise AssertionError(f"no stream: {status}")
    data = line.until(b'"connection_id"', b"\n\n")
    found = re.search(rb"^data: (.+)$", data, re.MULTILINE)
    assert found is not None, data
    welcome: dict[str, str] = json.loads(found[1])["data"]
    return welcome
