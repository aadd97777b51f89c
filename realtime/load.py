"""A small load generator: one topic, so many subscribers, so many publications a second.

It is one process of Python, and measures itself where it is slower than the server; `bench/` of
the source has the generator in C by which speed is judged.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

from realtime.client import RealtimeClient, RealtimeError

# Connections opened at the same time.
_AT_ONCE = 50
# Seconds that the last deliveries may take.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to do: a rate a second, for so many seconds, with payloads of so many bytes."""

    connections: int
    rate: float
    seconds: float
    size: int
    topic: str


async def put_load(url: str, token: str, load: Load) -> dict[str, Any]:
    """Put a load on a server; answer what came of it, in the order to show it."""
    latencies: list[float] = []
    expected, all_here = -1, asyncio.Event()
    reconnects = 0

    def arrived(data: dict[str, Any]) -> None:
        latencies.append(time.monotonic() - data["payload"]["at"])
        if len(latencies) == expected:
            all_here.set()

    def lost(_: object) -> None:
        nonlocal reconnects
        reconnects += 1

    clients = [RealtimeClient(url, token) for _ in range(load.connections + 1)]
    publisher = clients[0]
    room = asyncio.Semaphore(_AT_ONCE)

    async def open_one(client: RealtimeClient) -> None:
        async with room:
            client.on("reconnecting", lost)
            await client.connect()
            if client is not publisher:
                client.on("Broadcast", arrived)
                await client.subscribe(load.topic)

    began = time.monotonic()
    try:
        await asyncio.gather(*map(open_one, clients))
        opened = time.monotonic() - began
        sent, errors = await _publish(publisher, load)
        spent = time.monotonic() - began - opened
        expected = sent * load.connections
        if len(latencies) < expected:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await all_here.wait()
    finally:
        await asyncio.gather(*(client.disconnect() for client in clients))
    latencies.sort()
    return {
        "connections": load.connections,
        "connections a second": round(len(clients) / opened, 1),
        "published": sent,
        "deliveries": len(latencies),
        "deliveries a second": round(len(latencies) / spent, 1),
        "latency p50, ms": _percentile(latencies, 0.5),
        "latency p95, ms": _percentile(latencies, 0.95),
        "latency p99, ms": _percentile(latencies, 0.99),
        "latency max, ms": _percentile(latencies, 1.0),
        "lost": expected - len(latencies),
        "errors": errors,
        "reconnects": reconnects,
    }


async def _publish(client: RealtimeClient, load: Load) -> tuple[int, int]:
    """Publish at the rate; answer how many were taken and refused."""
    text = "x" * max(0, load.size - 40)
    under_way: set[asyncio.Task[Any]] = set()
    taken = refused = 0

    async def publish_one() -> None:
        nonlocal taken, refused
        try:
            await client.broadcast(load.topic, {"at": time.monotonic(), "text": text})
            taken += 1
        except RealtimeError:
            refused += 1

    began = time.monotonic()
    for number in range(max(1, round(load.rate * load.seconds))):
        await asyncio.sleep(began + number / load.rate - time.monotonic())
        task = asyncio.create_task(publish_one())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    while under_way:
        await asyncio.wait(under_way)
    return taken, refused


def _percentile(values: list[float], share: float) -> float | None:
    """The value below which such a share of sorted values is, in milliseconds."""
    if not values:
        return None
    return round(1000 * values[max(0, ceil(share * len(values)) - 1)], 2)
