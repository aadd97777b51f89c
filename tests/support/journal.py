"""Brokers with a journal of durable topics in a temporary directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from realtime.broker_memory import MemoryBroker
from realtime.history_sqlite import Journal
from realtime.model import Namespace
from tests.support.identity import make_state_dir

DURABLE = Namespace(">", history_size=1000, durable=True)


def journal_path(case: TestCase) -> str:
    """Make the path of a journal in a directory that goes with the test."""
    return os.path.join(make_state_dir(case), "history.sqlite3")


async def open_broker(
    case: TestCase,
    path: str,
    namespace_of: Callable[[str], Namespace | None] = lambda topic: DURABLE,
    **options: Any,
) -> MemoryBroker:
    """Open a broker that has its journal at `path`; stopped after the test."""
    broker = MemoryBroker(journal=Journal(path, reactor), **options)
    await broker.open(namespace_of)
    case.addCleanup(broker.stop)
    return broker
