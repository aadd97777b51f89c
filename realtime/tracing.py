"""The traces of this node: begun by being read, ended by their readers, or by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from realtime.admission import Admission
from realtime.model import Identity, Namespace
from realtime.node import Node
from realtime.topics import is_pattern
from realtime.trace import Trace, some
from realtime.trace_hooks import TraceHooks, peers_of

_log = Logger()

MAX_TRACES: Final = 8
# Seconds between looks for traces that are over.
_LOOK: Final = 5.0
# Connections of a user that are described at the beginning of a trace.
_DESCRIBED: Final = 10


class Tracing:
    """Begins traces where they are read for the first time. `authenticate` judges tokens."""

    def __init__(
        self, node: Node, admission: Admission, authenticate: Callable[[str], Identity]
    ) -> None:
        self._node = node
        self._traces: dict[str, Trace] = {}
        self._hooks = TraceHooks(node, admission, authenticate, self._traces)
        self._looking: IDelayedCall | None = None

    def read(
        self, id: str, user: Sequence[str], topic: str | None, after: dict[str, int]
    ) -> dict[str, Any]:
        """What there is of a trace after a number by node; a node not named there begins it."""
        node = self._node
        here: dict[str, Any] = {"node_id": node.node_id, "events": []}
        trace = self._traces.get(id)
        if trace is None:
            if node.node_id in after:
                return here | {"ended": "over"}
            if len(self._traces) >= MAX_TRACES:
                return here | {"ended": "full"}
            trace = self._begin(id, user, topic)
        return here | trace.read(after.get(node.node_id, 0), node.now())

    def end(self, id: str) -> bool:
        """End a trace; answer whether there was one."""
        trace = self._traces.pop(id, None)
        if trace is not None and not self._traces:
            self._hooks.undo()
        return trace is not None

    def _begin(self, id: str, user: Sequence[str], topic: str | None) -> Trace:
        if not self._traces:
            self._hooks.do()
        if self._looking is None:
            self._looking = self._node.clock.callLater(_LOOK, self._look)
        trace = self._traces[id] = Trace(user, topic, self._node.now())
        try:
            self._describe(trace, user)
        except Exception:
            _log.failure("The beginning of a trace could not be described")
        return trace

    def _describe(self, trace: Trace, user: Sequence[str]) -> None:
        """Note how things are as the trace begins."""
        node, topic = self._node, trace.topic
        more: dict[str, Any] = {"topic": topic}
        if topic is not None:
            more["subscribers"] = node.hub.subscribers(topic)
            if not is_pattern(topic):
                namespace = node.lookup(topic)
                more["usable"] = isinstance(namespace, Namespace)
        if user:
            peers = peers_of(node, user)
            for peer in peers:
                trace.learn(peer.identity.user_id)
                trace.learn(peer.identity.username)
            more["of_user"] = len(peers)
            more["connections"] = [
                {"connection": peer.connection_id, **some(trace.names(peer.topics))}
                for peer in peers[:_DESCRIBED]
            ]
            if peers and topic is not None:
                decision = node.rules.explain(peers[0].identity, "subscribe", topic)
                more |= {"allowed": decision.allowed, "why": decision.reason}
        trace.note(node.now(), "now", **more)

    def _look(self) -> None:
        self._looking = None
        now = self._node.now()
        for id in [id for id, trace in self._traces.items() if trace.is_over(now)]:
            self.end(id)
        if self._traces:
            self._looking = self._node.clock.callLater(_LOOK, self._look)
