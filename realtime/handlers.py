"""What the commands of a client mean that need nothing of the connection but its policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from msgspec import UNSET, Raw

from realtime.envelope import (
    CommandId,
    History,
    Ping,
    Presence,
    Unsubscribe,
    encode_entries,
)
from realtime.errors import Conflict, Forbidden, InvalidRequest, NotFound, RealtimeError
from realtime.interfaces import Peer
from realtime.model import Member, Namespace, Position, Publication
from realtime.node import Node
from realtime.rules import Right, has_right

# Entries of one History or Presence message, and bytes of a user's state.
MAX_PAGE = 1000
MAX_STATE = 1024
# Bytes that a publication has beside its payload, or a little less.
ENVELOPE = 120
# What a topic of a command costs, or an entry of an answer, in messages of the rate limit, and what
# one that is denied costs, which has an Error of its own.
TOPIC_COST = 0.05
DENIAL_COST = 1.0


class Bounds(Protocol):
    """What a client is held to: its subscriptions, and bytes of publications in one answer."""

    @property
    def max_subscriptions(self) -> int:
        """How many topics and patterns it may subscribe to."""

    @property
    def max_topics(self) -> int:
        """How many of them one command may name."""

    @property
    def max_reply(self) -> int:
        """How many bytes of publications one answer may have."""


class Caller(Peer, Protocol):
    """The client whose command it is."""

    node: Node

    @property
    def policy(self) -> Bounds:
        """What it is held to."""

    @property
    def is_open(self) -> bool:
        """Whether it still takes messages."""

    def tell(self, type: str, data: dict[str, Any], id: CommandId) -> None:
        """Send a message in order with publications."""

    def answer(self, type: str, data: dict[str, Any], id: CommandId) -> None:
        """Send a message without regard to publications."""

    def refuse(self, error: RealtimeError, id: CommandId, *, in_order: bool = False) -> None:
        """Send an Error, as `answer` does or, in order, as `tell`."""

    def check_limits(self, namespace: Namespace, payload: Raw, field: str) -> None:
        """Hold what goes to all of a topic to its namespace's rate and size; raises errors."""

    def spend(self, messages: float) -> None:
        """Charge what a command took beyond itself, in messages of the rate limit."""


def ping(caller: Caller, command: Ping) -> None:
    """Answer with the time."""
    data: dict[str, Any] = {"server_time": int(caller.node.now() * 1000)}
    if command.data is not None and command.data.timestamp is not None:
        data["timestamp"] = command.data.timestamp
    caller.answer("Pong", data, command.id)


def unsubscribe(caller: Caller, command: Unsubscribe) -> None:
    """Leave topics and patterns."""
    names = names_of(caller, command.data.topics)
    caller.node.unsubscribe_all(caller, names)
    caller.tell("Status", {"status": "unsubscribed", "topics": list(names)}, command.id)


async def read_history(caller: Caller, command: History) -> None:
    """Answer with what was published on a topic."""
    data = command.data
    namespace = _readable(caller, data.topic, "read_history", "read the history of")
    if not namespace.history_size:
        raise NotFound("No history is kept of this topic", details={"topic": data.topic})
    since = None if data.since is None else Position(data.since.offset, data.since.epoch)
    limit = min(data.limit, MAX_PAGE)
    page = await caller.node.history(
        data.topic, namespace, since=since, limit=limit, reverse=data.reverse
    )
    if page is None:
        raise Conflict(
            "What followed this position is no longer all there", details={"topic": data.topic}
        )
    publications = list(within(page.publications, caller.policy.max_reply))
    caller.spend(len(publications) * TOPIC_COST)
    answer = {
        "topic": data.topic,
        "publications": encode_entries(publications),
        "offset": page.position.offset,
        "epoch": page.position.epoch,
    }
    caller.answer("History", answer, command.id)


async def presence(caller: Caller, command: Presence) -> None:
    """Answer with who is on a topic; set the caller's own state there, where it is given."""
    data = command.data
    topic = data.topic
    namespace = _readable(caller, topic, "read_presence", "see who is on")
    if not namespace.presence:
        raise NotFound("No presence is kept of this topic", details={"topic": topic})
    if data.state is UNSET:
        limit = min(data.limit, MAX_PAGE)
        page = await caller.node.present(topic, limit=limit, after=data.after)
        caller.spend(len(page.members) * TOPIC_COST)
        answer = {
            "topic": topic,
            "users": page.users,
            "connections": page.connections,
            "members": [member_object(member) for member in page.members],
        }
        if page.after is not None:
            answer["after"] = page.after
        caller.answer("Presence", answer, command.id)
        return
    caller.check_limits(namespace, data.state, "data.state")
    state = bytes(data.state)
    if len(state) > MAX_STATE:
        raise InvalidRequest(
            f"A state has at most {MAX_STATE} bytes", details={"field": "data.state"}
        )
    member = None
    if topic in caller.topics:
        user_id = caller.identity.user_id
        member = await caller.node.set_state(topic, user_id, None if state == b"null" else state)
    if member is None:
        raise Conflict("Only who has subscribed has a state", details={"topic": topic})
    answer = {"topic": topic, "members": [member_object(member)]}
    caller.answer("Presence", answer, command.id)


def member_object(member: Member) -> dict[str, Any]:
    """A present user, as clients and backends see them."""
    shown: dict[str, Any] = {"user_id": member.user_id, "connections": member.connections}
    if member.username is not None:
        shown["username"] = member.username
    if member.state is not None:
        shown["state"] = Raw(member.state)
    return shown


def forbidden(act: str, topic: str) -> Forbidden:
    """The refusal of a topic."""
    return Forbidden(f"You may not {act} this topic", details={"topic": topic})


def names_of(caller: Caller, named: list[str]) -> dict[str, None]:
    """The topics and patterns named, each once; one that is neither refuses the whole command."""
    caller.spend(len(named) * TOPIC_COST)
    limit = caller.policy.max_topics
    if len(named) > limit:
        caller.node.counters.limit("max-topics")
        raise InvalidRequest(
            f"A command names at most {limit} topics",
            details={"field": "data.topics", "max_topics": limit},
        )
    names = dict.fromkeys(named)
    for name in names:
        problem = caller.node.lookup(name)
        if type(problem) is str:
            raise InvalidRequest(problem, details={"field": "data.topics", "topic": name})
    return names


def _readable(caller: Caller, topic: str, right: Right, act: str) -> Namespace:
    """The namespace of a topic that the caller may read something of."""
    namespace = topic_namespace(caller.node, topic)
    if namespace is None or not has_right(caller.identity, right, namespace, topic):
        raise forbidden(act, topic)
    return namespace


def topic_namespace(node: Node, topic: str, field: str = "data.topic") -> Namespace | None:
    """The namespace of what has to be a topic; None where nobody may use it."""
    namespace = node.lookup(topic)
    if type(namespace) is str or (namespace is None and ("*" in topic or ">" in topic)):
        problem = namespace or "a topic cannot contain '*' or '>', which belong to patterns"
        raise InvalidRequest(problem, details={"field": field})
    return namespace if isinstance(namespace, Namespace) else None


def within(publications: Iterable[Publication], size: int) -> Iterable[Publication]:
    """The first of some publications: as many as `size` bytes hold, and one at least."""
    for number, publication in enumerate(publications):
        size -= ENVELOPE + len(bytes(publication.payload))
        if size < 0 and number:
            return
        yield publication
