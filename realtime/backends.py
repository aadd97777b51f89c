"""Who may use the server API: an operator's programs, and admins."""

from __future__ import annotations

from realtime.api_keys import PREFIX, ApiKeys
from realtime.audit import Audit
from realtime.auth import Auth
from realtime.errors import Forbidden, InvalidToken
from realtime.model import Identity
from realtime.names import ADMIN_ROLE, SERVICE_ROLE


class Backends:
    """Judges API keys, and access tokens by their roles."""

    def __init__(self, auth: Auth, keys: ApiKeys, audit: Audit | None = None) -> None:
        self.audit = audit or Audit()
        self._auth = auth
        self._keys = keys

    def authenticate(self, token: str) -> Identity:
        """Whose key or token this is; raises 401 and 403 errors."""
        identity = self._identify(token)
        if identity.roles.isdisjoint((ADMIN_ROLE, SERVICE_ROLE)):
            needed = f"{SERVICE_ROLE} or {ADMIN_ROLE}, or an API key"
            raise _forbidden(identity, needed)
        return identity

    def admin(self, token: str) -> Identity:
        """Which admin's token this is; raises 401 and 403 errors."""
        identity = self._identify(token)
        if ADMIN_ROLE not in identity.roles:
            raise _forbidden(identity, ADMIN_ROLE)
        return identity

    def _identify(self, token: str) -> Identity:
        if not token.startswith(PREFIX):
            return self._auth.authenticate(token)
        identity = self._keys.identify(token)
        if identity is None:
            raise InvalidToken("There is no such API key.")
        return identity


def _forbidden(identity: Identity, needed: str) -> Forbidden:
    error = Forbidden(f"This needs the role {needed}.")
    error.actor = identity.user_id
    return error
