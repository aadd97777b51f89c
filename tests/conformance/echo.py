"""An echo server on the product's own protocol and factory, for the Autobahn|Testsuite.

`python -m tests.conformance.echo PORT [--public] [--compression]`: on the quick path unless
`--public` is given.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from realtime.fastpath import connection_class
from realtime.frames import text_frame
from realtime.origins import Origins
from realtime.policy import WebSocketOptions
from realtime.websocket import Connection, Factory
from tests.support.node import make_node

# Case 9 sends messages of 16 MB; the whole echo may wait.
MAX_SIZE = 32 * 1024 * 1024


class EchoClient:
    """Stands where `peer.Client` does, and gives back what it receives."""

    is_open = True
    heard = received = 0
    policy = SimpleNamespace(byte_rate=sys.maxsize)

    def __init__(self, transport: Connection) -> None:
        self._transport = transport
        self.send = transport.send

    def open(self) -> None:
        """Begin: there is no welcome, with which the handshake's answer would go out."""
        self.send(b"")

    def receive(self, message: bytes) -> None:
        """Send it back."""
        frame = text_frame(message)
        try:
            sent = self.send(frame)
        except OSError:
            sent = 0
        if sent != len(frame):
            self._transport.unsent(frame, sent)

    def took(self, size: int) -> bool:
        """Any number of bytes."""
        return False

    def charge(self) -> bool:
        """Limit nothing."""
        return True

    def mute(self) -> None:
        """Send nothing more."""
        self.is_open = False
        self.send = len

    def closed(self, code: int) -> None:
        """The connection has ended."""
        self.mute()


class EchoAdmission:
    """Admits everybody, and makes echoing clients of them."""

    asks = False
    token_in_url = True
    origins = Origins(["*"])

    def __init__(self) -> None:
        self.node = make_node(reactor, max_connections=1000)

    def admit(self, *_: Any) -> Any:
        """Whoever it is."""
        return object()

    def network(self, *_: Any) -> str:
        """Wherever they come from."""
        return ""

    def leave(self, client: EchoClient) -> None:
        """Count nothing."""

    def client(self, transport: Connection, *_: object) -> EchoClient:
        """One that echoes."""
        return EchoClient(transport)


def echoing(base: type[Connection]) -> type[Connection]:
    """The product's protocol, but that binary messages are echoed, too."""

    class Echo(base):  # type: ignore[valid-type, misc]
        """Echoes."""

        def onMessageBegin(self, isBinary: bool) -> None:
            """Take binary messages, which the product refuses."""
            WebSocketServerProtocol.onMessageBegin(self, isBinary)

        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            """Echo a binary message as such."""
            if isBinary:
                self.sendMessage(payload, True)
            else:
                super().onMessage(payload, isBinary)

    return Echo


def main(port: int, *options: str) -> None:
    """Serve until a signal comes."""
    connection = Connection if "--public" in options else connection_class()
    admission: Any = EchoAdmission()
    limits = WebSocketOptions(MAX_SIZE, 2 * MAX_SIZE, "--compression" in options)
    factory = Factory(admission, limits, reactor, echoing(connection))
    # The hub has no queue for a client that is not in it.
    admission.node.hub.finish = lambda client: None
    reactor.listenTCP(port, factory, interface="127.0.0.1")
    LoopingCall(admission.node.advance).start(1.0)
    print(f"echoing on port {port}, {connection.__name__}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
