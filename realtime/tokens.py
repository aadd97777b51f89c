"""Signed tokens: issuing our own, verifying ours and another issuer's (DESIGN section 5).

Ours are HS256 with a secret of ours, another issuer's are verified with its public keys: see
`token_keys`. Here is what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from secrets import token_hex, token_urlsafe
from typing import Annotated, Any, Final

import msgspec

from realtime.errors import InvalidRequest, InvalidToken, TokenExpired
from realtime.model import Identity, Permissions, User
from realtime.names import is_name
from realtime.token_keys import Keys
from realtime.topics import check_pattern

# The longest life of a token issued here, in seconds; revocations of users are kept as long.
MAX_TTL: Final = 366 * 86400

# Later than the year 9999 is an issuer that counts milliseconds.
_Time = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]


class _PermissionClaims(msgspec.Struct, gc=False):
    subscribe: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    publish: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class _Claims(msgspec.Struct, gc=False):
    """Every claim that we read. A claim that is present must have its type: null is no value."""

    sub: str
    exp: _Time
    username: str | msgspec.UnsetType = msgspec.UNSET
    roles: tuple[str, ...] = ()
    sid: str | msgspec.UnsetType = msgspec.UNSET
    typ: str | msgspec.UnsetType = msgspec.UNSET
    jti: str | msgspec.UnsetType = msgspec.UNSET
    iat: _Time = 0.0
    nbf: _Time = 0.0
    iss: str | msgspec.UnsetType = msgspec.UNSET
    aud: str | tuple[str, ...] = ()
    permissions: _PermissionClaims | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a verified refresh token says. `expires_at` is Unix seconds."""

    user_id: str
    session_id: str
    jti: str
    expires_at: float


def misfit(claims: Mapping[str, Any]) -> str | None:
    """Say which claim is not as we read it, in a token that nobody has verified; None if none."""
    try:
        read = msgspec.convert(claims, _Claims, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error)
    named = {"sub": read.sub, "username": read.username, "sid": read.sid}
    unfit = (name for name, value in named.items() if isinstance(value, str) and not is_name(value))
    return next((f"{name} cannot be a name or id" for name in unfit), None)


