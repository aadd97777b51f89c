"""One WebSocket, from its opening to its loss."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from realtime.client.errors import RealtimeError
from realtime.client.lost import Lost, is_final
from realtime.client.outbox import Command, refuse

_log = logging.getLogger("realtime.client")

# Bytes of a message of the server's, whose answers may hold many publications; seconds between
# the signs of life that the connection asks for, and for each, and for the closing handshake.
_MAX_MESSAGE = 16 * 1024 * 1024
_PING_SECONDS = 20
_CLOSE_SECONDS = 2
_ABNORMAL = 1006


class Connection:
    """A connection that the server has welcomed. Use it with `async with`."""

    def __init__(self, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        self._socket = socket
        self.welcome = welcome
        self._unsent: deque[str] = deque()
        self._some = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, token: str, ssl: Any) -> Connection:
        """Connect. Raises `Lost`."""
        # Without a context of the caller's the library chooses by the scheme.
        options = {} if ssl is None else {"ssl": ssl}
        try:
            socket = await connect(
                url,
                additional_headers={"Authorization": f"Bearer {token}"},
                open_timeout=None,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                max_size=_MAX_MESSAGE,
                **options,
            )
        except InvalidStatus as refusal:
            raise _refused(refusal) from None
        except InvalidURI as problem:
            raise Lost(_ABNORMAL, str(problem), retry=False) from None
        except (OSError, EOFError, InvalidHandshake) as problem:
            raise Lost(_ABNORMAL, f"cannot connect: {problem}", retry=True) from None
        try:
            return cls(socket, dict(json.loads(await socket.recv())["data"]))
        except ConnectionClosed as closed:
            raise _lost(closed) from None
        except (ValueError, LookupError, TypeError):
            await socket.close()
            error = RealtimeError("UNAVAILABLE", f"There is another server at {url}")
            raise Lost(_ABNORMAL, error.message, error=error, retry=True) from None
        except BaseException:
            await socket.close()
            raise

    async def __aenter__(self) -> Connection:
        self.start(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._socket.close()

    def start(self, work: Any) -> None:
        """Have a coroutine run as long as the connection stands."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def post(self, command: Command) -> None:
        """Send a command, unless the server would end the connection for its size."""
        limit = self.welcome.get("max_frame_size")
        if isinstance(limit, int) and command.size > limit:
            message = f"The command has {command.size} bytes, and may have {limit}"
            refuse(command.answer, RealtimeError("TOO_LARGE", message))
        else:
            self.send(command.text)

    def send(self, text: str) -> None:
        """Send a message, in order."""
        self._unsent.append(text)
        self._some.set()

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._unsent:
                try:
                    await self._socket.send(self._unsent.popleft())
                except ConnectionClosed:  # reading tells of it
                    return

    async def read(self, take: Callable[[dict[str, Any]], Awaitable[None]]) -> Lost:
        """Give messages to `take`; answer why there are no more."""
        while True:
            try:
                text = await self._socket.recv()
            except ConnectionClosed as closed:
                return _lost(closed)
            try:
                await take(json.loads(text))
            except Exception:  # another server's, or a newer one's
                _log.exception("A message of the server was not understood")


def _lost(closed: ConnectionClosed) -> Lost:
    frame = closed.rcvd or closed.sent
    code = frame.code if frame is not None else _ABNORMAL
    reason = frame.reason if frame is not None else "the connection was lost"
    return Lost(code, reason, retry=not is_final(code))


def _refused(refusal: InvalidStatus) -> Lost:
    """Why the server does not take the connection, by its answer to the handshake."""
    response = refusal.response
    try:
        error = RealtimeError.read(json.loads(response.body or b"")["error"])
    except (ValueError, LookupError, TypeError):
        status = response.status_code
        error = RealtimeError("UNAVAILABLE", f"The server answered with status {status}")
    status = response.status_code
    after = response.headers.get("Retry-After", "")
    return Lost(
        _ABNORMAL,
        error.message,
        error=error,
        retry=status >= 500 or status in (408, 425, 429),
        retry_after=float(after) if after.isdigit() else 0.0,
    )
