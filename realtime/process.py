"""What the process asks of the system: signals, and how many files it may open."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger()


def take_signals(reactor: Any, hurry: Callable[[], object], reload: Callable[[], object]) -> None:
    """Stop on SIGTERM and SIGINT with exit status 0; in a hurry on SIGINT, and on a second one.

    Reload on SIGHUP.
    """

    def stop(number: int) -> None:
        if stopping or number == signal.SIGINT:
            hurry()
        if not stopping:
            stopping.append(number)
            reactor.stop()

    def handle(number: int, frame: object) -> None:
        reactor.callFromThread(stop, number)

    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))


def allow_files(wanted: int) -> None:
    """Raise the limit on open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < wanted:
        _log.warn(
            "Only {limit} files may be open, which is fewer than --max-connections needs: {wanted} "
            "(ulimit -n, LimitNOFILE)",
            limit=limit,
            wanted=wanted,
        )
