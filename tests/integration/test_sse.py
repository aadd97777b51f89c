"""Streams of server-sent events from real servers, to programs and to a browser."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.redis import new_prefix, shared_redis
from tests.support.server import Server, free_port, run
from tests.support.streams import Event, read_events

CONFIG = """
[[topic]]
pattern = "kept.>"
history_size = 100
durable = true
"""


class Stream:
    """A stream that is read as it comes."""

    def __init__(self, case: SseTestCase, server: Server, *topics: str, last_id: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        case.addCleanup(self._connection.close)
        headers = {"Authorization": f"Bearer {case.token}"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        query = urlencode([("topics", topic) for topic in topics])
        self._connection.request("GET", f"/sse?{query}", headers=headers)
        self._response = self._connection.getresponse()
        case.assertEqual(self._response.status, 200)
        self._rest = b""
        self._events: list[Event] = []
        self.last_id = last_id
        self.id: str = self.next()["data"]["connection_id"]

    def event(self) -> Event | None:
        """The next event, or None at the end."""
        while not self._events:
            data = self._response.read1(65536)
            if not data:
                return None
            self._events, self._rest = read_events(self._rest + data)
        event = self._events.pop(0)
        self.last_id = event.id or self.last_id
        return event

    def next(self) -> dict[str, Any]:
        """The next message."""
        event = self.event()
        assert event is not None
        assert event.name == "message", event
        message: dict[str, Any] = json.loads(event.data)
        return message

    def until(self, type: str) -> dict[str, Any]:
        """The next message of a type."""
        while (message := self.next())["type"] != type:
            pass
        return message


class SseTestCase(SynchronousTestCase):
    """Servers with one state directory."""

    def setUp(self) -> None:
        """Start one."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.config = Path(folder.name, "config.toml")
        self.config.write_text(CONFIG)
        self.state = Path(folder.name, "state")
        self.state.mkdir(mode=0o700)

    def serve(self, *options: str) -> Server:
        """Start a server."""
        server = Server(
            *("--config", str(self.config), *options), state=str(self.state), port=free_port()
        ).start()
        self.addCleanup(server.stop)
        done = run("-m", "realtime", "--state", str(self.state), "token", "--user", "admin")
        self.token = done.stdout.strip()
        return server

    def post(self, server: Server, id: str, command: Any) -> int:
        """Send a command; answer the status."""
        headers = {"Authorization": f"Bearer {self.token}"}
        status, _, _ = server.request("POST", f"/sse/{id}", command, **headers)
        return status


class StreamTests(SseTestCase):
    """Programs."""

    def test_restart(self) -> None:
        """A server that stops says so; with the last id nothing is missed or doubled after it."""
        server = self.serve()
        stream = Stream(self, server, "kept.a")
        stream.until("Status")
        for number in range(3):
            command = {"type": "Broadcast", "data": {"topic": "kept.a", "payload": number}}
            self.assertEqual(self.post(server, stream.id, command), 202)
        found = [stream.until("Broadcast")["data"]["payload"] for _ in range(2)]
        server.stop()
        events = []
        while (event := stream.event()) is not None:
            events.append(event)
        self.assertEqual(events[-1].name, "close")
        self.assertEqual(json.loads(events[-1].data)["code"], 1012)
        server.start()
        again = Stream(self, server, "kept.a", last_id=stream.last_id)
        publish = {"topic": "kept.a", "payload": 3}
        headers = {"Authorization": f"Bearer {self.token}"}
        self.assertEqual(server.request("POST", "/publish", publish, **headers)[0], 200)
        found += [json.loads(event.data)["data"]["payload"] for event in events if event.id]
        # What was being stored as the server stopped comes after it.
        while len(found) < 4:
            found.append(again.until("Broadcast")["data"]["payload"])
        self.assertEqual(found, [0, 1, 2, 3])

    def test_nodes(self) -> None:
        """Any node takes commands for a stream of another; a foreign or ended one is not there."""
        options = ("--redis", shared_redis().url, "--redis-prefix", new_prefix())
        one, two = self.serve(*options), self.serve(*options)
        stream = Stream(self, one, "kept.a")
        stream.until("Status")
        command = {"type": "Broadcast", "data": {"topic": "kept.a", "payload": 1}, "id": 7}
        self.assertEqual(self.post(two, stream.id, command), 202)
        self.assertEqual(stream.until("Broadcast")["data"]["payload"], 1)
        other = Stream(self, two)
        self.assertEqual(self.post(one, other.id, [{"type": "Ping", "id": 1}]), 202)
        self.assertEqual(other.until("Pong")["id"], 1)
        for id in (f"{stream.id}0", "gone-1", "x"):
            self.assertEqual(self.post(two, id, command), 404)


class BrowserTests(SseTestCase):
    """A browser's own EventSource."""

    def test_event_source(self) -> None:
        """It reads, and goes on by itself where it was once its stream has ended."""
        if reason := no_browser():
            self.skipTest(reason)
        server = self.serve()
        folder = Path(self.mktemp())
        folder.mkdir()
        result, _ = drive(
            folder,
            """
            const page = await open();
            await page.goto(input.url);
            await page.evaluate(({token}) => {
              window.seen = [];
              const source = new EventSource('/sse?topics=kept.a&token=' + token);
              source.onmessage = ({data}) => {
                const {type, data: {payload, status}} = JSON.parse(data);
                window.seen.push(type === 'Broadcast' ? payload : status);
              };
            }, input);
            const seen = () => page.evaluate(() => window.seen);
            await until(async () => (await seen()).includes('subscribed'));
            const publish = (payload) => fetch(input.url + 'publish', {
              method: 'POST', body: JSON.stringify({topic: 'kept.a', payload}),
              headers: {'Content-Type': 'application/json', Authorization: 'Bearer ' + input.token},
            });
            await publish(1);
            await until(async () => (await seen()).includes(1));
            const id = await (await fetch(input.url + 'connections', {
              headers: {Authorization: 'Bearer ' + input.token}})).json();
            await fetch(input.url + 'connections/' + id.connections[0].connection_id, {
              method: 'DELETE', headers: {Authorization: 'Bearer ' + input.token}});
            await publish(2);
            await publish(3);
            await until(async () => (await seen()).includes(3));
            const result = await seen();
            """,
            url=f"{server.http_url}/",
            token=self.token,
        )
        self.assertEqual(result, ["connected", "subscribed", 1, "connected", 2, 3, "subscribed"])
