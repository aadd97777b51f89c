"""The server API: connections, and ending them."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.web.iweb import IRequest

from realtime.answers import answer_json
from realtime.backends import Backends
from realtime.envelope import DEFAULT_PAGE
from realtime.errors import NotFound
from realtime.handlers import MAX_PAGE
from realtime.interfaces import Peer
from realtime.node import Node
from realtime.rest_requests import add_route, bearer_token, page_of, query, query_number


def add_connections(app: Klein, node: Node, backends: Backends) -> None:
    """Add the routes to an application."""
    api = _Connections(node, backends)
    add_route(app, "GET", "/connections", api.connections)
    add_route(app, "DELETE", "/connections/<connection_id>", api.end)
    add_route(app, "DELETE", "/users/<path:user>/connections", api.end_all)


class _Connections:
    def __init__(self, node: Node, backends: Backends) -> None:
        self._node = node
        self._backends = backends

    async def connections(self, request: IRequest) -> bytes:
        """Open connections, the oldest first."""
        self._backends.authenticate(bearer_token(request))
        limit = query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE)
        found = self._node.connections(query(request, "user"), query(request, "after"), limit + 1)
        shown = [_connection_object(peer) for peer in found[:limit]]
        after = found[limit - 1].connection_id if limit and len(found) > limit else None
        return answer_json(request, page_of(shown, after, "connections"))

    async def end(self, request: IRequest, connection_id: str) -> None:
        """Close a connection."""
        self._backends.authenticate(bearer_token(request))
        if not self._node.end(connection_id):
            raise NotFound("There is no such connection")
        request.setResponseCode(204)

    async def end_all(self, request: IRequest, user: str) -> bytes:
        """Close all connections of a user."""
        self._backends.authenticate(bearer_token(request))
        return answer_json(request, {"closed": self._node.end_all(user)})


def _connection_object(peer: Peer) -> dict[str, Any]:
    identity = peer.identity
    shown: dict[str, Any] = {
        "connection_id": peer.connection_id,
        "user_id": identity.user_id,
        "subscriptions": len(peer.topics),
    }
    if identity.username is not None:
        shown["username"] = identity.username
    if identity.session_id is not None:
        shown["session_id"] = identity.session_id
    return shown
