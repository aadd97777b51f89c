"""What went wrong, as the server says it, or the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RealtimeError(Exception):
    """A refusal. `code` is one of the server's error codes, or one of the client's own.

    These are TIMEOUT (no answer came in time: the command may have been obeyed), CLOSED (the
    client has been disconnected for good), QUEUE_FULL (too many commands wait), TOO_LARGE
    (the server takes no such large ones), and NO_TOKEN (`get_token` has failed).
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})

    @classmethod
    def read(cls, data: Any) -> RealtimeError:
        """The error of an `Error` message, or of REST's envelope."""
        if not isinstance(data, dict):
            data = {}
        details = data.get("details")
        return cls(
            str(data.get("code", "INTERNAL_ERROR")),
            str(data.get("message", "The server gave no reason")),
            details if isinstance(details, dict) else None,
        )
