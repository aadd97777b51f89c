"""Lua scripts: Redis is told of them once and runs them by name, in order whenever it forgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, ClassVar, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from realtime.errors import Unavailable

# Runs that may wait while Redis learns a script anew.
MAX_HELD: Final = 1000

Arg: TypeAlias = bytes | str | int


class Script:
    """A Lua script, which Redis knows by its SHA-1."""

    __slots__ = ("sha", "source")
    # All there are: Redis is told of them before anything else, so that order is kept.
    known: ClassVar[list[Script]] = []

    def __init__(self, source: str) -> None:
        self.known.append(self)
        self.source = source.encode()
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest().encode()


class Scripts:
    """Runs scripts by `command`, which sends one and answers a Deferred of its reply."""

    def __init__(self, command: Callable[..., Deferred[Any]]) -> None:
        self._command = command
        self._held: deque[Callable[[], object]] | None = None

    def run(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg]) -> Deferred[Any]:
        """Run a script; as `Redis.command`."""
        if self._held is None:
            call = (len(keys), *keys, *args)
            return self._command("EVALSHA", script.sha, *call).addErrback(self._teach, script, call)
        later: Deferred[Any] = Deferred()
        if len(self._held) < MAX_HELD:
            self._held.append(lambda: self.run(script, keys, args).chainDeferred(later))
        else:
            later.errback(Unavailable("The broker is out of reach.", retry_after=1))
        return later

    def _teach(
        self, failure: Failure, script: Script, call: tuple[Arg, ...]
    ) -> Failure | Deferred[Any]:
        """Send a script that Redis does not know, or no longer."""
        if "NOSCRIPT" not in str(failure.value):
            return failure
        if self._held is None:
            # What is under way will fail as well, and be sent again as that is answered, which it
            # is before this PING. What comes meanwhile must not overtake it.
            self._held = deque()
            self._command("PING").addBoth(self._release)
        return self._command("EVAL", script.source, *call)

    def _release(self, _: object) -> None:
        held, self._held = self._held, None
        for run in held or ():
            run()
