"""One trace: what happens to a user or on a topic, kept until its reader comes for it. Pure.

Everything is bounded: events a second, events that wait, names in an event, and how much of a
payload is shown, which may be private.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from realtime.limits import TokenBucket
from realtime.model import Identity
from realtime.names import MAX_BYTES, is_name, username_key
from realtime.topics import overlaps

# Events a second that are kept, and at once; and how many wait for the reader.
RATE: Final = 50.0
BURST: Final = 200.0
WAITING: Final = 500
# Seconds after which a trace ends, and after which it ends when nobody reads it.
LIFE: Final = 600.0
PATIENCE: Final = 15.0
# Topics of one event that are named, and characters of a payload or message that are shown.
NAMED: Final = 20
SHOWN: Final = 80
# Ids and names that one user may turn out to have.
ALIASES: Final = 8


class _Claims(Struct):
    sub: str
    username: str | None = None


_decode_claims: Final = msgspec.json.Decoder(_Claims).decode


class Trace:
    """What one reader wants to know: of a user, of a topic or pattern, or of both together."""

    def __init__(self, user: Sequence[str], topic: str | None, now: float) -> None:
        """`user` has the ids and names that are known of one user; none for a trace of a topic."""
        self.topic = topic
        self.has_user = bool(user)
        self._users: set[str] = set()
        self._keys: set[str] = set()
        for name in user:
            self.learn(name)
        self._bucket = TokenBucket(RATE, BURST)
        self._events: deque[dict[str, Any]] = deque(maxlen=WAITING)
        # The last event there is, and that was read.
        self._last = self._read = 0
        self._lost = 0
        self._ends_at = now + LIFE
        self._read_at = now

    # -- what it is about --------------------------------------------------------------------

    def learn(self, name: str | None) -> None:
        """The user has this id or name, too."""
        if name is not None and len(self._users) < ALIASES:
            self._users.add(name)
            self._keys.add(username_key(name[:MAX_BYTES]))

    @property
    def users(self) -> list[str]:
        """The ids and names that are known of the user."""
        return list(self._users)

    def is_of_id(self, user_id: str) -> bool:
        """Whether the trace is of the user with this id."""
        return user_id in self._users

    def is_of(self, name: str) -> bool:
        """Whether the trace is of the user with this id or, in any case, name."""
        return name in self._users or username_key(name[:MAX_BYTES]) in self._keys

    def is_of_user(self, identity: Identity) -> bool:
        """Whether the trace is of this user."""
        name = identity.username
        return self.is_of_id(identity.user_id) or (name is not None and self.is_of(name))

    def names(self, topics: Iterable[str]) -> list[str]:
        """Those of some topics and patterns that the trace is about: all, where it has none."""
        if self.topic is None:
            return list(topics)
        return [topic for topic in topics if topic and overlaps(topic, self.topic)]

    def wants(self, identity: Identity, topics: Iterable[str] | None) -> bool:
        """Whether it is about what a user has to do with topics, or, with None, with none."""
        if self.has_user:
            return self.is_of_user(identity) and (topics is None or bool(self.names(topics)))
        return topics is not None and bool(self.names(topics))

    # -- events ------------------------------------------------------------------------------

    def note(self, now: float, what: str, **more: Any) -> None:
        """Keep an event, unless there are too many; members that are None are left out."""
        if self._bucket.take(now):
            self._lost += 1
            return
        if len(self._events) == WAITING and self._events[0]["n"] > self._read:
            self._lost += 1
        self._last += 1
        event = {"n": self._last, "at": int(now * 1000), "what": what}
        event |= {name: value for name, value in more.items() if value is not None}
        self._events.append(event)

    def read(self, after: int, now: float) -> dict[str, Any]:
        """The events after a number, and how many were left out so far."""
        self._read_at, self._read = now, self._last
        while self._events and self._events[0]["n"] <= after:
            self._events.popleft()
        return {"events": list(self._events), "last": self._last, "lost": self._lost}

    def is_over(self, now: float) -> bool:
        """Whether its time is up, or its reader gone."""
        return now >= self._ends_at or now >= self._read_at + PATIENCE


def some(names: Sequence[str]) -> dict[str, Any]:
    """The first of some topics, and how many more there are."""
    shown: dict[str, Any] = {"topics": list(names[:NAMED])}
    if len(names) > NAMED:
        shown["more"] = len(names) - NAMED
    return shown


def payload(text: bytes | Raw) -> dict[str, Any]:
    """The size of a payload, and its beginning."""
    whole = bytes(text)
    # A character has four bytes at most.
    shown = whole[: SHOWN * 4].decode("utf-8", "ignore")[:SHOWN]
    described: dict[str, Any] = {"size": len(whole), "shown": shown}
    if len(shown.encode()) < len(whole):
        described["cut"] = True
    return described


def named_by(token: str) -> Identity | None:
    """Whom a token names that was refused: nobody has verified it."""
    try:
        middle = token.split(".")[1]
        claims = _decode_claims(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError):
        return None
    name = claims.username
    if not is_name(claims.sub) or (name is not None and not is_name(name)):
        return None
    return Identity(claims.sub, name, frozenset(), None, 0.0)
