"""The table of workloads, and what wsload is told for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bench.servers import Dialect, Server

PAYLOAD = 128


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work. `connections` receive; `window` publications are unanswered at once."""

    name: str
    title: str
    kind: Literal["fan", "echo", "direct", "ping", "idle"]
    connections: int
    topics: int = 1
    window: int = 1
    # Whether `window` publications go out together, and the next when all have arrived.
    burst: bool = False
    # Whether memory is measured, which takes a process that has done nothing else.
    fresh: bool = False

    def arguments(self, dialect: Dialect) -> list[str] | None:
        """What wsload is told, or None where the server has no means for it."""
        words = list(dialect.common)
        topics = str(self.topics)
        if self.kind == "fan":
            words += ["--mode", "fan", *dialect.join, *dialect.publish, "--topics", topics]
            words += ["--burst" if self.burst else "--window", str(self.window)]
            if dialect.publisher_per_topic:
                words += ["--pubs", topics]
        elif self.kind == "idle":
            words += ["--mode", "idle", *dialect.join]
        else:
            special = {"echo": dialect.echo, "direct": dialect.direct, "ping": dialect.ping}
            if not special[self.kind]:
                return None
            words += ["--mode", "echo", *special[self.kind]]
            if self.kind == "direct":
                words.append("--partner")
        return [*words, "--subs", str(self.connections), "--size", str(PAYLOAD)]

    def scaled(self, server: Server, quick: bool) -> Workload:
        """The same with less to do: for a smoke run, or for a server that is slow."""
        connections = self.connections
        if quick:
            connections = max(self.topics, min(connections, 100))
        elif server.slow and self.fresh:
            connections = min(connections, 1000)
        return replace(self, connections=connections)


# The idle one first: it wants a fresh process.
WORKLOADS: tuple[Workload, ...] = (
    Workload("idle", "connect; idle", "idle", 5000, fresh=True),
    Workload("fan1", "fan-out 1 to 1000, one outstanding", "fan", 1000),
    Workload("fan8", "fan-out 1 to 1000, 8 outstanding", "fan", 1000, window=8),
    Workload("bursts", "fan-out 1 to 1000, bursts of 16", "fan", 1000, window=16, burst=True),
    Workload("topics", "100 topics x 10", "fan", 1000, topics=100),
    Workload("echo", "one in, one out (200 connections)", "echo", 200),
    Workload("direct", "direct messages (200 connections)", "direct", 200),
    Workload("ping", "Ping and Pong (200 connections)", "ping", 200),
)

BY_NAME = {workload.name: workload for workload in WORKLOADS}
