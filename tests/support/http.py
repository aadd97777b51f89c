"""HTTP for tests: the real application in memory, on a channel in memory, and on a socket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import treq
from treq.testing import RequestTraversalAgent
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource, Resource

from realtime.auth import Auth
from realtime.database import Database
from realtime.http import HttpSite
from realtime.http_request import HttpLimits
from realtime.metrics import Metrics
from realtime.node import Node
from realtime.origins import Origins
from realtime.rest import RestApi, ServerInfo
from tests.support.identity import IdentityKit, make_clock, make_state_dir
from tests.support.node import make_node

INFO = ServerInfo("0.0.0.0", 8081, 3, 30, 60, 65536)
ADDRESS = IPv4Address("TCP", "192.0.2.1", 40000)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """All values of a header, joined."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    def json(self) -> Any:
        """The body, which has to be JSON and to say so."""
        if self.header("Content-Type") != "application/json":
            raise AssertionError(f"not JSON: {self.header('Content-Type')} {self.body!r}")
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """What is under `error`; the body has the reference's envelope and nothing else."""
        body = self.json()
        if list(body) != ["error"] or list(body["error"]) != ["code", "message", "details"]:
            raise AssertionError(f"no envelope: {body}")
        error: dict[str, Any] = body["error"]
        if not isinstance(error["details"], dict) or not error["message"]:
            raise AssertionError(f"no envelope: {body}")
        return error


class Upgraded(Resource):
    """Stands where the WebSocket edge takes over, and says that it was reached."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        """Answer as nothing else here does."""
        request.setResponseCode(299)
        return b"upgraded"


def make_auth(case: TestCase) -> Auth:
    """Make the real authentication over a database that is never opened."""
    database = Database(os.path.join(make_state_dir(case), "unused.sqlite3"), reactor)
    return IdentityKit(case, database, make_clock()).auth


def make_api(case: TestCase, node: Node | None = None, **options: Any) -> RestApi:
    """Make the application of real parts."""
    node = node or make_node(make_clock(), max_connections=3)
    settings: dict[str, Any] = {
        "metrics": Metrics(node.counters),
        "info": lambda: INFO,
        "origins": Origins(["*"]),
        "ws_resource": Upgraded(),
        **options,
    }
    auth = settings.pop("auth", None) or make_auth(case)
    return RestApi(node, auth, **settings)


async def ask(
    agent: IAgent,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Ask, and read the whole answer."""
    client = treq.client.HTTPClient(agent)
    response = await client.request(
        method, url, headers=dict(headers or {}), data=body, allow_redirects=False
    )
    return _answer(method, response.original, await readBody(response.original))


def _answer(method: str, response: Any, body: bytes) -> Answer:
    # Twisted's client has the length apart from the other headers.
    if method != "HEAD" and isinstance(response.length, int):
        response.headers.setRawHeaders("Content-Length", [str(response.length)])
    return Answer(response.code, response.headers, body)


class InMemory:
    """Asks a resource without any network."""

    def __init__(self, case: TestCase, resource: IResource) -> None:
        self._case = case
        self._agent = RequestTraversalAgent(resource)

    def __call__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Ask for a path; the answer is there at once."""
        raw = Headers({name: [value] for name, value in (headers or {}).items()})
        asked = self._agent.request(
            method.encode(), b"http://server:8081" + path.encode(), raw, _producer(body)
        )
        self._agent.flush()
        response = self._case.successResultOf(asked)
        read = readBody(response)
        self._agent.flush()
        return _answer(method, response, self._case.successResultOf(read))


def _producer(body: bytes | None) -> Any:
    from treq.testing import _SynchronousProducer

    return None if body is None else _SynchronousProducer(body)


class Wire:
    """One HTTP connection in memory: bytes in, bytes out, and a clock."""

    def __init__(self, site: HttpSite, address: IAddress = ADDRESS) -> None:
        self.site = site
        self.transport = StringTransport(peerAddress=address, lenient=True)
        self.channel = site.buildProtocol(address)
        if self.channel is not None:
            self.channel.makeConnection(self.transport)

    def send(self, *data: bytes) -> None:
        """Let the server receive these, one after the other."""
        for piece in data:
            self.channel.dataReceived(piece)

    def end(self) -> None:
        """Let the connection end, as a socket does."""
        self.transport.producer = None
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        """Whether the server has closed the connection."""
        return self.transport.disconnecting

    def answers(self) -> list[Answer]:
        """Take the answers that are there; each has a Content-Length."""
        data = self.transport.value()
        self.transport.clear()
        answers = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode("ascii").split("\r\n")
            headers = Headers()
            for line in lines:
                name, _, value = line.partition(": ")
                headers.addRawHeader(name, value)
            size = int(headers.getRawHeaders("Content-Length", [str(len(data))])[0])
            status = int(first.split(" ")[1])
            if status in (100, 204, 304):
                size = 0
            answers.append(Answer(status, headers, data[:size]))
            data = data[size:]
        return answers

    def answer(self) -> Answer:
        """Take the one answer that is there."""
        (answer,) = self.answers()
        return answer


def make_site(resource: IResource, clock: Clock | None = None, **limits: Any) -> HttpSite:
    """Make a site on a clock."""
    return HttpSite(resource, clock or Clock(), limits=HttpLimits(**limits))


class OnSocket:
    """Serves a resource on a loopback port, and asks it."""

    def __init__(self, case: TestCase, resource: IResource, **limits: Any) -> None:
        self.site = HttpSite(resource, reactor, limits=HttpLimits(**limits))
        port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port: int = port.getHost().port
        pool = HTTPConnectionPool(reactor, persistent=True)
        self._agent = Agent(reactor, pool=pool)
        case.addCleanup(self.site.close_all)
        case.addCleanup(port.stopListening)
        case.addCleanup(pool.closeCachedConnections)

    async def __call__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Ask for a path."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return await ask(self._agent, method, url, headers, body)
