"""A TCP proxy between a client and servers, which does what networks do."""

from __future__ import annotations

import asyncio
import socket
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

# How a connection begins that a network which knows no WebSockets lets not through.
_WEBSOCKET = b"GET /ws"


class Proxy:
    """Passes connections on to `target`, a port of this machine; None refuses them.

    `bytes_per_second` throttles what goes to the client, `deaf` keeps it all back, and
    `no_websockets` ends connections that are to become some.
    """

    def __init__(self, case: SynchronousTestCase, target: int | None) -> None:
        self.target = target
        self.bytes_per_second: float | None = None
        self.deaf = False
        self.no_websockets = False
        self.taken = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        case.addCleanup(self.stop)

    @property
    def ws_url(self) -> str:
        """Where WebSockets connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def cut(self) -> int:
        """Break all connections now; answer how many there were."""

        async def cut() -> int:
            writers = list(self._writers)
            for writer in writers:
                writer.transport.abort()
            return len(writers) // 2

        return asyncio.run_coroutine_threadsafe(cut(), self._loop).result(10)

    def stop(self) -> None:
        """End."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._writers.add(writer)
        try:
            first = await reader.read(65536)
            if self.target is None or (self.no_websockets and first.startswith(_WEBSOCKET)):
                return
            up, down = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(down)
            try:
                down.write(first)
                await asyncio.wait(
                    [
                        asyncio.ensure_future(self._pass_on(reader, down, to_client=False)),
                        asyncio.ensure_future(self._pass_on(up, writer, to_client=True)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                self._writers.discard(down)
                down.transport.abort()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            # What was passed on is still to arrive.
            writer.close()

    async def _pass_on(self, reader: Any, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        try:
            while data := await reader.read(4096 if self.bytes_per_second else 65536):
                while to_client and self.deaf:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                if to_client and self.bytes_per_second:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