class Tokens:
    """Issues and verifies tokens. Times are seconds; `now` answers Unix seconds.

    `issuer` and `audience`, where given, are written into our tokens and asked of every token.
    """

    def __init__(
        self,
        key: Keys,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        access_ttl: float = 3600,
        refresh_ttl: float = 30 * 86400,
        leeway: float = 10,
        now: Callable[[], float],
    ) -> None:
        self.keys = key
        self.access_ttl = access_ttl
        self.refresh_ttl = refresh_ttl
        self.leeway = leeway
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._decode = msgspec.json.Decoder(_Claims).decode
        self._common: dict[str, Any] = {}
        if issuer is not None:
            self._common["iss"] = issuer
        if audience is not None:
            self._common["aud"] = audience

    def issue_access(
        self,
        user: User,
        session_id: str | None,
        ttl: float | None = None,
        permissions: Permissions | None = None,
    ) -> str:
        """Make an access token for `user`, good for `ttl` or else `access_ttl` seconds."""
        claims: dict[str, Any] = {"username": user.username, "roles": user.roles}
        if session_id is not None:
            claims["sid"] = session_id
        if permissions is not None:
            granted = {"subscribe": permissions.subscribe, "publish": permissions.publish}
            claims["permissions"] = {k: v for k, v in granted.items() if v is not None}
        return self._issue(user, "access", self.access_ttl if ttl is None else ttl, claims)

    def issue_refresh(self, user: User, session_id: str, jti: str | None = None) -> str:
        """Make a refresh token of a session, good for `refresh_ttl` seconds."""
        claims = {"sid": session_id, "jti": jti or token_hex(16)}
        return self._issue(user, "refresh", self.refresh_ttl, claims)

    def verify_access(self, token: str) -> Identity:
        """Answer whose access token `token` is; raises `InvalidToken` or `TokenExpired`."""
        return self.read_access(token)[0]

    def read_access(self, token: str) -> tuple[Identity, float]:
        """As `verify_access`, together with when it was issued (0.0 where it does not say)."""
        claims, key = self._open(token)
        # Others call their access tokens nothing in particular, or Bearer.
        if claims.typ is not msgspec.UNSET and claims.typ not in ("access", "Bearer"):
            raise InvalidToken("This is not an access token.")
        username = None if claims.username is msgspec.UNSET else claims.username
        if username is not None and not is_name(username):
            raise InvalidToken()
        self._check_time(claims)
        session_id = claims.sid
        identity = Identity(
            user_id=claims.sub,
            username=username,
            roles=_intern_roles(claims.roles),
            session_id=None if session_id is msgspec.UNSET else session_id,
            expires_at=claims.exp,
            permissions=_read_permissions(claims.permissions),
            key=key,
        )
        return identity, claims.iat

    def verify_refresh(self, token: str) -> RefreshClaims:
        """Answer which session a refresh token renews; raises as `verify_access` does."""
        claims, _ = self._open(token)
        session_id, jti = claims.sid, claims.jti
        if claims.typ != "refresh" or session_id is msgspec.UNSET or jti is msgspec.UNSET:
            raise InvalidToken("This is not a refresh token.")
        self._check_time(claims)
        return RefreshClaims(claims.sub, session_id, jti, claims.exp)

    def _issue(self, user: User, typ: str, ttl: float, claims: dict[str, Any]) -> str:
        if not 0 < ttl <= MAX_TTL:
            raise InvalidRequest(f"A token lives for 1 to {MAX_TTL} seconds.")
        now = self._now()
        # To the millisecond: a token must be told from those revoked earlier in its second.
        times = {"iat": int(now * 1000) / 1000, "exp": int(now + ttl)}
        common = {**self._common, "sub": user.user_id, "typ": typ, "jti": token_urlsafe(12)}
        return self.keys.sign(msgspec.json.encode({**common, **times, **claims}))

    def _open(self, token: str) -> tuple[_Claims, str | None]:
        """Verify all but the times; answer which of our keys has signed it, too."""
        payload, key = self.keys.open(token)
        try:
            claims = self._decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise InvalidToken() from None
        if not is_name(claims.sub) or not (claims.sid is msgspec.UNSET or is_name(claims.sid)):
            raise InvalidToken()
        if self._issuer is not None and claims.iss != self._issuer:
            raise InvalidToken("The token is from another issuer.")
        if self._audience is not None:
            audience = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
            if self._audience not in audience:
                raise InvalidToken("The token is for another audience.")
        return claims, key

    def _check_time(self, claims: _Claims) -> None:
        """Last of all, so that only a token that is good otherwise is called expired."""
        now = self._now()
        if claims.iat > now + self.leeway or claims.nbf > now + self.leeway:
            raise InvalidToken("The token is not valid yet.")
        if claims.exp + self.leeway <= now:
            raise TokenExpired()


@lru_cache(maxsize=1024)
def _intern_roles(roles: tuple[str, ...]) -> frozenset[str]:
    """Let connections whose tokens name the same roles hold one set."""
    return frozenset(roles)


def _read_permissions(claim: _PermissionClaims | msgspec.UnsetType) -> Permissions | None:
    if claim is msgspec.UNSET:
        return None
    return _intern_permissions(
        None if claim.subscribe is msgspec.UNSET else claim.subscribe,
        None if claim.publish is msgspec.UNSET else claim.publish,
    )


@lru_cache(maxsize=1024)
def _intern_permissions(
    subscribe: tuple[str, ...] | None, publish: tuple[str, ...] | None
) -> Permissions:
    for pattern in (*(subscribe or ()), *(publish or ())):
        if check_pattern(pattern) is not None:
            raise InvalidToken("The token's permissions have a bad topic pattern.")
    return Permissions(subscribe, publish)
