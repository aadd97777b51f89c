"""What a Redis server refuses, said once in a while: as it is full, it refuses everything. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from realtime.redis_url import RedisAddress

_log = Logger()

# Seconds between two reports of the same sort of refusal, and sorts that are told apart.
QUIET_SECONDS: Final = 60.0
MAX_SORTS: Final = 20


class Refusals:
    """Reports the refusals of one server. `seconds` is the present."""

    def __init__(self, address: RedisAddress, seconds: Callable[[], float]) -> None:
        self._address = address
        self._seconds = seconds
        # By sort: when it was reported, and how many have come since.
        self._reported: dict[str, tuple[float, int]] = {}

    def note(self, why: str) -> None:
        """Redis has refused a command."""
        now, sort = self._seconds(), why.partition(" ")[0]
        since, more = self._reported.get(sort, (-QUIET_SECONDS, 0))
        if 0 <= now - since < QUIET_SECONDS:
            self._reported[sort] = (since, more + 1)
            return
        if len(self._reported) >= MAX_SORTS:
            self._reported.clear()
        self._reported[sort] = (now, 0)
        _log.error(
            "Redis at {address} refuses commands: {why} ({more} more since the last report)",
            address=self._address,
            why=why,
            more=more,
        )
