"""Who may connect, whatever the transport: token, role, origin, room, the operator's hook."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from typing import Any, NoReturn

from realtime.addresses import Proxies, network_of
from realtime.asking import AskingClient
from realtime.audit import Audit
from realtime.errors import Forbidden, InvalidToken, RealtimeError, TooManyConnections
from realtime.interfaces import Transport
from realtime.model import Identity
from realtime.node import Node
from realtime.origins import Origins
from realtime.peer import Client
from realtime.policy import ClientPolicy
from realtime.waiting import WaitingClient


class Admission:
    """Admits connections to a node, and makes their clients."""

    def __init__(
        self,
        node: Node,
        policy: ClientPolicy,
        origins: Origins,
        connect_roles: Set[str] = frozenset(),
        *,
        proxies: Proxies | None = None,
        per_user: int = 0,
        per_address: int = 0,
        token_in_url: bool = True,
        audit: Audit | None = None,
    ) -> None:
        self.node = node
        self.origins = origins
        # Whether URLs, which proxies write to logs, may have the token.
        self.token_in_url = token_in_url
        self._audit = audit or Audit()
        self._roles = connect_roles
        self._proxies = proxies or Proxies()
        # Connections on this node that a user, or an address, may have; 0 is any number.
        self._per_user = per_user
        self._per_address = per_address
        self._networks: dict[str, int] = {}
        self._came_from: dict[int, str] = {}
        self._authenticate = policy.authenticate
        # A renewed token has to be as good as the one that was connected with.
        self.policy = replace(policy, authenticate=self.identify, refused=self._refused_renewal)
        self._client: type[Client] = WaitingClient if node.remote else Client
        hooks = policy.hooks
        if hooks is not None:
            self._client = AskingClient
        self.asks = hooks is not None and "connect" in hooks.wants

    def network(self, transport: Any, forwarded: Iterable[str]) -> str:
        """Where a connection comes from, by its transport and X-Forwarded-For, if that counts."""
        if not self._per_address:
            return ""
        peer = getattr(transport.getPeer(), "host", None) or ""
        return network_of(self._proxies.client(peer, forwarded))

    def admit(
        self, token: str | None, origin: str | None, host: str | None, network: str = ""
    ) -> Identity:
        """Who the token says connects. Raises 401, 403, 429 and 503 errors, in that order."""
        if not token:
            places = "subprotocol or ?token=" if self.token_in_url else "or subprotocol"
            raise InvalidToken(f"A token is needed: Authorization, {places}")
        identity = self.identify(token)
        if not self.origins.allows(origin, host):
            raise Forbidden("Pages of this origin may not connect")
        self._find_room(identity, network)
        return identity

    def _find_room(self, identity: Identity, network: str) -> None:
        if 0 < self._per_user <= self.node.hub.count(identity.user_id):
            self._refuse("user")
        if 0 < self._per_address <= self._networks.get(network, 0):
            self._refuse("address")
        self.node.admit()

    def _refuse(self, limit: str) -> NoReturn:
        self.node.counters.limited_connections += 1
        self.node.counters.limit(f"max-connections-per-{limit}")
        raise TooManyConnections(limit)

    def refused(self, error: RealtimeError, transport: Any, forwarded: Iterable[str]) -> None:
        """Have the audit log tell of a handshake that was refused, unless there was no room."""
        if error.status < 500:
            address = self._audit.address(transport.getPeer(), forwarded)
            self._audit.refused("connect", error, address=address)

    def _refused_renewal(self, error: RealtimeError, connection: str) -> None:
        self._audit.refused("authenticate", error, connection=connection)

    def identify(self, token: str) -> Identity:
        """Whose token it is, if they have a role that may connect. Raises 401 and 403 errors."""
        identity = self._authenticate(token)
        if self._roles and self._roles.isdisjoint(identity.roles):
            error = Forbidden("Connecting needs a role that the token does not have")
            error.actor = identity.user_id
            raise error
        return identity

    async def ask(self, identity: Identity, token: str | None, network: str = "") -> Identity:
        """Have the operator's hook admit an admitted user, who may have to wait for it.

        Meanwhile a session ends, and others connect: so all but the origin is asked again.
        Raises as `admit` does.
        """
        assert self.policy.hooks is not None  # noqa: S101
        try:
            await self.policy.hooks.connect(identity)
        except RealtimeError as error:
            error.actor = identity.user_id
            raise
        identity = self.identify(token or "")
        self._find_room(identity, network)
        return identity

    def client(self, transport: Transport, identity: Identity, network: str = "") -> Client:
        """The client of an admitted connection; it is still to be opened."""
        client = self._client(self.node, self.policy, transport, identity)
        if self._per_address:
            self._came_from[client.number] = network
            self._networks[network] = self._networks.get(network, 0) + 1
        return client

    def leave(self, client: Client) -> None:
        """A client's connection has ended."""
        if self._per_address:
            network = self._came_from.pop(client.number)
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
