"""Why there is no connection."""

from __future__ import annotations

from realtime.client.errors import RealtimeError
from realtime.errors import CloseCode


class Lost(Exception):
    """A connection has ended, or was not made. `code` is that of its Close frame, or 1006.

    `retry` is whether to try again: at once, or after `retry_after` seconds at least.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        *,
        retry: bool,
        error: RealtimeError | None = None,
        retry_after: float = 0.0,
        at_once: bool = False,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.error = error
        self.retry = retry
        self.retry_after = retry_after
        self.at_once = at_once


def is_final(code: int) -> bool:
    """Whether a close code says not to come back."""
    known = {int(each): each.reconnect for each in CloseCode}
    return not known.get(code, not 4500 <= code < 5000)
