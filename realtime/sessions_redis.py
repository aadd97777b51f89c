"""Sessions that all nodes share in Redis, and revocations that every node has in memory.

A session is a hash that expires; the ids of a user's sessions are a sorted set, so that they can
be ended together. Revocations are a hash, with a sorted set by expiry. What is revoked is told on
a channel, and read in whole when a node starts and whenever Redis has come back; what a node knows
and Redis does not, as after a loss there or of what was revoked meanwhile, it then tells.

Users stay in the state directory's database, where the command line revokes them: what is found
there is passed on. Times are Unix seconds, by the nodes' clocks, which have to agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realtime.errors import InvalidCredentials, InvalidToken, Unavailable
from realtime.interfaces import ISessions
from realtime.model import Identity, Session
from realtime.names import new_session_id
from realtime.redis_client import Redis, RedisRefused, out_of_reach
from realtime.redis_keys import Keys
from realtime.redis_scripts import Arg, Script
from realtime.revocations import Revocation, Revocations
from realtime.session_scripts import CREATE, END, RENEW, REVOKE
from realtime.sessions_sqlite import POLL_SECONDS, Listener, Sessions

_log = Logger()

# Seconds after which all revocations are read again, whatever has happened.
SYNC_SECONDS: Final = 600.0
# Seconds for which Redis keeps a revocation at most: longer than any token of ours lives. A
# node that knows of one that holds for longer tells it again.
KEEP_SECONDS: Final = 367 * 86400.0
# How many revocations are read, or told, at once.
PAGE: Final = 500
# Seconds by which a transaction in the database may come after the time that it has noted.
_TRANSACTION_SECONDS: Final = 2.0


@implementer(ISessions)
class RedisSessions:
    """See `ISessions`. One lasts `session_ttl` seconds after its last refresh token was issued.

    `local` are the sessions in the state directory's database, of which only the revocations
    are used; it is started and stopped here. `redis` has to be started before.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        clock: IReactorTime,
        *,
        session_ttl: float,
        local: Sessions,
    ) -> None:
        self.revocations = Revocations()
        self._redis = redis
        self._clock = clock
        self._session_ttl = session_ttl
        self._local = local
        self._session = keys.key("session") + b":"
        self._index = keys.key("sessions") + b":"
        self._table = keys.key("revocations")
        self._channel = keys.key("revoked")
        self._keys = (self._table, keys.key("revocations", "expiry"), self._channel)
        self._listener: Listener | None = None
        self._running = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        # Whether all is to be read, when that is due by time, and what ends when it is done.
        self._due = False
        self._next_sync = 0.0
        self._syncing: Deferred[None] | None = None
        redis.when_up(self._sync_soon)

    async def start(self, listener: Listener) -> None:
        """See `ISessions.start`."""
        heard = self._redis.subscribe(self._channel, self._hear)
        if heard is not None:
            await heard
        await self._local.start(self._found)
        for revocation in self._local.revocations:
            self.revocations.add(self._stamped(revocation))
        self._due = False
        await self._sync()
        self._listener = listener
        self._running = True
        self._next_sync = self._clock.seconds() + SYNC_SECONDS
        self._loop.start(POLL_SECONDS, now=False)

    async def stop(self) -> None:
        """See `ISessions.stop`."""
        self._running = False
        self._redis.unsubscribe(self._channel)
        if self._loop.running:
            self._loop.stop()
        await self._local.stop()
        if self._syncing is not None:
            await self._syncing

    def is_revoked(self, identity: Identity, issued_at: float) -> bool:
        """See `ISessions.is_revoked`."""
        shared, local = self.revocations, self._local.revocations
        return shared.is_revoked(identity, issued_at) or local.is_revoked(identity, issued_at)

    async def create(
        self, user_id: str, *, refresh_id: str, access_until: float, since: float | None = None
    ) -> Session:
        """See `ISessions.create`."""
        now = self._clock.seconds()
        since = now if since is None else since
        session = Session(new_session_id(), user_id, now, now + self._session_ttl)
        # What the poll finds is told to Redis before the session is: it must not be hit by it.
        await self._local.check_user(user_id, since)
        revocation, begun = await self._run(
            CREATE,
            session.session_id,
            user_id,
            refresh_id,
            repr(now),
            repr(session.expires_at),
            repr(access_until),
            repr(since),
        )
        if revocation is not None:
            # Nor may its connections be hit by what the channel brings later.
            self._learn(_decode(revocation))
        if not begun:
            raise InvalidCredentials()
        return session

    async def get(self, session_id: str) -> Session | None:
        """See `ISessions.get`."""
        key = self._session + session_id.encode()
        user_id, *times = await self._ask("HMGET", key, "user", "created", "expires")
        if user_id is None:
            return None
        session = Session(session_id, user_id.decode(), *map(float, times))
        return session if session.expires_at > self._clock.seconds() else None

    async def renew(
        self,
        session_id: str,
        user_id: str,
        refresh_id: str,
        *,
        access_until: float,
        next_refresh_id: str | None = None,
    ) -> None:
        """See `ISessions.renew`."""
        outcome = await self._run(
            RENEW,
            session_id,
            user_id,
            refresh_id,
            repr(access_until),
            next_refresh_id or "",
            repr(self._clock.seconds() + self._session_ttl),
        )
        if outcome == 1:
            return
        if outcome:
            _log.warn("A replaced refresh token was used: session {id} ends", id=session_id)
            self._learn(_decode(outcome))
        raise InvalidToken("The session has ended.")

    async def end(self, session_id: str, *, access_until: float | None = None) -> bool:
        """See `ISessions.end`."""
        until = 0.0 if access_until is None else self._bounded(access_until)
        revocation = await self._run(END, session_id, repr(until))
        if revocation is not None:
            self._learn(_decode(revocation))
        return revocation is not None

    # -- what is revoked ---------------------------------------------------------------------

    def _learn(self, revocation: Revocation) -> None:
        if revocation.expires <= self._clock.seconds():
            return
        if self.revocations.add(revocation) and self._listener is not None:
            kind, id = revocation.kind, revocation.id
            try:
                self._listener(kind, id)
            except Exception:
                _log.failure("Ending the connections of {kind} {id} failed", kind=kind, id=id)

    def _hear(self, channel: bytes, message: bytes) -> None:
        """A node has revoked something."""
        revocation = _read(message)
        if revocation is not None:
            self._learn(revocation)

    def _found(self, kind: str, id: str) -> None:
        """Something was revoked in the state directory's database."""
        revocation = self._local.revocations.get(kind, id)
        if revocation is not None:
            revocation = self._stamped(revocation)
            self._learn(revocation)
            Deferred.fromCoroutine(self._tell([revocation])).addErrback(self._put_off)

    def _stamped(self, revocation: Revocation) -> Revocation:
        """Say since when what the database says of a user holds."""
        kind, id, at = revocation.kind, revocation.id, revocation.at
        if kind == "session":
            return revocation
        stamp = at
        if at == inf:
            # A user who is refused for good has been since before the poll. Who is enabled after
            # that must not be thought to have been before it.
            known = self.revocations.get(kind, id)
            stamp = self._local.polled_at - _TRANSACTION_SECONDS
            if known is not None:
                stamp = max(stamp, known.stamp)
        return Revocation(kind, id, at, revocation.expires, stamp)

    async def _tell(self, revocations: Sequence[Revocation]) -> None:
        args: list[Arg] = []
        for each in revocations:
            expires = repr(self._bounded(each.expires))
            args += [each.kind, each.id, repr(each.at), expires, repr(each.stamp)]
        await self._run(REVOKE, *args)

    async def _sync(self) -> None:
        """Read what is revoked, page by page, then tell what Redis does not know."""
        seen: dict[tuple[str, str], float] = {}
        cursor = b"0"
        while True:
            cursor, page = await self._ask("HSCAN", self._table, cursor, "COUNT", PAGE)
            for member, row in zip(page[::2], page[1::2], strict=True):
                revocation = _read(row + b" " + member)
                if revocation is not None:
                    seen[revocation.kind, revocation.id] = revocation.at
                    self._learn(revocation)
            if cursor == b"0":
                break
        now = self._clock.seconds()
        news = [
            each
            for each in self.revocations
            if each.expires > now and seen.get((each.kind, each.id)) != each.at
        ]
        for start in range(0, len(news), PAGE):
            await self._tell(news[start : start + PAGE])

    def _sync_soon(self) -> None:
        """Sync, once more where that is under way."""
        self._due = True
        if self._running and self._syncing is None:
            done: Deferred[None] = Deferred()
            self._syncing = done
            syncing = Deferred.fromCoroutine(self._sync_while_due())
            syncing.addErrback(self._put_off).addBoth(self._synced, done)

    def _synced(self, _: object, done: Deferred[None]) -> None:
        self._syncing = None
        done.callback(None)

    async def _sync_while_due(self) -> None:
        while self._due and self._running:
            self._due = False
            await self._sync()

    def _put_off(self, failure: Failure) -> None:
        """Sync when Redis is back, or later if that is not the reason."""
        self._due = True
        if not isinstance(failure.value, Unavailable):
            _log.failure("Revocations were not read or told, to be tried again", failure)

    def _tick(self) -> None:
        now = self._clock.seconds()
        if now >= self._next_sync:
            self._next_sync = now + SYNC_SECONDS
            self._due = True
            self.revocations.purge(now)
        if self._due and self._redis.up:
            self._sync_soon()

    # -- commands ----------------------------------------------------------------------------

    def _bounded(self, expires: float) -> float:
        return min(expires, self._clock.seconds() + KEEP_SECONDS)

    async def _run(self, script: Script, *args: Arg) -> Any:
        now = repr(self._clock.seconds())
        running = self._redis.run(script, self._keys, (now, self._session, self._index, *args))
        return await _answer(running)

    async def _ask(self, *args: Arg) -> Any:
        return await _answer(self._redis.command(*args))


async def _answer(reply: Deferred[Any]) -> Any:
    try:
        return await reply
    except RedisRefused:
        raise out_of_reach() from None


def _read(message: bytes) -> Revocation | None:
    """As `_decode`, of what another program may have written."""
    try:
        return _decode(message)
    except ValueError as error:
        _log.error("What is no revocation came: {why}", why=str(error))
        return None


def _decode(message: bytes) -> Revocation:
    """Read what `write` of the scripts has written."""
    at, expires, stamp, member = message.split(b" ", 3)
    kind, _, id = member.decode().partition(":")
    return Revocation(kind, id, float(at), float(expires), float(stamp))
