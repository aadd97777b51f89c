"""Who may connect, whatever the transport: token, role, origin, room, the operator's hook."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from realtime.asking import AskingClient
from realtime.errors import Forbidden, InvalidToken
from realtime.interfaces import Transport
from realtime.model import Identity
from realtime.node import Node
from realtime.origins import Origins
from realtime.peer import Client, ClientPolicy
from realtime.waiting import WaitingClient


class Admission:
    """Admits connections to a node, and makes their clients."""

    def __init__(
        self,
        node: Node,
        policy: ClientPolicy,
        origins: Origins,
        connect_roles: Set[str] = frozenset(),
    ) -> None:
        self.node = node
        self.origins = origins
        self._roles = connect_roles
        self._authenticate = policy.authenticate
        # A renewed token has to be as good as the one that was connected with.
        self.policy = replace(policy, authenticate=self.identify)
        self._client: type[Client] = WaitingClient if node.remote else Client
        hooks = policy.hooks
        if hooks is not None:
            self._client = AskingClient
        self.asks = hooks is not None and "connect" in hooks.wants

    def admit(self, token: str | None, origin: str | None, host: str | None) -> Identity:
        """Who the token says connects. Raises 401, 403 and 503 errors, in that order."""
        if not token:
            raise InvalidToken("A token is needed: Authorization, subprotocol or ?token=")
        identity = self.identify(token)
        if not self.origins.allows(origin, host):
            raise Forbidden("Pages of this origin may not connect")
        self.node.admit()
        return identity

    def identify(self, token: str) -> Identity:
        """Whose token it is, if they have a role that may connect. Raises 401 and 403 errors."""
        identity = self._authenticate(token)
        if self._roles and self._roles.isdisjoint(identity.roles):
            raise Forbidden("Connecting needs a role that the token does not have")
        return identity

    async def ask(self, identity: Identity) -> None:
        """Return if the operator's hook admits an admitted user, who may have to wait for it.

        Raises `Forbidden` or a 503 error.
        """
        assert self.policy.hooks is not None  # noqa: S101
        await self.policy.hooks.connect(identity)
        self.node.admit()

    def client(self, transport: Transport, identity: Identity) -> Client:
        """The client of an admitted connection; it is still to be opened."""
        return self._client(self.node, self.policy, transport, identity)
