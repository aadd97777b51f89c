"""The server API: topics, who is on them, and what was published."""

from __future__ import annotations

from klein import Klein
from twisted.web.iweb import IRequest

from realtime.answers import answer_json
from realtime.backends import Backends
from realtime.envelope import DEFAULT_PAGE, MAX_KEY, encode_entries
from realtime.errors import Conflict, InvalidRequest, NotFound
from realtime.handlers import MAX_PAGE, member_object, topic_namespace, within
from realtime.model import Namespace, Position
from realtime.node import Node
from realtime.nodes import Nodes
from realtime.rest_requests import (
    add_route,
    bearer_token,
    page_of,
    query,
    query_number,
    query_switch,
)

# Bytes of publications in one answer.
MAX_ANSWER = 1024 * 1024


def add_topics(app: Klein, nodes: Nodes, backends: Backends) -> None:
    """Add the routes to an application."""
    api = _Topics(nodes, backends)
    add_route(app, "GET", "/topics", api.topics)
    add_route(app, "GET", "/topics/<path:topic>/presence", api.presence)
    add_route(app, "GET", "/topics/<path:topic>/history", api.history)
    add_route(app, "DELETE", "/topics/<path:topic>/history", api.remove_history)


class _Topics:
    def __init__(self, nodes: Nodes, backends: Backends) -> None:
        self._nodes = nodes
        self._node: Node = nodes.node
        self._backends = backends

    async def topics(self, request: IRequest) -> bytes:
        """Topics that have subscribers, by name."""
        self._backends.authenticate(bearer_token(request))
        limit = query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE)
        found = await self._nodes.topics(
            query(request, "prefix") or "", query(request, "after") or "", limit + 1
        )
        shown = [{"topic": topic, "subscribers": count} for topic, count in found[:limit]]
        after = found[limit - 1][0] if limit and len(found) > limit else None
        return answer_json(request, page_of(shown, after, "topics"))

    async def presence(self, request: IRequest, topic: str) -> bytes:
        """Who is on a topic."""
        self._backends.authenticate(bearer_token(request))
        if not self._namespace(topic).presence:
            raise NotFound("No presence is kept of this topic", details={"topic": topic})
        limit = query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE)
        page = await self._node.present(topic, limit=limit, after=query(request, "after"))
        members = [member_object(member) for member in page.members]
        counts = {"topic": topic, "users": page.users, "connections": page.connections}
        return answer_json(request, counts | page_of(members, page.after, "members"))

    async def history(self, request: IRequest, topic: str) -> bytes:
        """What was published on a topic."""
        self._backends.authenticate(bearer_token(request))
        namespace = self._kept(topic)
        page = await self._node.history(
            topic,
            namespace,
            since=_since(request),
            limit=query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE),
            reverse=query_switch(request, "reverse"),
        )
        if page is None:
            raise Conflict(
                "What followed this position is no longer all there", details={"topic": topic}
            )
        shown = {
            "topic": topic,
            "publications": encode_entries(within(page.publications, MAX_ANSWER)),
            "offset": page.position.offset,
            "epoch": page.position.epoch,
        }
        return answer_json(request, shown)

    async def remove_history(self, request: IRequest, topic: str) -> None:
        """Forget what was published on a topic."""
        identity = self._backends.authenticate(bearer_token(request))
        self._kept(topic)
        await self._node.remove_history(topic)
        self._backends.audit.act(request, identity, "history_remove", topic=topic)
        request.setResponseCode(204)

    def _namespace(self, topic: str) -> Namespace:
        namespace = topic_namespace(self._node, topic, field="topic")
        if namespace is None:
            raise NotFound("There is no such topic", details={"topic": topic})
        return namespace

    def _kept(self, topic: str) -> Namespace:
        namespace = self._namespace(topic)
        if not namespace.history_size:
            raise NotFound("No history is kept of this topic", details={"topic": topic})
        return namespace


def _since(request: IRequest) -> Position | None:
    epoch = query(request, "since_epoch")
    if epoch is None and query(request, "since_offset") is None:
        return None
    if epoch is None or query(request, "since_offset") is None or len(epoch) > MAX_KEY:
        raise InvalidRequest(
            "'since_offset' and 'since_epoch' go together", details={"field": "since_epoch"}
        )
    return Position(query_number(request, "since_offset", 0, 2**63), epoch)
