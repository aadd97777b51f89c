"""Drives the Python client by JSON lines on standard input; see `cases.py` for what they say."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.client import RealtimeClient, RealtimeError

EVENTS = (
    *("Broadcast", "DirectMessage", "Status", "Join", "Leave", "Update"),
    *("connected", "disconnected", "reconnecting", "gap"),
)
OPTIONS = {"stable": "stable_after"}


def tell(message: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Driver:
    """One client, and what is asked of it."""

    client: RealtimeClient

    async def obey(self, command: dict[str, Any]) -> None:
        """Do what a line says, and tell what came of it."""
        number, name = command.pop("n"), command.pop("do")
        try:
            does: Callable[..., Awaitable[Any]] = getattr(self, f"do_{name}")
            tell({"n": number, "ok": await does(**command)})
        except RealtimeError as error:
            shown = {"code": error.code, "message": error.message, "details": error.details}
            tell({"n": number, "error": shown})
        except Exception as error:
            tell({"n": number, "error": {"code": "DRIVER", "message": repr(error), "details": {}}})

    async def do_new(
        self,
        url: str,
        token: str | None = None,
        tokens: list[str] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Make the client."""
        left = list(tokens or ())

        def get_token() -> str:
            tell({"event": "getToken", "data": None})
            return left.pop(0) if len(left) > 1 else left[0]

        given = {OPTIONS.get(name, name): value for name, value in (options or {}).items()}
        given.pop("transport", None)
        source = get_token if tokens else None
        self.client = RealtimeClient(url, token, get_token=source, **given)
        for name in EVENTS:
            self.client.on(name, lambda data, name=name: tell({"event": name, "data": data}))
        self.client.on("error", self._error)

    @staticmethod
    def _error(error: RealtimeError) -> None:
        data = {"code": error.code, "message": error.message, "details": error.details}
        tell({"event": "error", "data": data})

    async def do_connect(self) -> None:
        await self.client.connect()

    async def do_disconnect(self) -> None:
        await self.client.disconnect()

    async def do_send(self, message: dict[str, Any]) -> Any:
        return await self.client.send(message["type"], message.get("data"))

    async def do_subscribe(self, topics: list[str]) -> Any:
        return await self.client.subscribe(topics)

    async def do_unsubscribe(self, topics: list[str]) -> None:
        await self.client.unsubscribe(topics)

    async def do_broadcast(self, topic: str, payload: Any, echo: bool = True) -> Any:
        return await self.client.broadcast(topic, payload, echo=echo)

    async def do_direct(self, user: str, payload: Any) -> Any:
        return await self.client.send_direct_message(user, payload)

    async def do_history(self, topic: str, **options: Any) -> Any:
        return await self.client.history(topic, **options)

    async def do_presence(self, topic: str) -> Any:
        return await self.client.presence(topic)

    async def do_ping(self) -> float:
        return await self.client.ping()

    async def do_state(self) -> dict[str, Any]:
        """What the client says of itself; `timers` are tasks beside the driver's own."""
        own = {asyncio.current_task(), *self.tasks}
        return {
            "connected": self.client.connected,
            "pending": self.client.pending,
            "timers": len(asyncio.all_tasks() - own),
        }

    async def do_flood(self, topic: str, count: int, window: int) -> None:
        """Publish numbers, so many at a time without an answer."""
        room = asyncio.Semaphore(window)

        async def publish(number: int) -> None:
            try:
                await self.client.broadcast(topic, {"i": number})
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await room.acquire()
                group.create_task(publish(number))

    async def run(self) -> None:
        """Obey until standard input ends."""
        lines = asyncio.StreamReader(limit=1 << 20)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        self.tasks: set[asyncio.Task[Any]] = {asyncio.current_task()}  # type: ignore[arg-type]
        while line := await lines.readline():
            task = asyncio.create_task(self.obey(json.loads(line)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


if __name__ == "__main__":
    asyncio.run(Driver().run())
