"""The server API: connections, and ending them."""

from __future__ import annotations

from klein import Klein
from twisted.web.iweb import IRequest

from realtime.answers import answer_json
from realtime.backends import Backends
from realtime.envelope import DEFAULT_PAGE
from realtime.errors import NotFound
from realtime.handlers import MAX_PAGE
from realtime.nodes import Nodes
from realtime.rest_requests import add_route, bearer_token, page_of, query, query_number


def add_connections(app: Klein, nodes: Nodes, backends: Backends) -> None:
    """Add the routes to an application."""
    api = _Connections(nodes, backends)
    add_route(app, "GET", "/connections", api.connections)
    add_route(app, "DELETE", "/connections/<connection_id>", api.end)
    add_route(app, "DELETE", "/users/<path:user>/connections", api.end_all)


class _Connections:
    def __init__(self, nodes: Nodes, backends: Backends) -> None:
        self._nodes = nodes
        self._backends = backends

    async def connections(self, request: IRequest) -> bytes:
        """Open connections, those of a node together, the oldest first."""
        self._backends.authenticate(bearer_token(request))
        limit = query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE)
        found = await self._nodes.connections(
            query(request, "user"), query(request, "after"), limit + 1
        )
        after = found[limit - 1]["connection_id"] if limit and len(found) > limit else None
        return answer_json(request, page_of(found[:limit], after, "connections"))

    async def end(self, request: IRequest, connection_id: str) -> None:
        """Close a connection."""
        identity = self._backends.authenticate(bearer_token(request))
        if not await self._nodes.end(connection_id):
            raise NotFound("There is no such connection")
        self._backends.audit.act(request, identity, "disconnect", connection=connection_id)
        request.setResponseCode(204)

    async def end_all(self, request: IRequest, user: str) -> bytes:
        """Close all connections of a user."""
        identity = self._backends.authenticate(bearer_token(request))
        closed = await self._nodes.end_all(user)
        self._backends.audit.act(request, identity, "disconnect", user=user, connections=closed)
        return answer_json(request, {"closed": closed})
