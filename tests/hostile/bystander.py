"""Somebody who only wants to be served: `python -m tests.hostile.bystander WS_URL HEALTH_URL`.

Publishes to itself, again and again, and asks for the server's health every now and then. Each line
on standard input is answered by one of JSON: what was seen since the last. It is a process of its
own, so that the attackers' work does not count as the server's.
"""

from __future__ import annotations

import json
import sys
import time
from http.client import HTTPException
from threading import Lock, Thread
from typing import Any
from urllib.request import urlopen

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

TOPIC = "bystander.topic"
# Seconds between two publications, between two questions for health, and until all is lost.
PAUSE = 0.005
HEALTH_PAUSE = 0.2
PATIENCE = 30.0


class Bystander:
    """One connection, and what it has seen."""

    def __init__(self, url: str, health_url: str) -> None:
        self._url = url
        self._health_url = health_url
        self._lock = Lock()
        self._latencies: list[float] = []
        self._health: list[float] = []
        self._problems: list[str] = []

    def publish(self) -> None:
        """Publish and listen for ever; connect again where that fails."""
        while True:
            try:
                with connect(self._url, compression=None, open_timeout=PATIENCE) as socket:
                    self._publish_on(socket)
            except (OSError, WebSocketException) as error:
                self._note(f"connection: {error!r}")
                time.sleep(0.2)

    def _publish_on(self, socket: ClientConnection) -> None:
        socket.send(json.dumps({"type": "Subscribe", "data": {"topics": [TOPIC]}}))
        number = 0
        while True:
            number += 1
            data = {"topic": TOPIC, "payload": number}
            started = time.perf_counter()
            socket.send(json.dumps({"type": "Broadcast", "data": data}))
            while True:
                message = json.loads(socket.recv(PATIENCE))
                if message["type"] == "Broadcast":
                    break
                if message["type"] == "Error":
                    self._note(f"error: {message['data']}")
            took = time.perf_counter() - started
            if message["data"]["payload"] != number:
                self._note("a message was lost")
            with self._lock:
                self._latencies.append(took)
            time.sleep(PAUSE)

    def watch_health(self) -> None:
        """Ask for the server's health for ever."""
        while True:
            started = time.perf_counter()
            try:
                with urlopen(self._health_url, timeout=PATIENCE) as answer:
                    answer.read()
            except (OSError, HTTPException) as error:
                self._note(f"health: {error}")
            with self._lock:
                self._health.append(time.perf_counter() - started)
            time.sleep(HEALTH_PAUSE)

    def _note(self, problem: str) -> None:
        with self._lock:
            self._problems.append(problem)

    def report(self) -> dict[str, Any]:
        """What was seen since the last time: milliseconds, and what went wrong."""
        with self._lock:
            latencies, self._latencies = sorted(self._latencies), []
            health, self._health = self._health, []
            problems, self._problems = self._problems, []
        return {
            "count": len(latencies),
            "p50": 1000 * _part(latencies, 0.5),
            "p99": 1000 * _part(latencies, 0.99),
            "max": 1000 * max(latencies, default=0.0),
            "health": 1000 * max(health, default=0.0),
            "problems": problems,
        }


def _part(values: list[float], part: float) -> float:
    """The value below which this part of some sorted ones lies."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def main() -> None:
    """Bystand until standard input ends."""
    bystander = Bystander(*sys.argv[1:3])
    for work in (bystander.publish, bystander.watch_health):
        Thread(target=work, daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(bystander.report()), flush=True)


if __name__ == "__main__":
    main()
