"""The attackers' side of connections: any bytes out, and a reader that expects anything."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from tests.support.websocket import CLOSE, TEXT, frame, request_head

# Seconds.
PATIENCE = 30.0
_END_OF_HEAD = b"\r\n\r\n"


ANYTHING = object()


class Line:
    """One TCP connection. What became of it is told in a word: a status, a close code, `reset`."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        self._data = b""
        self._end = ""
        # Told to who writes, a reset is not told again to who reads.
        self._was_reset = False

    def send(self, data: bytes) -> bool:
        """Send; answer whether the server still took it."""
        try:
            self._socket.sendall(data)
        except OSError:
            self._was_reset = True
            return False
        return True

    def finish_writing(self) -> None:
        """Close our half."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()

    def _more(self, until: float) -> bool:
        """Read; answer whether there was something. `_end` says why there was not."""
        if self._end:
            return False
        try:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            return False
        except OSError:
            data, self._end = b"", "reset"
        else:
            if not data:
                self._end = "reset" if self._was_reset else "closed"
        self._data += data
        return bool(data)

    # -- HTTP --------------------------------------------------------------------------------

    def status(self, seconds: float = PATIENCE) -> str:
        """Take one answer of HTTP; its status, or what the connection's end was without one."""
        return self.answer(seconds)[0]

    def answer(self, seconds: float = PATIENCE) -> tuple[str, bytes]:
        """Take one answer of HTTP: its status and its body."""
        until = time.monotonic() + seconds
        while _END_OF_HEAD not in self._data:
            if not self._more(until):
                return self._end or "silence", b""
        head, _, self._data = self._data.partition(_END_OF_HEAD)
        size = 0
        for line in head.lower().split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                size = int(value)
        while len(self._data) < size and self._more(until):
            pass
        body, self._data = self._data[:size], self._data[size:]
        return head.split(b" ")[1].decode(), body

    def until(self, *marks: bytes) -> bytes:
        """Wait for some bytes, one after the other; answer all that has come, and keep it."""
        until = time.monotonic() + PATIENCE
        start = 0
        for mark in marks:
            while (found := self._data.find(mark, start)) < 0:
                if not self._more(until):
                    raise AssertionError(f"{self._end or 'silence'} after {self._data!r}")
            start = found + len(mark)
        return self._data

    def rest(self, seconds: float = PATIENCE) -> bytes:
        """All that comes until the connection ends, or for so long."""
        until = time.monotonic() + seconds
        while self._more(until):
            pass
        data, self._data = self._data, b""
        return data

    # -- frames ------------------------------------------------------------------------------

    def upgrade(self, token: str, **headers: str | None) -> Line:
        """Become a WebSocket, and take the welcome."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(request_head("/ws", {"Authorization": f"Bearer {token}", **named}))
        status = self.status()
        if status != "101":
            raise AssertionError(f"no WebSocket: {status}")
        self._frame(time.monotonic() + PATIENCE)
        return self

    def command(self, type: str, id: Any = None, **data: Any) -> bool:
        """Send a command."""
        return self.send(frame({"type": type, "data": data, "id": id}))

    def reply(self, id: Any, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait for what answers a command; a code instead is an error."""
        until = time.monotonic() + seconds
        while (found := self._frame(until)) is not None:
            opcode, payload = found
            if opcode == CLOSE:
                raise AssertionError(f"closed with {payload[:2].hex()}")
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                if id is ANYTHING or message.get("id") == id:
                    return message
        raise AssertionError(f"no reply, but {self._end or 'silence'}")

    def ending(self, seconds: float = PATIENCE) -> str:
        """The close code, or `reset`, `closed` without a code, `open` after so many seconds."""
        until = time.monotonic() + seconds
        while (found := self._frame(until)) is not None:
            opcode, payload = found
            if opcode == CLOSE:
                self.send(frame(payload[:2], CLOSE))
                return str(struct.unpack("!H", payload[:2])[0]) if payload else "1005"
        return self._end or "open"

    def _frame(self, until: float) -> tuple[int, bytes] | None:
        """The next frame."""
        while True:
            data = self._data
            if len(data) >= 2:
                length, start = data[1], 2
                if length > 125:
                    start = 4 if length == 126 else 10
                    length = int.from_bytes(data[2:start], "big") if len(data) >= start else 1 << 62
                if len(data) >= start + length:
                    self._data = data[start + length :]
                    return data[0] & 0x0F, data[start : start + length]
            if not self._more(until):
                return None
