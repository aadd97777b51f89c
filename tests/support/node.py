"""A node of real parts, assembled as `realtime.service` does it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from twisted.internet.task import Clock

from realtime.broker_memory import MemoryBroker
from realtime.hub import Hub
from realtime.interfaces import Deadline, Events, IBroker
from realtime.metrics import Counters
from realtime.model import Namespace
from realtime.node import Node
from realtime.presence_memory import MemoryPresence
from realtime.rules import Rules
from realtime.wheel import TimerWheel


def make_node(
    clock: Clock,
    *,
    broker: IBroker | None = None,
    call_soon: Callable[[Callable[[], None]], object] | None = None,
    max_connections: int = 100,
    topics: Sequence[Namespace] = (),
    strict: bool = False,
    grace: int = 5,
    events: Events | None = None,
    kind: type[Node] = Node,
) -> Node:
    """Make a node, whose hub and counters are its own, on a clock that the test moves."""
    counters = Counters()
    hub: Hub[Any] = Hub(counters, call_soon or partial(clock.callLater, 0))
    deadlines: TimerWheel[Deadline] = TimerWheel(int(clock.seconds()))
    return kind(
        broker or MemoryBroker(clock.seconds),
        MemoryPresence(deadlines, clock.seconds, grace=grace),
        hub,
        Rules(topics, strict),
        counters,
        clock,
        deadlines,
        max_connections=max_connections,
        events=events,
    )


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine answers that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")
