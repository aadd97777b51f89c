"""Starts twistd with a probe in the reactor, which notes the longest pauses.

    python -m bench.probe FILE [twistd's arguments]

The probe asks to be called every 2 ms. Each quarter of a second it writes a line of JSON: when
that was (monotonic clock), by how much the latest call was late, how much of that the process
spent working (the rest it was waiting for a processor), and the longest garbage collection.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any, TextIO

PERIOD = 0.002
REPORT = 0.25


class Probe:
    """Measures by how much calls are late. All times are seconds; milliseconds in the file."""

    def __init__(self, reactor: Any, file: TextIO) -> None:
        self._reactor = reactor
        self._file = file
        self._collecting = 0.0
        self._forget()
        gc.callbacks.append(self._collection)
        self._started = self._last = time.monotonic()
        self._last_cpu = time.process_time()
        reactor.callLater(PERIOD, self._tick)

    def _forget(self) -> None:
        self._late = self._late_cpu = self._gc = 0.0
        self._gc_generation = -1

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._collecting = now
        elif now - self._collecting > self._gc:
            self._gc = now - self._collecting
            self._gc_generation = info["generation"]

    def _tick(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        late = now - self._last - PERIOD
        if late > self._late:
            self._late = late
            self._late_cpu = cpu - self._last_cpu
        if now - self._started >= REPORT:
            line = {
                "at": now,
                "late_ms": round(self._late * 1e3, 2),
                "late_cpu_ms": round(self._late_cpu * 1e3, 2),
                "gc_ms": round(self._gc * 1e3, 2),
                "gc_generation": self._gc_generation,
            }
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            self._forget()
            self._started = now
        self._last, self._last_cpu = time.monotonic(), time.process_time()
        self._reactor.callLater(PERIOD, self._tick)


def main() -> None:
    """Take the file's name off the arguments; the rest is twistd's."""
    from twisted.internet import reactor
    from twisted.scripts import twistd

    file = open(sys.argv.pop(1), "w")  # noqa: SIM115  (open as long as the process)
    reactor.callWhenRunning(Probe, reactor, file)
    sys.argv[0] = "twistd"
    twistd.run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
