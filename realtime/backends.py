"""Who may use the server API: an operator's programs, and admins."""

from __future__ import annotations

from realtime.api_keys import PREFIX, ApiKeys
from realtime.auth import Auth
from realtime.errors import Forbidden, InvalidToken
from realtime.model import Identity
from realtime.names import ADMIN_ROLE, SERVICE_ROLE


class Backends:
    """Judges API keys, and access tokens by their roles."""

    def __init__(self, auth: Auth, keys: ApiKeys) -> None:
        self._auth = auth
        self._keys = keys

    def authenticate(self, token: str) -> Identity:
        """Whose key or token this is; raises 401 and 403 errors."""
        if token.startswith(PREFIX):
            identity = self._keys.identify(token)
            if identity is None:
                raise InvalidToken("There is no such API key.")
            return identity
        identity = self._auth.authenticate(token)
        if identity.roles.isdisjoint((ADMIN_ROLE, SERVICE_ROLE)):
            raise Forbidden(f"This needs the role {SERVICE_ROLE} or {ADMIN_ROLE}, or an API key.")
        return identity
