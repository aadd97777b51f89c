"""Who is who: logging in, renewing, ending sessions, and judging access tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from realtime.accounts import Accounts
from realtime.addresses import network_of
from realtime.audit import Audit
from realtime.errors import (
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    NotFound,
    RateLimited,
    RealtimeError,
)
from realtime.interfaces import NETWORK_LOGINS, USER_LOGINS, ILoginLimits, ISessions
from realtime.limits import KeyedLimiter
from realtime.metrics import Counters
from realtime.model import Identity, User
from realtime.names import ADMIN_ROLE, MAX_BYTES, is_name, username_key
from realtime.tokens import RefreshClaims, Tokens


@dataclass(frozen=True, slots=True)
class Login:
    """A session begun. `expires_in` is that of the access token, in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    session_id: str
    user: User


@dataclass(frozen=True, slots=True)
class Renewal:
    """A session renewed. `refresh_token` is None where the one used stays good."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str | None = field(default=None, repr=False)


@implementer(ILoginLimits)
class LoginLimits:
    """See `ILoginLimits`; in memory. `rate` is attempts a second, `burst` how many at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._pairs = KeyedLimiter(rate, burst)
        self._networks = KeyedLimiter(rate * NETWORK_LOGINS, burst * NETWORK_LOGINS)
        self._users = KeyedLimiter(rate * USER_LOGINS, burst * USER_LOGINS)

    async def take(self, user: str, network: str, now: float) -> float:
        """See `ILoginLimits.take`."""
        return (
            (self._networks.take(network, now) if network else 0.0)
            or self._pairs.take(f"{network} {user}", now)
            or self._users.take(user, now)
        )

    async def forgive(self, user: str, network: str) -> None:
        """See `ILoginLimits.forgive`."""
        self._pairs.reset(f"{network} {user}")


class Auth:
    """Authentication for the edges. `on_revoked(kind, id)` ends a 'session's or 'user's sockets.

    `clock` tells Unix seconds, as the reactor does.
    """

    def __init__(
        self,
        tokens: Tokens,
        accounts: Accounts,
        sessions: ISessions,
        clock: IReactorTime,
        on_revoked: Callable[[str, str], object],
        *,
        login_limits: ILoginLimits,
        rotate_refresh_tokens: bool = False,
        audit: Audit | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters or Counters()
        self._tokens = tokens
        self._accounts = accounts
        self._sessions = sessions
        self._clock = clock
        self._on_revoked = on_revoked
        self._login_limits = login_limits
        self._rotate = rotate_refresh_tokens
        self._audit = audit or Audit()

    async def start(self) -> None:
        """Load what is revoked, and watch for more. Raises `Unavailable`."""
        await self._sessions.start(self._on_revoked)

    async def stop(self) -> None:
        """Stop watching."""
        await self._sessions.stop()

    def authenticate(self, token: str) -> Identity:
        """Answer whose access token this is; raises `InvalidToken` or `TokenExpired`."""
        identity, issued_at = self._tokens.read_access(token)
        if self._sessions.is_revoked(identity, issued_at):
            raise InvalidToken("The session has ended.")
        return identity

    async def user(self, name: str) -> User | None:
        """Answer the account of this id or, failing that, username. Raises `Unavailable`."""
        return await self._accounts.get(name) or await self._accounts.find(name)

    async def login(self, username: str, password: str, address: str | None) -> Login:
        """Begin a session.

        Raises `InvalidCredentials`, `RateLimited` (before any work) or `Unavailable`.
        """
        try:
            login = await self._login(username, password, address)
        except RealtimeError as error:
            self._audit.refused("login", error, username=username, address=address)
            raise
        user, session = login.user, login.session_id
        self._audit.note(
            "login", user=user.user_id, username=user.username, session=session, address=address
        )
        return login

    async def _login(self, username: str, password: str, address: str | None) -> Login:
        now = self._clock.seconds()
        user_key = username_key(username[:MAX_BYTES])
        network = network_of(address or "")
        wait = await self._login_limits.take(user_key, network, now)
        if wait:
            self._counters.limit("login-rate")
            raise RateLimited(wait)
        user = await self._accounts.verify_password(username, password)
        if user is None:
            raise InvalidCredentials()
        refresh_id = token_hex(16)
        session = await self._sessions.create(
            user.user_id, refresh_id=refresh_id, access_until=self._access_until(), since=now
        )
        await self._login_limits.forgive(user_key, network)
        return Login(
            access_token=self._tokens.issue_access(user, session.session_id),
            refresh_token=self._tokens.issue_refresh(user, session.session_id, refresh_id),
            expires_in=int(self._tokens.access_ttl),
            session_id=session.session_id,
            user=user,
        )

    async def refresh(self, refresh_token: str, address: str | None = None) -> Renewal:
        """Issue another access token, with the user's present roles.

        Raises `InvalidToken`, `TokenExpired` or `Unavailable`.
        """
        about: dict[str, Any] = {"address": address}
        try:
            claims = self._tokens.verify_refresh(refresh_token)
            about |= {"user": claims.user_id, "session": claims.session_id}
            renewal = await self._renew(claims)
        except RealtimeError as error:
            self._audit.refused("refresh", error, **about)
            raise
        self._audit.note("refresh", **about)
        return renewal

    async def _renew(self, claims: RefreshClaims) -> Renewal:
        user = await self._accounts.get(claims.user_id)
        if user is None or user.disabled:
            raise InvalidToken("The session has ended.")
        next_refresh_id = token_hex(16) if self._rotate else None
        await self._sessions.renew(
            claims.session_id,
            claims.user_id,
            claims.jti,
            access_until=self._access_until(),
            next_refresh_id=next_refresh_id,
        )
        refresh = None
        if next_refresh_id is not None:
            refresh = self._tokens.issue_refresh(user, claims.session_id, next_refresh_id)
        access_token = self._tokens.issue_access(user, claims.session_id)
        return Renewal(access_token, int(self._tokens.access_ttl), refresh)

    async def end_session(
        self, identity: Identity, session_id: str, address: str | None = None
    ) -> None:
        """End a session of the bearer's own, or, for role admin, anybody's.

        Raises `NotFound`, `Forbidden` or `Unavailable`.
        """
        try:
            user_id = await self._end_session(identity, session_id)
        except RealtimeError as error:
            error.actor = identity.user_id
            raise
        self._audit.note(
            "session_end",
            user=user_id,
            actor=identity.user_id,
            session=session_id,
            address=address,
        )

    async def _end_session(self, identity: Identity, session_id: str) -> str:
        """End it, and answer whose it was."""
        if session_id == identity.session_id:
            until = identity.expires_at + self._tokens.leeway
            await self._sessions.end(session_id, access_until=until)
            return identity.user_id
        session = await self._sessions.get(session_id) if is_name(session_id) else None
        if session is None:
            raise NotFound("There is no such session.")
        if session.user_id != identity.user_id and ADMIN_ROLE not in identity.roles:
            raise Forbidden("The session is another user's.")
        if not await self._sessions.end(session_id):
            raise NotFound("There is no such session.")
        return session.user_id

    def _access_until(self) -> float:
        """When an access token issued about now can last be used, generously."""
        return self._clock.seconds() + self._tokens.access_ttl + self._tokens.leeway + 60
