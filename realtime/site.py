"""One port for everything: `GET /ws` goes to the WebSocket edge, the rest to HTTP.

The first bytes of a connection tell which of the two it is, so that neither pays for the other.
A WebSocket that is asked for later, on a kept-alive HTTP connection, goes through the resource
that `WebSocketResource` makes of the same factory.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from realtime.node import Node

_WEBSOCKET = (b"GET /ws ", b"GET /ws?")
_ENOUGH = len(_WEBSOCKET[0])
# Enough for the moments in which very many clients connect at once.
MAX_SILENT = 4096


class FrontDoor(Protocol):
    """Looks at the first bytes of a connection, then gives it to the protocol they ask for."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen = b""
        self._deadline = 0

    def connectionMade(self) -> None:
        """Set a deadline for the first bytes."""
        site = self._site
        site.open(self)
        self._deadline = site.node.deadlines.schedule(self, site.node.tick + site.patience)

    def on_deadline(self, tick: int) -> None:
        """Drop a connection that says nothing."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._leave()

    def dataReceived(self, data: bytes) -> None:
        """Decide as soon as the bytes allow it."""
        self._seen += data
        start = self._seen[:_ENOUGH]
        if start in _WEBSOCKET:
            self._give_to(self._site.websocket)
        elif not any(target.startswith(start) for target in _WEBSOCKET):
            self._give_to(self._site.http)

    def _leave(self) -> None:
        self._site.node.deadlines.cancel(self, self._deadline)
        self._site.doors.pop(self, None)

    def _give_to(self, factory: IProtocolFactory) -> None:
        self._leave()
        transport = self.transport
        assert transport is not None  # noqa: S101
        protocol = factory.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()  # type: ignore[attr-defined]
            return
        if isinstance(transport, ProtocolWrapper):  # TLS
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol  # type: ignore[attr-defined]
        protocol.makeConnection(transport)
        protocol.dataReceived(self._seen)


@implementer(IProtocolFactory)
class Site:
    """The factory of the one port.

    A silent connection is kept for `patience` seconds, and only while there are at most
    `max_silent` of them: the oldest makes room.
    """

    def __init__(
        self,
        node: Node,
        websocket: IProtocolFactory,
        http: IProtocolFactory,
        *,
        patience: int = 10,
        max_silent: int = MAX_SILENT,
    ) -> None:
        self.node = node
        self.websocket = websocket
        self.http = http
        self.patience = patience
        self._max_silent = max_silent
        # Connections of which nothing is known yet, the oldest first.
        self.doors: dict[FrontDoor, None] = {}

    def doStart(self) -> None:
        """Start what the port's own factory would have started: the other two."""
        self.http.doStart()
        self.websocket.doStart()

    def doStop(self) -> None:
        """Stop them."""
        self.websocket.doStop()
        self.http.doStop()

    def open(self, door: FrontDoor) -> None:
        """A connection has been made, of which nothing is known yet."""
        if len(self.doors) >= self._max_silent:
            oldest = next(iter(self.doors))
            del self.doors[oldest]
            self.node.counters.dropped_silent_connections += 1
            oldest.transport.abortConnection()  # type: ignore[union-attr]
        self.doors[door] = None

    def buildProtocol(self, addr: IAddress | None) -> FrontDoor:
        """Make a front door."""
        return FrontDoor(self)
