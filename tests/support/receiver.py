"""A receiver of webhooks and hooks: in memory, or a real HTTP server on a free port."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue, maybeDeferred
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from realtime.signed_post import Connections, SignedPost, sign

SECRET = b"s" * 32
# Answers: none at all, and a connection that breaks off.
SILENCE = "silence"
BREAK = "break"


class Posted:
    """One request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body: bytes = request.content.read()
        self.path = request.uri.decode()
        self.headers = {
            name.decode().lower(): values[0].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a batch."""
        assert list(self.json) == ["events"]
        events: list[dict[str, Any]] = self.json["events"]
        return events

    @property
    def timestamp(self) -> int:
        """When it was signed."""
        return int(self.headers["x-realtime-timestamp"])

    def is_signed(self) -> bool:
        """Whether the signature is that of the body."""
        expected = sign(SECRET, self.timestamp, self.body)
        return self.headers["x-realtime-signature"] == expected

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer a request that met with silence."""
        self.request.setResponseCode(status)
        for name, value in headers.items():
            self.request.setHeader(name, value)
        self.request.write(body)
        self.request.finish()


class Receiver(Resource):
    """Answers as `answers` says, a status or `(status, body)` each, then 204 for ever."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: deque[Any] = deque()
        self.always: Any = 204
        self.posted: list[Posted] = []
        self.arrivals: DeferredQueue[Posted] = DeferredQueue()

    def render_POST(self, request: Request) -> Any:
        """Take a request."""
        posted = Posted(request)
        self.posted.append(posted)
        self.arrivals.put(posted)
        answer = self.answers.popleft() if self.answers else self.always
        if callable(answer):
            answer = answer(posted)
        if answer == SILENCE:
            return NOT_DONE_YET
        if answer == BREAK:
            request.transport.abortConnection()
            return NOT_DONE_YET
        status, body = answer if isinstance(answer, tuple) else (answer, b"")
        request.setResponseCode(status)
        return body

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events that have come, again and again where they were posted so."""
        return [event for posted in self.posted for event in posted.events]


def memory_post(
    receiver: Receiver, clock: Clock, url: str = "http://receiver.example/hook", **options: Any
) -> SignedPost:
    """Post to a receiver without a network."""
    agent = RequestTraversalAgent(receiver)
    options = {"timeout": 10.0, "max_answer": 65536, **options}
    return SignedPost(url, SECRET, agent, clock, **options)


class RealReceiver(Receiver):
    """Listens on a free port of this machine; stops with the test."""

    def __init__(self, case: TestCase | SynchronousTestCase, ssl: Any = None) -> None:
        super().__init__()
        site = Site(self)
        site.noisy = False
        self._factory = WrappingFactory(site)
        self._factory.noisy = False
        if ssl is None:
            self._port = reactor.listenTCP(0, self._factory, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, self._factory, ssl, interface="127.0.0.1")
        self.url = f"{'http' if ssl is None else 'https'}://localhost:{self._port.getHost().port}"
        case.addCleanup(self.stop)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._factory.protocols)

    async def stop(self) -> None:
        """Refuse connections from now on, and end those there are."""
        for protocol in list(self._factory.protocols):
            protocol.transport.abortConnection()
        await maybeDeferred(self._port.stopListening)


def real_post(case: TestCase, url: str, clock: Any = None, **options: Any) -> SignedPost:
    """Post by the network; connections are closed after the test."""
    connections = Connections(reactor, kept=options.pop("kept", 4))
    case.addCleanup(connections.close)
    options = {"timeout": 10.0, "max_answer": 65536, **options}
    return SignedPost(url, SECRET, connections.agent, clock or reactor, **options)
