"""Draining: a node that is about to stop sends its clients away one after the other."""

from __future__ import annotations

from math import ceil
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from realtime.errors import CloseCode
from realtime.node import Node

# Seconds between closings.
STEP: Final = 0.1


def close_all(node: Node, code: CloseCode) -> Deferred[None]:
    """Take no connection more and close all; fires when the last has ended."""
    node.drain()
    for peer in node.hub.connections():
        peer.close(code)
    return node.when_empty()


class Drain:
    """Closes a node's connections with 1012, spread over `seconds`, so that they come back spread.

    The node is to be draining already, and to take no connection more.
    """

    def __init__(self, node: Node, clock: IReactorTime, seconds: float) -> None:
        self._node = node
        self._clock = clock
        self._end = clock.seconds() + seconds
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock

    def start(self) -> Deferred[None]:
        """Begin; fires when the last connection has been closed, its answer still to come."""
        closed = self._loop.start(STEP)
        return closed.addCallback(lambda _: None)

    def hurry(self) -> None:
        """Close the rest with the next step."""
        self._end = self._clock.seconds()

    def _step(self) -> None:
        # By the clock: steps are left out where the reactor is busy.
        steps_left = max(1, round((self._end - self._clock.seconds()) / STEP))
        peers = self._node.hub.connections()
        share = ceil(len(peers) / steps_left)
        for peer in peers[:share]:
            peer.close(CloseCode.SERVICE_RESTART)
        if share == len(peers):
            self._loop.stop()
