"""A client of ours in a process of its own, driven by JSON lines."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.server import environment

# Seconds for whatever is waited for.
PATIENCE = 30.0


class Refused(Exception):
    """The client has refused something."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.details: dict[str, Any] = error["details"]


class Driver:
    """What `cases.py` tells a client to do, and what it says."""

    def __init__(
        self, case: SynchronousTestCase, command: Sequence[str], environ: dict[str, str]
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment(**environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[tuple[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = Condition()
        self._last = 0
        self._ended = False
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        case.addCleanup(self.stop)

    def stop(self) -> None:
        """End it; a driver ends when its standard input does."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(10)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._changed:
                if "event" in message:
                    self.events.append((message["event"], message["data"]))
                else:
                    self._answers[message["n"]] = message
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def begin(self, do: str, **arguments: Any) -> int:
        """Ask for something; answer its number."""
        self._last += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"n": self._last, "do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._last

    def result(self, number: int, seconds: float = PATIENCE) -> Any:
        """What came of it; raises `Refused`."""
        self.wait(lambda: number in self._answers, seconds)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer.get("ok")

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask for something, and wait for what comes of it."""
        return self.result(self.begin(do, **arguments))

    def wait(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until a condition holds; answer what it answers."""
        end = time.monotonic() + seconds
        with self._changed:
            while not (found := condition()):
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(f"waited in vain; the last events: {self.events[-10:]}")
                self._changed.wait(left)
        return found

    def until(self, event: str, count: int = 1, seconds: float = PATIENCE) -> Any:
        """Wait for so many events of a name; answer the data of the last of these."""
        return (
            self.wait(lambda: len(self.of(event)) >= count, seconds) and self.of(event)[count - 1]
        )

    def of(self, event: str) -> list[Any]:
        """The data of all events of a name."""
        return [data for name, data in self.events if name == event]

    def payloads(self) -> list[Any]:
        """The payloads of the publications so far."""
        return [data["payload"] for data in self.of("Broadcast")]

    def until_payloads(self, count: int, seconds: float = PATIENCE) -> list[Any]:
        """Wait for so many publications; answer their payloads."""
        self.wait(lambda: len(self.of("Broadcast")) >= count, seconds)
        return self.payloads()
