"""A lean turn for the epoll reactor, which is most of what a small message would cost.

It touches private names of Twisted; where these are not as expected, the reactor keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from select import EPOLLIN
from time import monotonic
from typing import Any

from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger

_log = Logger()

# Bytes taken from a socket at once, and where others have to wait, as they may be thousands of
# Pings; sockets served in one turn of the reactor, at most so many, for about so many seconds.
_READ_SIZE, _SMALL_READ = 16 * 1024, 2048
_MAX_EVENTS = 512
_MAX_SECONDS = 0.005
_EXPECTED_OF_REACTOR = ("_poller", "_selectables", "_doReadOrWrite", "_disconnectSelectable")


class LeanTurns:
    """The epoll reactor's turn, without a logging context for every event.

    What `call_soon` is given runs at the end of the turn that asked for it, after all its
    reads: as `callLater(0)` would, less the timer.
    """

    def __init__(self, reactor: EPollReactor) -> None:
        # Any: half of what is used here is not declared.
        self._reactor: Any = reactor
        self._soon: list[Callable[[], None]] = []
        self._left: dict[int, int] = {}

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` at the end of this turn of the reactor."""
        self._soon.append(function)

    def __call__(self, timeout: float | None) -> None:
        """Poll once, serve what is ready, then do what was asked for soon."""
        reactor, selectables = self._reactor, self._reactor._selectables
        if self._soon:
            timeout = 0
        elif timeout is None:
            timeout = -1
        try:
            ready = reactor._poller.poll(timeout, _MAX_EVENTS)
        except InterruptedError:
            return
        left, self._left = self._left, {}
        if left:
            ready.sort(key=lambda entry: left.get(entry[0], _MAX_EVENTS))
        size = _SMALL_READ if left else _READ_SIZE
        until = monotonic() + _MAX_SECONDS
        for place, (number, event) in enumerate(ready):
            # epoll tells again of those that are left, which then come first, in the same order:
            # busy sockets must not keep the others waiting for ever.
            if monotonic() > until:
                self._left = {entry[0]: rank for rank, entry in enumerate(ready[place:])}
                break
            selectable = selectables.get(number)
            if selectable is None:
                continue
            try:
                if event == EPOLLIN and type(selectable) is tcp.Server:
                    try:
                        data = selectable.socket.recv(size)
                    except OSError as error:
                        if not isinstance(error, BlockingIOError):
                            reactor._disconnectSelectable(selectable, CONNECTION_LOST, True)
                        continue
                    if data:
                        selectable.protocol.dataReceived(data)
                    else:
                        reactor._disconnectSelectable(selectable, CONNECTION_DONE, True)
                else:
                    reactor._doReadOrWrite(selectable, number, event)
            except Exception as error:
                _log.failure("Serving an event failed")
                reactor._disconnectSelectable(selectable, error, False)
        if self._soon:
            soon, self._soon = self._soon, []
            for function in soon:
                try:
                    function()
                except Exception:
                    _log.failure("A call at the turn's end failed")


def call_soon_of(reactor: Any, allow: bool = True) -> Callable[[Callable[[], None]], object]:
    """How to run something at the end of a turn of `reactor`: leanly where that is possible."""
    if (
        allow
        and type(reactor) is EPollReactor
        and "doIteration" not in vars(reactor)
        and all(hasattr(reactor, name) for name in _EXPECTED_OF_REACTOR)
    ):
        turns = LeanTurns(reactor)
        vars(reactor)["doIteration"] = turns
        return turns.call_soon
    return partial(reactor.callLater, 0)
