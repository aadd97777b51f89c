"""The audit log: who has logged in, who was refused, and what admins have done.

A line is a JSON object, written at once by one append: a few microseconds for a file. Who floods
the server with what it refuses gets few lines; how many were left out is told once a minute.
Nothing secret is ever written: callers give ids and names, never tokens, passwords or queries.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from realtime.addresses import Proxies, network_of
from realtime.errors import ConfigurationError, RealtimeError
from realtime.limits import KeyedLimiter, TokenBucket
from realtime.metrics import Counters
from realtime.model import Identity

_log = Logger()

STDOUT: Final = "-"
# Characters of a field that are written.
MAX_FIELD: Final = 256
# Refusals that are written of an event and network, and of all: a second, and at once.
NETWORK_RATE, NETWORK_BURST = 0.1, 10
ALL_RATE, ALL_BURST = 20, 200
# Acts that are written of a program or admin: a second, and at once.
ACTOR_RATE, ACTOR_BURST = 10, 100
# Seconds after which it is told how many lines were left out.
TELL_SECONDS: Final = 60.0

_encode: Final = msgspec.json.Encoder().encode


class AuditFile:
    """A file that lines are appended to, made with mode 0600; `-` is standard output."""

    def __init__(self, path: str, counters: Counters, *, standard: int = 1) -> None:
        self._path = path
        self._counters = counters
        self._standard = standard
        self._fails = False
        # Whether the last line is there in part only.
        self._torn = False
        self._descriptor: int | None = self._open()

    def reopen(self) -> None:
        """Go on in a new file where the old one was moved away; raises `ConfigurationError`."""
        former, self._descriptor = self._descriptor, self._open()
        self._torn = False
        self._close(former)

    def write(self, line: bytes) -> None:
        """Append a line; where that fails it is lost, which is logged once and counted."""
        if self._descriptor is None:
            return
        line = b"\n" * self._torn + line
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._failed(error.strerror or type(error).__name__)
            return
        self._torn = written < len(line)
        if self._torn:
            self._failed("there is no room")
        elif self._fails:
            self._fails = False
            _log.info("The audit log {path} is written again", path=self._path)

    def close(self) -> None:
        """Write nothing more."""
        former, self._descriptor = self._descriptor, None
        self._close(former)

    def _open(self) -> int:
        if self._path == STDOUT:
            return self._standard
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--audit-log {self._path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ConfigurationError(f"--audit-log {self._path}: not a regular file")
        return descriptor

    def _close(self, descriptor: int | None) -> None:
        if descriptor is not None and self._path != STDOUT:
            os.close(descriptor)

    def _failed(self, why: str) -> None:
        self._counters.audit_failures += 1
        if not self._fails:
            self._fails = True
            _log.error("The audit log {path} cannot be written: {why}", path=self._path, why=why)


class Audit:
    """What is written, and how much of it. Without a `file` nothing is."""

    def __init__(
        self,
        file: AuditFile | None = None,
        clock: IReactorTime | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._file = file
        self._clock = clock
        self._proxies = proxies or Proxies()
        self._networks = KeyedLimiter(NETWORK_RATE, NETWORK_BURST, max_keys=10_000)
        self._refusals = TokenBucket(ALL_RATE, ALL_BURST)
        self._actors = KeyedLimiter(ACTOR_RATE, ACTOR_BURST, max_keys=10_000)
        self._omitted: Counter[str] = Counter()
        self._telling: IDelayedCall | None = None

    @classmethod
    def beside(cls, path: str | None, clock: IReactorTime, *, standard: int = 2) -> Audit:
        """The same log, of another program than the server; `-` is the descriptor `standard`."""
        return cls(None if path is None else AuditFile(path, Counters(), standard=standard), clock)

    def note(self, event: str, outcome: str = "ok", **fields: Any) -> None:
        """Write of something that was done. A field that is None is left out."""
        self._write(event, outcome, fields)

    def act(self, request: Any, identity: Identity, event: str, **fields: Any) -> None:
        """Write of what an admin or a program has done by a request, unless they do very much."""
        if self._clock is None:
            return
        if self._actors.take(identity.user_id, self._clock.seconds()):
            self._omit(event)
            return
        address = self.client(request)
        self.note(event, actor=identity.user_id, address=address, **fields)

    def refused(
        self, event: str, error: RealtimeError, *, address: str | None = None, **fields: Any
    ) -> None:
        """Write of a refusal, once, unless there are very many of the network or of all."""
        if self._clock is None or error.noted:
            return
        error.noted = True
        now = self._clock.seconds()
        # Event by event: a forgotten program with a bad key hides no guessing at passwords.
        key = f"{event} {network_of(address) if address else error.actor}"
        if self._networks.take(key, now) or self._refusals.take(now):
            self._omit(event)
            return
        why = {"address": address, "reason": error.code.value, "detail": error.message}
        self._write(event, "refused", {"actor": error.actor, **fields, **why})

    def client(self, request: Any) -> str:
        """From where a request comes."""
        forwarded = request.requestHeaders.getRawHeaders("X-Forwarded-For", [])
        return self.address(request.getClientAddress(), forwarded)

    def address(self, peer: Any, forwarded: Iterable[str]) -> str:
        """From where a connection comes: its peer, or the client of a proxy that is believed."""
        return self._proxies.client(getattr(peer, "host", None) or "", forwarded)

    def reopen(self) -> None:
        """See `AuditFile.reopen`."""
        if self._file is not None:
            self._file.reopen()

    def close(self) -> None:
        """Tell what was left out, and write nothing more."""
        self._tell()
        if self._file is not None:
            self._file.close()

    def _write(self, event: str, outcome: str, fields: dict[str, Any]) -> None:
        if self._file is None or self._clock is None:
            return
        time = datetime.fromtimestamp(self._clock.seconds(), UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "event": event,
            "outcome": outcome,
        }
        line |= {name: _shown(value) for name, value in fields.items() if value is not None}
        self._file.write(_encode(line) + b"\n")

    def _omit(self, event: str) -> None:
        self._omitted[event] += 1
        if self._telling is None and self._clock is not None:
            self._telling = self._clock.callLater(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None and telling.active():
            telling.cancel()
        omitted, self._omitted = self._omitted, Counter()
        if omitted:
            self.note("omitted", counts=dict(omitted))


def own_name() -> str:
    """The actor of what this process does for who started it: the system knows them by number."""
    return f"uid:{os.getuid()}"


def _shown(value: object) -> object:
    """A value of a field, of a bounded length and without what a terminal might obey."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value[:MAX_FIELD])
    return value
