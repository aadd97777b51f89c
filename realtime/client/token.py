"""Where tokens come from, and when another is needed."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from realtime.client.errors import RealtimeError
from realtime.client.lost import Lost
from realtime.errors import CloseCode

TokenSource: TypeAlias = Callable[[], Awaitable[str] | str]

_REFUSED = frozenset({"INVALID_TOKEN", "TOKEN_EXPIRED"})
_TOKEN = re.compile(r"[!-~]+")
# Seconds before its expiry from which on a token is not used to connect with.
_MARGIN = 10
# Seconds between two renewals, where tokens live long enough for it.
_APART = 10.0


class Tokens:
    """A fixed token, or those that a function of the user's gives within `timeout` seconds."""

    def __init__(
        self, token: str | None, source: TokenSource | None, timeout: float = 10.0
    ) -> None:
        if token is None and source is None:
            raise ValueError("a client needs a token, or get_token")
        self._token = token
        self._source = source
        self._timeout = timeout
        self._asked = float("-inf")
        self._expires_at = float("inf")
        self._is_new = False

    async def get(self) -> str:
        """The token to connect with. Raises `Lost` where there is none."""
        self._is_new = False
        if self._token is None or (self._source and time.time() > self._expires_at - _MARGIN):
            self._token = await self._ask()
            self._is_new = True
        if _TOKEN.fullmatch(str(self._token)) is None:
            error = RealtimeError("INVALID_TOKEN", "A token is ASCII without blanks")
            raise Lost(1006, error.message, error=error, retry=False)
        return self._token

    def renew_in(self, left: float) -> float:
        """Seconds to wait before the renewal of a token that has so many `left`."""
        apart = min(_APART, left / 2)
        return max(0.0, apart - (time.monotonic() - self._asked))

    async def renew(self) -> str | None:
        """Another token for a connection whose own expires soon; None where there is none."""
        if self._source is not None:
            self._token = await self._ask()
            return self._token
        return None

    def note(self, data: Mapping[str, Any]) -> None:
        """The server has said when the token expires, in Unix seconds."""
        self._expires_at = float(data.get("expires_at") or "inf")

    def judge(self, lost: Lost) -> Lost:
        """Whether trying again is of use where the token was the reason, and with another one."""
        expired = lost.code == CloseCode.TOKEN_EXPIRED
        if not expired and (lost.error is None or lost.error.code not in _REFUSED):
            return lost
        error = lost.error or RealtimeError("TOKEN_EXPIRED", str(lost))
        if self._source is None or (self._is_new and not expired):
            return Lost(lost.code, str(lost), error=error, retry=False)
        self._token = None
        return Lost(lost.code, str(lost), retry=True, at_once=True)

    async def _ask(self) -> str:
        assert self._source is not None  # noqa: S101
        self._asked = time.monotonic()
        try:
            token = self._source()
            if inspect.isawaitable(token):
                async with asyncio.timeout(self._timeout):
                    token = await token
        except Exception as problem:
            error = RealtimeError("NO_TOKEN", f"get_token failed: {problem!r}")
            raise Lost(1006, str(error), error=error, retry=True) from problem
        self._expires_at = float("inf")
        return str(token)
