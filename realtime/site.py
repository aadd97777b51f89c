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


class FrontDoor(Protocol):
    """Looks at the first bytes of a connection, then gives it to the protocol they ask for."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen = b""
        self._deadline = 0

    def connectionMade(self) -> None:
        """Set a deadline for the first bytes."""
        site = self._site
        self._deadline = site.node.deadlines.schedule(self, site.node.tick + site.patience)

    def on_deadline(self, tick: int) -> None:
        """Drop a connection that says nothing."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the deadline."""
        self._site.node.deadlines.cancel(self, self._deadline)

    def dataReceived(self, data: bytes) -> None:
        """Decide as soon as the bytes allow it."""
        self._seen += data
        start = self._seen[:_ENOUGH]
        if start in _WEBSOCKET:
            self._give_to(self._site.websocket)
        elif not any(target.startswith(start) for target in _WEBSOCKET):
            self._give_to(self._site.http)

    def _give_to(self, factory: IProtocolFactory) -> None:
        self._site.node.deadlines.cancel(self, self._deadline)
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
    """The factory of the one port. `patience` is how long a silent connection is kept, seconds."""

    def __init__(
        self,
        node: Node,
        websocket: IProtocolFactory,
        http: IProtocolFactory,
        *,
        patience: int = 10,
    ) -> None:
        self.node = node
        self.websocket = websocket
        self.http = http
        self.patience = patience

    def doStart(self) -> None:
        """Start what the port's own factory would have started: the other two."""
        self.http.doStart()
        self.websocket.doStart()

    def doStop(self) -> None:
        """Stop them."""
        self.websocket.doStop()
        self.http.doStop()

    def buildProtocol(self, addr: IAddress | None) -> FrontDoor:
        """Make a front door."""
        return FrontDoor(self)
