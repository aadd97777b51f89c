"""A client whose commands may take time, as other nodes have a part in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from realtime.envelope import Command
from realtime.peer import Client


class WaitingClient(Client):
    """Obeys commands in the order in which they come.

    While one takes time nothing more is read; what has been read already waits. What has not
    been obeyed when the connection ends is not.
    """

    __slots__ = ("_open", "_waiting")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting: deque[bytes] | None = None
        self._open = 0

    def receive(self, message: bytes) -> None:
        """Obey one command when its turn has come."""
        if self._waiting is not None:
            self._waiting.append(message)
        else:
            super().receive(message)

    def on_deadline(self, tick: int) -> None:
        """See `Client.on_deadline`; a client that is not read is not silent."""
        if self._waiting is not None:
            self.heard = tick
        super().on_deadline(tick)

    def run(self, obeying: Coroutine[Any, Any, None], command: Command) -> None:
        """Obey a command, and nothing more until that is done."""
        self.wait(Deferred.fromCoroutine(obeying).addErrback(self.failed, command))

    def wait(self, obeyed: Deferred[Any]) -> None:
        """Obey nothing more until `obeyed`, which does not fail, has fired."""
        if obeyed.called:
            return
        if self._waiting is None:
            self._waiting = deque()
            self.transport.hold()
        self._open += 1
        obeyed.addCallback(self._go_on)

    def _go_on(self, _: object) -> None:
        """Obey what has waited, up to the next that takes time."""
        self._open -= 1
        if self._open or self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        while waiting and self.is_open:
            super().receive(waiting.popleft())
            if self._waiting is not None:
                self._waiting = waiting
                break
        self.heard = self.node.tick
        self.transport.release()
