"""`--workers N`: N server processes on one port, kept alive by their parent, which serves nothing.

Each has a listening socket of its own on the shared port, which the parent keeps open, so that
connections wait while a worker is started again.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from realtime.listening import WORKER_FD, listen, listen_unix, remove
from realtime.settings import Settings

_log = Logger()

# Seconds that a worker has to live for its start to have succeeded, and to be forgiven.
SETTLED_SECONDS: Final = 30.0
# Seconds before a worker is started again, the first time and at most.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
# Seconds that workers have to end beyond those that their own options give them.
ENDING_SECONDS: Final = 10.0


def pause(failures: int, chance: float) -> float:
    """Seconds before the next start after some failures in a row; `chance` is 0 to 1."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 30))
    return longest * (0.5 + 0.5 * chance)


class _Worker(ProcessProtocol):
    """One process."""

    def __init__(self, workers: Workers, index: int, now: float) -> None:
        self._workers = workers
        self.index = index
        self.started_at = now

    def signal(self, name: str) -> None:
        """Send it a signal, unless it has ended."""
        try:
            self.transport.signalProcess(name)  # type: ignore[union-attr]
        except ProcessExitedAlready:
            pass

    def processEnded(self, reason: Failure) -> None:
        """It has ended."""
        status: Any = reason.value
        self._workers.ended(self, status.exitCode, status.signal)


class Workers(Service):
    """The parent. `arguments` are those of the command line; `bind` takes the port."""

    def __init__(self, settings: Settings, arguments: Sequence[str], reactor: Any) -> None:
        self._settings = settings
        self._arguments = arguments
        self._reactor = reactor
        self._sockets: list[socket.socket] = []
        self._workers: dict[int, _Worker] = {}
        self._failures = [0] * settings.workers
        self._starts: dict[int, Any] = {}
        self._settled = False
        self._given_up = False
        self._ended: Deferred[None] | None = None
        self.port = settings.port

    def bind(self) -> None:
        """Take the port; clients may connect, and wait. Raises `ConfigurationError`."""
        if self._settings.unix is not None:
            # The kernel shares no unix socket out, but all may accept from one.
            self._sockets = [listen_unix(self._settings.unix)] * self._settings.workers
            return
        if self.port:
            # Others that share the port, as this service started twice, would get a part of the
            # connections, and nobody would be told.
            listen(self._settings.host, self.port).close()
        for _ in range(self._settings.workers):
            taken = listen(self._settings.host, self.port, shared=True)
            self._sockets.append(taken)
            self.port = taken.getsockname()[1]

    def startService(self) -> None:
        """Start all workers."""
        super().startService()  # type: ignore[no-untyped-call]
        for index in range(self._settings.workers):
            self._start(index)

    def stopService(self) -> Deferred[None]:
        """Have all workers drain and end; fires when they have."""
        super().stopService()  # type: ignore[no-untyped-call]
        for start in self._starts.values():
            start.cancel()
        self._ended = Deferred()
        for worker in self._workers.values():
            worker.signal("TERM")
        patience = self._settings.drain_seconds + self._settings.shutdown_timeout + ENDING_SECONDS
        killing = self._reactor.callLater(patience, self._signal_all, "KILL")
        if not self._workers:
            self._ended.callback(None)
        return self._ended.addCallback(self._close, killing)

    def reload(self) -> None:
        """Have all workers read their configuration again."""
        self._signal_all("HUP")

    def hurry(self) -> None:
        """Have all workers end at once, if they are to end."""
        self._signal_all("INT")

    def ended(self, worker: _Worker, status: int | None, signal: int | None) -> None:
        """A worker has ended."""
        index = worker.index
        del self._workers[index]
        if self._ended is not None:
            if self._settings.unix is None:
                # Nobody will accept what the kernel would give to it.
                self._sockets[index].close()
            if not self._workers:
                self._ended.callback(None)
            return
        how = f"with status {status}" if signal is None else f"by signal {signal}"
        lived = self._reactor.seconds() - worker.started_at
        self._settled = self._settled or lived >= SETTLED_SECONDS
        if status == 1 and not self._settled:
            # It has said why, and would say so again.
            self._give_up()
            return
        self._failures[index] = 0 if lived >= SETTLED_SECONDS else self._failures[index] + 1
        seconds = pause(self._failures[index], random.random())  # noqa: S311
        _log.error(
            "Worker {index} has ended {how}; another starts in {seconds:.1f} s",
            index=index,
            how=how,
            seconds=seconds,
        )
        self._starts[index] = self._reactor.callLater(seconds, self._start, index)

    def _start(self, index: int) -> None:
        self._starts.pop(index, None)
        worker = _Worker(self, index, self._reactor.seconds())
        self._workers[index] = worker
        command = (
            *(sys.executable, "-m", "realtime.worker", str(os.getpid())),
            *("--nodaemon", "--pidfile=", "realtime", *self._arguments, "--workers=1"),
        )
        if self._settings.metrics_port:
            command += (f"--metrics-port={self._settings.metrics_port + index}",)
        self._reactor.spawnProcess(
            worker,
            command[0],
            command,
            env=os.environ,
            childFDs={0: 0, 1: 1, 2: 2, WORKER_FD: self._sockets[index].fileno()},
        )

    def _signal_all(self, name: str) -> None:
        for worker in self._workers.values():
            worker.signal(name)

    def _give_up(self) -> None:
        if self._given_up:
            return
        self._given_up = True
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    def _close(self, _: object, killing: Any) -> None:
        if killing.active():
            killing.cancel()
        for each in self._sockets:
            each.close()
        if self._settings.unix is not None:
            remove(self._settings.unix)
