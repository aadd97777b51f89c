"""Commands that wait to be sent or answered."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import Any

from realtime.client.errors import RealtimeError

# What happens once though it is sent again, for it has a key.
KEYED = frozenset({"Broadcast", "DirectMessage"})


@dataclass(eq=False, slots=True)
class Command:
    """A command and who waits for its answer."""

    id: str
    type: str
    data: dict[str, Any]
    answer: asyncio.Future[dict[str, Any]]
    # As it is sent, and its bytes.
    text: str = ""
    size: int = 0
    timer: asyncio.TimerHandle | None = None

    def encode(self) -> None:
        """Make the text. Raises `ValueError` or `TypeError` for what is no JSON."""
        self.text = json.dumps(
            {"type": self.type, "data": self.data, "id": self.id},
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
        )
        self.size = len(self.text.encode("utf-8"))


class Outbox:
    """Commands in the order of their sending, until each is answered. At most `limit` of them."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._commands: dict[str, Command] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._commands)

    def all(self) -> list[Command]:
        """Those without an answer."""
        return list(self._commands.values())

    def add(self, type: str, data: dict[str, Any]) -> Command:
        """A new command, which has its answer in time, or is refused with TIMEOUT.

        Raises `RealtimeError` QUEUE_FULL, and `ValueError` or `TypeError` for what is no JSON.
        """
        if len(self._commands) >= self._limit:
            raise RealtimeError("QUEUE_FULL", f"{self._limit} commands wait already")
        loop = asyncio.get_running_loop()
        if type in KEYED and data.get("key") is None:
            data = data | {"key": secrets.token_urlsafe(16)}
        self._last += 1
        command = Command(str(self._last), type, data, loop.create_future())
        command.encode()
        command.timer = loop.call_later(self._seconds, self._too_late, command)
        command.answer.add_done_callback(lambda _: self._finish(command))
        self._commands[command.id] = command
        return command

    def take(self, id: Any) -> Command | None:
        """The command that an answer is for, if somebody waits for it."""
        return self._commands.get(id) if isinstance(id, str) else None

    def subscribes(self, topic: Any) -> bool:
        """Whether a command without an answer is to subscribe to a topic."""
        return any(
            command.type == "Subscribe" and topic in command.data["topics"]
            for command in self._commands.values()
        )

    def fail_all(self, error: RealtimeError) -> None:
        """Refuse all."""
        for command in self.all():
            refuse(command.answer, error)

    def _too_late(self, command: Command) -> None:
        message = f"No answer to {command.type} came within {self._seconds:g} seconds"
        refuse(command.answer, RealtimeError("TIMEOUT", message))

    def _finish(self, command: Command) -> None:
        if command.timer is not None:
            command.timer.cancel()
        self._commands.pop(command.id, None)


def refuse(answer: asyncio.Future[Any], error: RealtimeError) -> None:
    """Settle an answer by an error, which nobody has to look at."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()
