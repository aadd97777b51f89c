"""The nodes of the service as one: what is asked of all of them, from whichever was asked."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from heapq import nsmallest
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from realtime.errors import CloseCode, Unavailable
from realtime.interfaces import Cluster, Peer
from realtime.names import connection_number
from realtime.node import Node

# Topics looked at in one turn, where all are.
TOPICS_A_TURN = 5000


# By a connection's id, its user's, and the commands; answers whether there is that stream.
TakeCommands: TypeAlias = Callable[[str, str, Sequence[bytes]], Coroutine[Any, Any, bool]]


class Nodes:
    """A node, and the others where there is a cluster."""

    def __init__(self, node: Node, cluster: Cluster | None = None) -> None:
        self.node = node
        self._cluster = cluster
        # Gives commands to a stream of this node, by the edge that has such.
        self.take_commands: TakeCommands = _no_streams
        # What other parts answer, by the question.
        self.answers: dict[str, Callable[..., Any]] = {}

    async def describe(self) -> list[dict[str, Any]] | None:
        """What each node says of itself; None without a cluster."""
        return None if self._cluster is None else await self._cluster.nodes()

    async def topics(self, prefix: str, after: str, limit: int) -> list[tuple[str, int]]:
        """Topics that begin with `prefix` and follow `after`, with their numbers of subscribers."""
        if self._cluster is None:
            return await self._topics(prefix, after, limit)
        counts: dict[str, int] = {}
        for answer in await self._cluster.ask("topics", prefix, after, limit):
            for topic, count in answer:
                counts[topic] = counts.get(topic, 0) + count
        return sorted(counts.items())[:limit]

    async def connections(
        self, user: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Connections, of one user or all; those that follow the id `after`.

        Those of a node come together, the oldest first.
        """
        if self._cluster is None:
            return self._connections(user, after, limit)
        found = [
            shown
            for answer in await self._cluster.ask("connections", user, after, limit)
            for shown in answer
        ]
        return sorted(found, key=lambda shown: _order(shown["connection_id"]))[:limit]

    async def end(self, connection_id: str) -> bool:
        """Close a connection by force; answer whether there is one of that id."""
        if self._cluster is None:
            return self._end(connection_id)
        node = _order(connection_id)[0]
        return any(await self._cluster.ask("end", connection_id, node=node))

    async def end_all(self, user: str) -> int:
        """Close all connections of a user by force; answer how many."""
        if self._cluster is None:
            return self._end_all(user)
        return sum(await self._cluster.ask("end_all", user))

    async def command(self, connection_id: str, user_id: str, commands: Sequence[bytes]) -> bool:
        """Have a user's stream obey commands; answer whether there is one of that id.

        Raises `Unavailable` where it does not take them now.
        """
        node = _order(connection_id)[0]
        if self._cluster is None or node == self.node.node_id:
            return await self.take_commands(connection_id, user_id, commands)
        answers = await self._cluster.ask("command", connection_id, user_id, commands, node=node)
        if answers == [None]:
            raise Unavailable("The stream does not take commands now.")
        return any(answers)

    async def ask(self, question: str, *args: Any) -> list[Any]:
        """What all nodes answer that `answers` a question; this one alone without the broker."""
        if self._cluster is not None:
            try:
                return await self._cluster.ask(question, *args)
            except Unavailable:
                pass
        return [self.answers[question](*args)]

    async def _command(
        self, connection_id: str, user_id: str, commands: Sequence[bytes]
    ) -> bool | None:
        try:
            return await self.take_commands(connection_id, user_id, commands)
        except Unavailable:
            return None

    async def answer(self, question: str, args: list[Any]) -> Any:
        """Answer what another node asks; raises `ValueError` where it is not understood."""
        if question == "topics":
            return await self._topics(*args)
        if question == "command":
            return await self._command(*args)
        answers: dict[str, Callable[..., Any]] = {
            "connections": self._connections,
            "end": self._end,
            "end_all": self._end_all,
            **self.answers,
        }
        if question not in answers:
            raise ValueError(f"nobody knows what {question!r} means")
        return answers[question](*args)

    async def _topics(self, prefix: str, after: str, limit: int) -> list[tuple[str, int]]:
        hub = self.node.hub
        names = hub.topics()
        found: list[str] = []
        for start in range(0, len(names), TOPICS_A_TURN):
            if start:
                turn: Deferred[None] = Deferred()
                self.node.clock.callLater(0, turn.callback, None)
                await turn
            part = names[start : start + TOPICS_A_TURN]
            found += [name for name in part if name > after and name.startswith(prefix)]
            found = nsmallest(limit, found)
        return [(name, hub.subscribers(name)) for name in found]

    def _connections(self, user: str | None, after: str | None, limit: int) -> list[dict[str, Any]]:
        hub = self.node.hub
        peers = hub.connections() if user is None else hub.connections_of(user)
        if after is not None and self._cluster is None:
            # By its number: that connection may have ended since.
            peers = [peer for peer in peers if peer.number > connection_number(after)]
        elif after is not None:
            here = self.node.node_id
            peers = [peer for peer in peers if (here, peer.number) > _order(after)]
        return [_shown(peer) for peer in peers[:limit]]

    def _end(self, connection_id: str) -> bool:
        peer = self.node.hub.connection(connection_id)
        if peer is not None:
            peer.close(CloseCode.FORCED)
        return peer is not None

    def _end_all(self, user: str) -> int:
        peers = self.node.hub.connections_of(user)
        for peer in peers:
            peer.close(CloseCode.FORCED)
        return len(peers)


async def _no_streams(connection_id: str, user_id: str, commands: Sequence[bytes]) -> bool:
    return False


def _order(connection_id: str) -> tuple[str, int]:
    """The node of a connection, and its number there."""
    return connection_id.rpartition("-")[0], connection_number(connection_id)


def _shown(peer: Peer) -> dict[str, Any]:
    """A connection, as backends see it."""
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
