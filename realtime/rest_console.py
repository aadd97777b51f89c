"""What the console asks beyond the server API: the last hour, accounts, traces. For admins only.

These routes are the page's own: they may change with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from klein import Klein
from msgspec import Meta, Struct
from msgspec.json import Decoder
from twisted.web.iweb import IRequest

from realtime.answers import answer_json
from realtime.auth import Auth
from realtime.backends import Backends
from realtime.errors import InvalidRequest, NotFound
from realtime.names import is_name
from realtime.nodes import Nodes
from realtime.rest_requests import add_route, bearer_token, query_number, read_body
from realtime.samples import PERIOD, Samples
from realtime.topics import check_pattern
from realtime.tracing import Tracing

# Nodes whose last events a reader may name.
_MAX_NODES: Final = 1000
_FOREVER: Final = 2**40

TraceId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{16,64}$")]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
After = Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(max_length=_MAX_NODES)]


class ReadTrace(Struct):
    """Begin a trace, or read on: `after` has the last event seen, by node."""

    id: TraceId
    user: Name | None = None
    topic: Name | None = None
    after: After = {}


_decode_read = Decoder(ReadTrace)


@dataclass(frozen=True, slots=True)
class Console:
    """What the console shows of this node."""

    samples: Samples
    tracing: Tracing


def add_console_data(
    app: Klein, console: Console, nodes: Nodes, backends: Backends, auth: Auth
) -> None:
    """Add the routes to an application, and this node's answers to those of the others."""
    api = _Console(console, nodes, backends, auth)
    nodes.answers["samples"] = api.samples_since
    nodes.answers["trace"] = console.tracing.read
    nodes.answers["end_trace"] = console.tracing.end
    add_route(app, "GET", "/console/samples", api.samples)
    add_route(app, "GET", "/console/users/<path:user>", api.user)
    add_route(app, "POST", "/console/trace", api.read_trace)
    add_route(app, "DELETE", "/console/trace/<id>", api.end_trace)


class _Console:
    def __init__(self, console: Console, nodes: Nodes, backends: Backends, auth: Auth) -> None:
        self._samples = console.samples
        self._nodes = nodes
        self._backends = backends
        self._auth = auth

    def samples_since(self, second: int) -> dict[str, Any]:
        """Answer this node's samples after a second."""
        return {"node_id": self._nodes.node.node_id, "samples": self._samples.since(second)}

    async def samples(self, request: IRequest) -> bytes:
        """The last hour of each node, or what of it follows a second."""
        self._backends.admin(bearer_token(request))
        found = await self._nodes.ask("samples", query_number(request, "after", 0, _FOREVER))
        found.sort(key=lambda each: each["node_id"])
        now = self._nodes.node.now()
        return answer_json(request, {"now": now, "period": PERIOD, "nodes": found})

    async def user(self, request: IRequest, user: str) -> bytes:
        """The account of a user, by id or username."""
        identity = self._backends.admin(bearer_token(request))
        account = await self._auth.user(user) if is_name(user) else None
        if account is None:
            raise NotFound("There is no such account here")
        self._backends.audit.act(request, identity, "account_read", user=account.user_id)
        shown = {
            "id": account.user_id,
            "username": account.username,
            "roles": list(account.roles),
            "created_at": int(account.created_at),
            "disabled": account.disabled,
        }
        return answer_json(request, shown)

    async def read_trace(self, request: IRequest) -> bytes:
        """Begin a trace on all nodes, or read what has happened on each since."""
        identity = self._backends.admin(bearer_token(request))
        body = read_body(request, _decode_read)
        if body.user is None and body.topic is None:
            raise InvalidRequest("A user or a topic is needed", details={"field": "user"})
        if body.user is not None and not is_name(body.user):
            raise InvalidRequest("That cannot be a user's name", details={"field": "user"})
        if body.topic is not None and (problem := check_pattern(body.topic)) is not None:
            raise InvalidRequest(problem, details={"field": "topic"})
        names = [] if body.user is None else [body.user]
        if body.user is not None and not body.after:
            account = await self._auth.user(body.user)
            if account is not None:
                names += [account.user_id, account.username]
        if not body.after:
            self._backends.audit.act(request, identity, "trace", user=body.user, topic=body.topic)
        found = await self._nodes.ask("trace", body.id, names, body.topic, body.after)
        found.sort(key=lambda each: each["node_id"])
        return answer_json(request, {"nodes": found})

    async def end_trace(self, request: IRequest, id: str) -> None:
        """End a trace."""
        self._backends.admin(bearer_token(request))
        if not any(await self._nodes.ask("end_trace", id)):
            raise NotFound("There is no such trace")
        request.setResponseCode(204)
