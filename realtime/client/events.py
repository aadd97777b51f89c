"""Handlers, and their calling one after the other."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[Any], Awaitable[object] | object]

_log = logging.getLogger("realtime.client")


class Events:
    """Calls handlers in the order of events, coroutines to their end, in a task of its own.

    At most `limit` events wait; then `put` does. A handler that fails harms no other.
    """

    def __init__(self, limit: int) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(limit)
        self._task: asyncio.Task[None] | None = None

    def on(self, name: str, handler: Handler) -> Callable[[], None]:
        """Add a handler; call what this gives back to remove it."""
        handlers = self._handlers.setdefault(name, [])
        if handler not in handlers:
            handlers.append(handler)
        return lambda: self.off(name, handler)

    def off(self, name: str, handler: Handler | None = None) -> None:
        """Remove a handler, or all of a name."""
        handlers = self._handlers.get(name, [])
        self._handlers[name] = [each for each in handlers if handler not in (None, each)]

    def has(self, name: str) -> bool:
        """Whether anybody listens."""
        return bool(self._handlers.get(name))

    async def put(self, name: str, data: Any) -> None:
        """Have the handlers called, when their turn comes."""
        if not self.has(name):
            return
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._call_all())
        await self._queue.put((name, data))

    async def drain(self, seconds: float, *last: tuple[str, Any]) -> None:
        """Wait for the handlers to have had what waits and these, so long at most, and end."""
        if self._task is asyncio.current_task():
            # A handler disconnects: it goes on to its end, and nothing follows it.
            self._task, self._queue = None, asyncio.Queue(self._queue.maxsize)
            return
        try:
            async with asyncio.timeout(seconds):
                for name, data in last:
                    await self.put(name, data)
                await self._queue.join()
        except TimeoutError:
            _log.warning("handlers did not come to an end in time")
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _call_all(self) -> None:
        queue = self._queue
        while self._queue is queue:
            name, data = await queue.get()
            for handler in list(self._handlers.get(name, ())):
                try:
                    result = handler(data)
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    _log.exception("A handler of %s failed", name)
            queue.task_done()
