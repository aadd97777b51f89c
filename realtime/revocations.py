"""Whose tokens are refused before they expire, in memory. Pure: the present is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from realtime.model import Identity


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens of a 'user' issued up to `at`, or all of a 'session', are refused.

    By `expires` they have expired anyway. Of two that are of one user, the one with the later
    `stamp` holds. Times are Unix seconds.
    """

    kind: str
    id: str
    at: float
    expires: float
    stamp: float = 0.0


class Revocations:
    """What is refused now."""

    def __init__(self) -> None:
        self._sessions: dict[str, float] = {}  # id: expires
        self._users: dict[str, Revocation] = {}

    def __len__(self) -> int:
        return len(self._sessions) + len(self._users)

    def __iter__(self) -> Iterator[Revocation]:
        for id, expires in self._sessions.items():
            yield Revocation("session", id, 0.0, expires)
        yield from self._users.values()

    def get(self, kind: str, id: str) -> Revocation | None:
        """The revocation of a 'session' or 'user'."""
        if kind == "user":
            return self._users.get(id)
        expires = self._sessions.get(id)
        return None if expires is None else Revocation(kind, id, 0.0, expires)

    def is_revoked(self, identity: Identity, issued_at: float) -> bool:
        """Whether a token issued at `issued_at` is refused: its session, or all of its time."""
        if identity.session_id in self._sessions:
            return True
        user = self._users.get(identity.user_id)
        return user is not None and issued_at <= user.at

    def add(self, new: Revocation) -> bool:
        """Refuse from now on; answer whether that is news."""
        if new.kind == "session":
            known = self._sessions.get(new.id)
            self._sessions[new.id] = new.expires if known is None else max(known, new.expires)
            return known is None
        former = self._users.get(new.id)
        if former is not None and former.stamp > new.stamp:
            return False
        self._users[new.id] = new
        return former is None or former.at != new.at

    def purge(self, now: float) -> None:
        """Forget what would be refused as expired anyway."""
        self._sessions = {id: expires for id, expires in self._sessions.items() if expires > now}
        self._users = {id: user for id, user in self._users.items() if user.expires > now}
