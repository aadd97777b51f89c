"""The channels and patterns that are heard of a Redis server, whatever link there is to it.

What a turn of the reactor changes is sent at its end, many channels at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from realtime.errors import Unavailable

_log = Logger()

# Channels that one command names.
AT_ONCE: Final = 1000

# Takes a channel and a message; must not raise.
Handler: TypeAlias = Callable[[bytes, bytes], object]
Send: TypeAlias = Callable[..., object]


class _Heard:
    """One channel or pattern. `confirmed` is whether Redis has said so."""

    __slots__ = ("confirmed", "handler", "waiting")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.confirmed = False
        self.waiting: list[Deferred[None]] = []


class _Kind:
    """All channels, or all patterns."""

    def __init__(self, subscribe: bytes, unsubscribe: bytes) -> None:
        self.subscribe = subscribe
        self.unsubscribe = unsubscribe
        self.heard: dict[bytes, _Heard] = {}
        # What Redis has been told to send on this link, and how often the answer is still due.
        self.told: set[bytes] = set()
        self.due: dict[bytes, int] = {}
        self.changed: dict[bytes, None] = {}

    def flush(self, ask: Callable[[_Kind, bytes, list[bytes]], object]) -> None:
        """Tell Redis what has changed."""
        changed, self.changed = self.changed, {}
        new = [name for name in changed if name in self.heard and name not in self.told]
        old = [name for name in changed if name not in self.heard and name in self.told]
        self.told.difference_update(old)
        self.told.update(new)
        for name in new:
            self.due[name] = self.due.get(name, 0) + 1
        for verb, names in ((self.unsubscribe, old), (self.subscribe, new)):
            rest = iter(names)
            while part := list(islice(rest, AT_ONCE)):
                ask(self, verb, part)
        for name in changed:
            self.settle(name)

    def settle(self, name: bytes) -> None:
        """Confirm a channel that Redis has been told of and has nothing to answer about."""
        heard = self.heard.get(name)
        if heard is not None and name in self.told and name not in self.due:
            heard.confirmed = True
            waiting, heard.waiting = heard.waiting, []
            for each in waiting:
                each.callback(None)

    def answered(self, name: bytes) -> None:
        """Redis has obeyed one SUBSCRIBE."""
        left = self.due.pop(name, 1) - 1
        if left:
            self.due[name] = left
        self.settle(name)

    def may_refuse(self, name: bytes) -> bool:
        """Whether nobody hears a channel yet who would not be told."""
        heard = self.heard.get(name)
        return heard is None or bool(heard.waiting)

    def refused(self, names: Iterable[bytes]) -> list[Deferred[None]]:
        """Redis has not obeyed a SUBSCRIBE; answer who has waited for it."""
        waiting = []
        for name in names:
            left = self.due.pop(name, 1) - 1
            if left:
                self.due[name] = left
                continue
            self.told.discard(name)
            heard = self.heard.pop(name, None)
            if heard is not None:
                waiting += heard.waiting
        return waiting

    def lost(self) -> list[Deferred[None]]:
        """The link has gone; answer who has waited for it."""
        self.told.clear()
        self.due.clear()
        self.changed = dict.fromkeys(self.heard)
        waiting = []
        for heard in self.heard.values():
            heard.confirmed = False
            waiting += heard.waiting
            heard.waiting = []
        return waiting


class _Asked:
    """A command that Redis has still to obey in full."""

    __slots__ = ("kind", "left", "names", "verb")

    def __init__(self, kind: _Kind, verb: bytes, names: list[bytes]) -> None:
        self.kind = kind
        self.verb = verb
        self.names = names
        self.left = len(names)


class Channels:
    """What is to be heard. `call_soon` runs a function at the turn's end."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._channels = _Kind(b"SUBSCRIBE", b"UNSUBSCRIBE")
        self._patterns = _Kind(b"PSUBSCRIBE", b"PUNSUBSCRIBE")
        self._send: Send | None = None
        # Commands in their order, as are Redis' answers.
        self._asked: deque[_Asked] = deque()
        self._scheduled = False

    def add(self, name: bytes, handler: Handler, *, pattern: bool = False) -> Deferred[None] | None:
        """See `Redis.subscribe`."""
        kind = self._patterns if pattern else self._channels
        heard = kind.heard.get(name)
        if heard is None:
            heard = kind.heard[name] = _Heard(handler)
            self._note(kind, name)
        if heard.confirmed:
            return None
        waiting: Deferred[None] = Deferred()
        if self._send is None:
            waiting.errback(_gone())
        else:
            heard.waiting.append(waiting)
        return waiting

    def remove(self, name: bytes, *, pattern: bool = False) -> None:
        """Hear a channel or pattern no more; who waits for it is told that it is off."""
        kind = self._patterns if pattern else self._channels
        heard = kind.heard.pop(name, None)
        if heard is not None:
            self._note(kind, name)
            for each in heard.waiting:
                each.errback(_gone())

    def hears(self, name: bytes, *, pattern: bool = False) -> bool:
        """Whether what is published on a channel now comes by its own name, or by a pattern."""
        kind = self._patterns if pattern else self._channels
        heard = kind.heard.get(name)
        return heard is not None and heard.confirmed

    def attach(self, send: Send) -> None:
        """There is a link: tell it all."""
        self._send = send
        self._flush()

    def detach(self) -> None:
        """The link has gone."""
        self._send = None
        self._asked.clear()
        for kind in (self._channels, self._patterns):
            for waiting in kind.lost():
                waiting.errback(_gone())

    def take(self, reply: list[Any]) -> bool:
        """Handle what Redis has pushed; answer False where it is a reply."""
        sort = reply[0]
        if sort == b"message":
            heard = self._channels.heard.get(reply[1])
            if heard is not None and heard.confirmed:
                self._handle(heard, reply[1], reply[2])
        elif sort == b"pmessage":
            heard = self._patterns.heard.get(reply[1])
            if heard is not None and heard.confirmed:
                self._handle(heard, reply[2], reply[3])
        elif sort == b"subscribe":
            self._obeyed()
            self._channels.answered(reply[1])
        elif sort == b"psubscribe":
            self._obeyed()
            self._patterns.answered(reply[1])
        elif sort in (b"unsubscribe", b"punsubscribe"):
            self._obeyed()
        else:
            return False
        return True

    @property
    def is_asking(self) -> bool:
        """Whether Redis has still to answer."""
        return bool(self._asked)

    def refused(self) -> bool:
        """Redis has answered with an error: who waits for what it refuses is told.

        Answers False where that does not do: it was no subscription, or one that others rely on.
        """
        asked = self._asked.popleft()
        kind = asked.kind
        if asked.verb != kind.subscribe or not all(map(kind.may_refuse, asked.names)):
            return False
        for each in kind.refused(asked.names):
            each.errback(Unavailable("The broker does not take this now."))
        return True

    def _obeyed(self) -> None:
        """Redis has answered for one name of a command."""
        if self._asked:
            self._asked[0].left -= 1
            if not self._asked[0].left:
                self._asked.popleft()

    def _handle(self, heard: _Heard, channel: bytes, message: bytes) -> None:
        try:
            heard.handler(channel, message)
        except Exception:
            # The rest of what has arrived must not suffer.
            _log.failure("A message could not be handled")

    def _note(self, kind: _Kind, name: bytes) -> None:
        kind.changed[name] = None
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._send is not None:
            for kind in (self._channels, self._patterns):
                kind.flush(self._ask)

    def _ask(self, kind: _Kind, verb: bytes, names: list[bytes]) -> None:
        assert self._send is not None  # noqa: S101
        self._asked.append(_Asked(kind, verb, names))
        self._send(verb, *names)


def _gone() -> Unavailable:
    return Unavailable("The broker is out of reach.", retry_after=1)
