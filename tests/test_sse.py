"""Tests of realtime.sse: streams of events over HTTP in memory, on a node of its own."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from realtime.addresses import Proxies
from realtime.admission import Admission
from realtime.errors import CloseCode, Forbidden
from realtime.event_stream import MAX_TOPIC_BYTES, MAX_TOPICS
from realtime.frames import text_frame
from realtime.http import HttpSite
from realtime.metrics import Metrics
from realtime.model import Identity, Namespace, Permissions
from realtime.nodes import Nodes
from realtime.origins import Origins
from realtime.sse import MAX_COMMANDS, Streams
from tests.support.http import Answer, InMemory, Wire, make_api
from tests.support.peers import START, World, identity_of
from tests.support.streams import Event, comments, read_events

ROOM = Namespace("room.>", history_size=100, history_ttl=600)


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """The body of a chunked answer so far, and whether it has ended."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert data == b"\r\n", "something follows the end"
            return body, True
        body += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
    return body, False


class StreamWire:
    """The client of one stream."""

    def __init__(self, case: SseTestCase, target: str, headers: dict[str, str]) -> None:
        self.world = case.world
        self.wire = Wire(case.site)
        lines = {"Host": "server:8081", **headers}
        head = [f"GET {target} HTTP/1.1", *(f"{name}: {lines[name]}" for name in lines)]
        self.wire.send("\r\n".join([*head, "", ""]).encode())
        self.world.settle()
        first, _, body = self.wire.transport.value().partition(b"\r\n\r\n")
        self.status = int(first.split(b" ")[1])
        self.head = first.decode().lower()
        self._raw = body
        self.wire.transport.clear()
        self._seen = 0
        self.last_id: str | None = None

    def body(self) -> bytes:
        """All of the body so far."""
        self.world.settle()
        self._raw += self.wire.transport.value()
        self.wire.transport.clear()
        if "transfer-encoding: chunked" not in self.head:
            return self._raw
        return dechunk(self._raw)[0]

    def events(self) -> list[Event]:
        """The events since the last reading."""
        body = self.body()
        events, rest = read_events(body)
        assert rest == b"", "half an event"
        for each in events[self._seen :]:
            self.last_id = each.id or self.last_id
        fresh, self._seen = events[self._seen :], len(events)
        return fresh

    def messages(self) -> list[dict[str, Any]]:
        """The messages since the last reading."""
        return [json.loads(each.data) for each in self.events() if each.name == "message"]

    @property
    def ended(self) -> bool:
        """Whether the answer has ended, and the connection with it."""
        self.body()
        return dechunk(self._raw)[1] and self.wire.closing

    @property
    def close_code(self) -> int | None:
        """The code that the stream's end was told with, if it was."""
        events, _ = read_events(self.body())
        codes = [json.loads(each.data)["code"] for each in events if each.name == "close"]
        return codes[0] if codes else None

    @property
    def id(self) -> str:
        """The connection's id."""
        welcome = json.loads(read_events(self.body())[0][0].data)
        id: str = welcome["data"]["connection_id"]
        return id


class SseTestCase(TestCase):
    """A world whose node has streams."""

    hooks: Any = None

    def setUp(self) -> None:
        """Make it."""
        self.make()

    def make(
        self,
        *,
        roles: frozenset[str] = frozenset(),
        max_queue: int = 1 << 20,
        per_address: int = 0,
        token_in_url: bool = True,
        **options: Any,
    ) -> None:
        """Make the world, the API and its site."""
        self.world = World(**{"topics": [ROOM], "hooks": self.hooks, **options})
        for name in ("alice", "bob"):
            self.world.tokens[name] = identity_of(name)
        nodes = Nodes(self.world.node)
        admission = Admission(
            self.world.node,
            self.world.policy,
            Origins(["https://good.example"]),
            roles,
            proxies=Proxies(["192.0.2.0/24"]),
            per_address=per_address,
            token_in_url=token_in_url,
        )
        self.streams = Streams(admission, nodes, max_queue)
        api = make_api(
            self,
            self.world.node,
            metrics=Metrics(self.world.counters),
            origins=Origins(["https://good.example"]),
            nodes=nodes,
            streams=self.streams,
        )
        self.site = HttpSite(api.resource, self.world.clock)
        self.ask = InMemory(self, api.resource)

    def stream(
        self, *topics: str, user: str = "alice", last_id: str | None = None, **query: str
    ) -> StreamWire:
        """Open a stream, and read its welcome."""
        headers = {"Authorization": f"Bearer {user}"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        stream = self.open(topics, headers, **query)
        self.assertEqual(stream.status, 200)
        (welcome, *_) = stream.messages()
        self.assertEqual(welcome["data"]["status"], "connected")
        return stream

    def open(self, topics: Any, headers: dict[str, str], **query: str) -> StreamWire:
        """Ask for a stream."""
        pairs = [("topics", topic) for topic in topics] + list(query.items())
        return StreamWire(self, f"/sse?{urlencode(pairs)}", headers)

    def post(self, stream: StreamWire | str, body: Any, user: str = "alice") -> Answer:
        """Send commands."""
        id = stream if isinstance(stream, str) else stream.id
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {user}", "Content-Type": "application/json"}
        return self.ask("POST", f"/sse/{quote(id, safe='')}", headers, text)

    def publish(self, topic: str, *payloads: Any) -> None:
        """Publish as somebody else."""
        wire = self.world.connect("publisher")
        for payload in payloads:
            wire.ask("Broadcast", {"topic": topic, "payload": payload})
        wire.client.closed(1000)


class StreamTests(SseTestCase):
    """Reading."""

    def test_head(self) -> None:
        """The answer is an event stream, which proxies are told not to collect."""
        stream = self.open([], {"Authorization": "Bearer alice"})
        for line in (
            "content-type: text/event-stream; charset=utf-8",
            "x-accel-buffering: no",
            "cache-control: no-store",
            "transfer-encoding: chunked",
        ):
            self.assertIn(line, stream.head)
        self.assertEqual(self.world.counters.active_connections, 1)

    def test_messages(self) -> None:
        """Publications and direct messages come as the envelopes of a WebSocket."""
        stream = self.stream("room.a,room.b", "news.*")
        self.publish("room.b", 1)
        self.publish("news.x", {"a": [None]})
        self.publish("room.c", 2)
        self.world.connect("bob").ask("DirectMessage", {"target_user": "alice", "payload": "hi"})
        found = [
            (each["type"], each["data"].get("topic"), each["data"].get("payload"))
            for each in stream.messages()
        ]
        self.assertEqual(
            found,
            [
                ("Broadcast", "room.b", 1),
                ("Broadcast", "news.x", {"a": [None]}),
                ("DirectMessage", None, "hi"),
            ],
        )

    def test_first_status(self) -> None:
        """Once it is subscribed a stream says so, with positions; refused topics are told."""
        permissions = Permissions(subscribe=("room.a",), publish=())
        self.world.tokens["carol"] = identity_of("carol", permissions=permissions)
        stream = self.open(["room.a", "room.b"], {"Authorization": "Bearer carol"})
        _, refused, status = stream.messages()
        self.assertEqual(
            (refused["type"], refused["data"]["details"]), ("Error", {"topic": "room.b"})
        )
        (topic,) = status["data"]["topics"]
        self.assertEqual((topic["topic"], topic["offset"]), ("room.a", 0))
        self.assertIsNotNone(stream.last_id)

    def test_merged_frames_of_all_sizes(self) -> None:
        """Messages of any length that are written at once are an event each."""
        stream = self.stream()
        sizes = [1, 100, 125, 126, 4000, 65535, 65536, 70000]
        messages = [json.dumps("x" * size).encode() for size in sizes]
        client = self.world.hub.connections()[0]
        client.send(b"".join(map(text_frame, messages)))
        self.assertEqual([each.data.encode() for each in stream.events()], messages)

    def test_old_proxy(self) -> None:
        """To HTTP/1.0 the stream is a body that ends with the connection."""
        wire = Wire(self.site)
        wire.send(b"GET /sse?token=alice HTTP/1.0\r\n\r\n")
        self.assertIn(b'\r\n\r\nretry: 2000\n\ndata: {"type":"Status"', wire.transport.value())

    def test_head_request(self) -> None:
        """HEAD has no body, and opens nothing."""
        answer = self.ask("HEAD", "/sse", {"Authorization": "Bearer alice"})
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(self.world.counters.total_connections, 0)


class RecoveryTests(SseTestCase):
    """Going on after the last event."""

    def test_missed(self) -> None:
        """A stream that comes back with its last id gets what it has missed, once, in order."""
        stream = self.stream("room.a", "room.b")
        self.publish("room.a", 1, 2)
        stream.messages()
        stream.wire.end()
        self.publish("room.a", 3, 4)
        self.publish("room.b", 5)
        again = self.open(["room.a", "room.b"], {
            "Authorization": "Bearer alice", "Last-Event-ID": stream.last_id or ""})  # fmt: skip
        _, *missed, status = again.messages()
        self.assertEqual([each["data"]["payload"] for each in missed], [3, 4, 5])
        self.assertEqual([each["recovered"] for each in status["data"]["topics"]], [True, True])

    def test_in_the_query(self) -> None:
        """The last id may stand in the query."""
        stream = self.stream("room.a")
        self.publish("room.a", 1)
        stream.messages()
        stream.wire.end()
        self.publish("room.a", 2)
        again = self.stream("room.a", last_event_id=stream.last_id or "")
        self.world.settle()
        self.assertIn(b'"payload":2', again.body())
        self.assertNotIn(b'"payload":1', again.body())

    def test_not_there_any_more(self) -> None:
        """Where the history does not reach back, the status says so, and the id is a new one."""
        stream = self.stream("room.a")
        stream.wire.end()
        self.publish("room.a", *range(150))
        again = self.open(["room.a"], {
            "Authorization": "Bearer alice", "Last-Event-ID": stream.last_id or ""})  # fmt: skip
        _, status = again.messages()
        self.assertIs(status["data"]["topics"][0]["recovered"], False)
        self.assertNotEqual(again.last_id, stream.last_id)

    def test_none_of_ours(self) -> None:
        """An id that this server has never given is refused."""
        answer = self.ask(
            "GET", "/sse", {"Authorization": "Bearer alice", "Last-Event-ID": "nonsense"}
        )
        self.assertEqual(
            (answer.status, answer.error()["details"]), (400, {"field": "Last-Event-ID"})
        )


class AdmissionTests(SseTestCase):
    """Who may open one."""

    def refused(self, path: str = "/sse", **headers: str) -> tuple[int, str]:
        """Status and code of a refusal."""
        answer = self.ask("GET", path, headers)
        return answer.status, answer.error()["code"]

    def test_tokens(self) -> None:
        """The token stands in the header or else in the query."""
        self.assertEqual(self.refused(), (401, "INVALID_TOKEN"))
        self.assertEqual(self.refused(Authorization="Bearer nobody"), (401, "INVALID_TOKEN"))
        self.assertEqual(self.refused(Authorization="Basic x"), (401, "INVALID_TOKEN"))
        # The first place found decides.
        wrong = self.refused("/sse?token=alice", Authorization="Bearer nobody")
        self.assertEqual(wrong, (401, "INVALID_TOKEN"))
        self.assertEqual(self.open([], {}, token="alice").status, 200)

    def test_no_token_in_urls(self) -> None:
        """Where URLs may have none, one there does not count."""
        self.make(token_in_url=False)
        self.assertEqual(self.refused("/sse?token=alice"), (401, "INVALID_TOKEN"))
        self.assertEqual(self.open([], {"Authorization": "Bearer alice"}).status, 200)

    def test_origin(self) -> None:
        """Pages of other origins may not."""
        headers = {"Authorization": "Bearer alice", "Origin": "https://evil.example"}
        self.assertEqual(self.refused(**headers), (403, "FORBIDDEN"))
        self.assertEqual(self.open([], headers | {"Origin": "https://good.example"}).status, 200)

    def test_roles(self) -> None:
        """Who has none of the roles that connecting needs may not."""
        self.make(roles=frozenset({"operator"}))
        self.assertEqual(self.refused(Authorization="Bearer alice"), (403, "FORBIDDEN"))

    def test_room(self) -> None:
        """Streams are connections, of which there is a largest number."""
        self.make(max_connections=1)
        stream = self.stream()
        self.assertEqual(self.refused(Authorization="Bearer alice"), (503, "SERVER_FULL"))
        stream.wire.end()
        self.stream()

    def test_too_many_of_an_address(self) -> None:
        """An address has so many streams and WebSockets, as a trusted proxy tells."""
        self.make(per_address=1)
        headers = {"Authorization": "Bearer alice", "X-Forwarded-For": "198.51.100.7"}
        stream = self.open([], headers)
        self.assertEqual(stream.status, 200)
        self.assertEqual(self.open([], headers).status, 429)
        self.assertEqual(self.open([], headers | {"X-Forwarded-For": "::1"}).status, 200)
        stream.wire.end()
        self.assertEqual(self.open([], headers).status, 200)

    def test_draining(self) -> None:
        """A node that stops takes none."""
        self.world.node.drain()
        self.assertEqual(self.refused(Authorization="Bearer alice"), (503, "UNAVAILABLE"))

    def test_topics(self) -> None:
        """What is no topic is refused, and so are too many or too long ones."""
        headers = {"Authorization": "Bearer alice"}
        for topics in (
            "a..b",
            "a b",
            "%FF",
            ",".join(f"t{number}" for number in range(MAX_TOPICS + 1)),
            ",".join(str(number) * 250 for number in range(MAX_TOPIC_BYTES // 250 + 1)),
        ):
            path = f"/sse?topics={topics if '%' in topics else quote(topics)}"
            answer = self.ask("GET", path, headers)
            self.assertEqual((answer.status, answer.error()["details"]), (400, {"field": "topics"}))
        self.assertEqual(self.world.counters.total_connections, 0)


class CommandTests(SseTestCase):
    """Saying something."""

    def test_one(self) -> None:
        """A command is obeyed as on a WebSocket; its reply comes on the stream."""
        stream = self.stream()
        answer = self.post(stream, {"type": "Subscribe", "data": {"topics": ["room.a"]}, "id": 7})
        self.assertEqual((answer.status, answer.json()), (202, {}))
        (status,) = stream.messages()
        self.assertEqual((status["type"], status["id"]), ("Status", 7))

    def test_several(self) -> None:
        """Several are obeyed in order, bad ones refused on the stream."""
        stream = self.stream("room.a")
        stream.messages()
        commands = [
            {"type": "Broadcast", "data": {"topic": "room.a", "payload": 1}, "id": 1},
            {"type": "Nonsense", "id": 2},
            {"type": "Ping", "id": 3},
        ]
        self.assertEqual(self.post(stream, commands).status, 202)
        found = [(each["type"], each.get("id")) for each in stream.messages()]
        self.assertEqual(
            sorted(found, key=str),
            [("Ack", 1), ("Broadcast", None), ("Error", 2), ("Pong", 3)],
        )

    def test_refused(self) -> None:
        """No stream, another's, a WebSocket's, no token, no JSON, too much."""
        stream = self.stream()
        ping = {"type": "Ping"}
        websocket = self.world.connect("alice").client.connection_id
        other = self.stream(user="bob")
        for id in ("x", "node-1", websocket, other.id):
            self.assertEqual(self.post(id, ping).status, 404)
        self.assertEqual(self.post(stream, ping, user="nobody").status, 401)
        self.assertEqual(self.post(stream, b"[{]").status, 400)
        latin = b'{"type":"Broadcast","data":{"topic":"a","payload":"\xe9"}}'
        for body in (latin, b"[" + latin + b"]"):
            self.assertEqual(self.post(stream, body).status, 400)
        self.assertEqual(self.post(stream, [ping] * (MAX_COMMANDS + 1)).status, 413)
        plain = self.ask("POST", f"/sse/{stream.id}", {"Authorization": "Bearer alice"}, b"{}")
        self.assertEqual(plain.status, 415)
        self.assertEqual(stream.messages(), [])

    def test_size(self) -> None:
        """A command is as large as a frame may be."""
        self.make(max_frame_size=1024)
        stream = self.stream()
        self.assertEqual(self.post(stream, b" " * 1025).status, 413)
        self.assertEqual(self.post(stream, b"[" + b" " * 2000 + b"]").status, 202)

    def test_rate(self) -> None:
        """Commands above the rate are refused, and too many end the stream."""
        self.make(message_rate=1, message_burst=3)
        stream = self.stream()
        for _ in range(3):
            self.post(stream, [{"type": "Ping", "id": 1}] * MAX_COMMANDS)
        found = [each["type"] for each in stream.messages()]
        self.assertEqual(found[:4], ["Pong", "Pong", "Pong", "Error"])
        self.assertEqual(stream.close_code, CloseCode.RATE_LIMITED)

    def test_held(self) -> None:
        """What comes while a stream is held waits a little, and is taken or refused as a whole."""
        stream = self.stream()
        transport = self.world.hub.connections()[0].transport
        ping = {"type": "Ping", "id": 1}
        transport.hold()
        taken = Deferred.fromCoroutine(transport.take([json.dumps(ping).encode()]))
        self.assertNoResult(taken)
        transport.release()
        self.successResultOf(taken)
        self.assertEqual(len(stream.messages()), 1)
        transport.hold()
        refused = Deferred.fromCoroutine(transport.take([json.dumps(ping).encode()]))
        self.world.clock.advance(2)
        self.assertEqual(self.failureResultOf(refused).value.status, 503)
        transport.release()
        self.assertEqual(stream.messages(), [])

    def test_ended_while_held(self) -> None:
        """Commands for a stream that ends meanwhile are dropped with it."""
        stream = self.stream()
        transport = self.world.hub.connections()[0].transport
        transport.hold()
        taken = Deferred.fromCoroutine(transport.take([b'{"type":"Ping"}']))
        stream.wire.end()
        self.successResultOf(taken)
        transport.release()


class EndTests(SseTestCase):
    """How streams end, and what holds them."""

    def test_closed(self) -> None:
        """A stream is told why it ends, then it does, and the node has forgotten it."""
        stream = self.stream("room.a")
        self.publish("room.a", 1)
        self.world.hub.connections()[0].close(CloseCode.SESSION_TERMINATED)
        self.assertEqual([each.name for each in stream.events()], ["message", "close"])
        self.assertEqual(stream.close_code, 4500)
        self.assertTrue(stream.ended)
        self.assertEqual(self.world.counters.active_connections, 0)
        self.assertEqual(self.world.counters.subscriptions, 0)

    def test_closed_with_what_is_queued(self) -> None:
        """What this turn has for a stream comes before its end."""
        stream = self.stream("room.a")
        stream.messages()
        publisher = self.world.connect("publisher")
        publisher.say("Broadcast", {"topic": "room.a", "payload": 1})
        client = next(each for each in self.world.hub.connections() if each.topics)
        client.close(CloseCode.FORCED)
        self.assertEqual([each.name for each in stream.events()], ["message", "close"])

    def test_gone(self) -> None:
        """A client that goes is forgotten at once."""
        stream = self.stream("room.a")
        stream.wire.end()
        self.assertEqual(self.world.counters.active_connections, 0)
        self.publish("room.a", 1)

    def test_expiry(self) -> None:
        """A token that expires ends the stream with 4001, after a notice."""
        self.world.tokens["alice"] = identity_of("alice", expires_at=START + 90)
        stream = self.stream()
        self.world.pass_seconds(35)
        self.assertEqual(stream.messages()[0]["data"]["status"], "token_expiring")
        self.world.pass_seconds(60)
        self.assertEqual(stream.close_code, CloseCode.TOKEN_EXPIRED)

    def test_renewed(self) -> None:
        """A token may be renewed on the way."""
        self.world.tokens["alice"] = identity_of("alice", expires_at=START + 90)
        self.world.tokens["alice2"] = identity_of("alice", expires_at=START + 900)
        stream = self.stream()
        self.post(stream, {"type": "Authenticate", "data": {"token": "alice2"}})
        self.world.pass_seconds(100)
        self.assertIsNone(stream.close_code)

    def test_heartbeat(self) -> None:
        """Comments show that the stream is alive; who reads them is not silent."""
        stream = self.stream()
        self.world.pass_seconds(125)
        self.assertEqual(comments(stream.body()), 4)
        self.assertIsNone(stream.close_code)

    def test_silence(self) -> None:
        """Who takes nothing for the client timeout is closed with 4003."""
        stream = self.stream()
        producer = stream.wire.transport.producer
        self.world.pass_seconds(31)
        producer.pauseProducing()
        self.world.pass_seconds(62)
        self.assertEqual(stream.close_code, CloseCode.CLIENT_TIMEOUT)

    def test_slow(self) -> None:
        """Who reads too slowly is closed with 4002, while others get everything."""
        self.make(max_queue=3000)
        slow, quick = self.stream("room.a"), self.stream("room.a", user="bob")
        slow.wire.transport.producer.pauseProducing()
        self.publish("room.a", *["x" * 900] * 5)
        self.assertEqual(slow.close_code, CloseCode.SLOW_CONSUMER)
        self.assertEqual(self.world.counters.closed_slow_consumers, 1)
        broadcasts = [each for each in quick.messages() if each["type"] == "Broadcast"]
        self.assertEqual(len(broadcasts), 5)

    def test_topics_that_may_be_missed(self) -> None:
        """Of a topic whose newest publication counts, the newest comes, with the latest id."""
        self.make(max_queue=3000, topics=[Namespace("room.*", slow_consumers="latest")])
        stream = self.stream("room.a")
        producer = stream.wire.transport.producer
        producer.pauseProducing()
        self.publish("room.a", *range(50))
        self.assertIsNone(stream.close_code)
        self.assertEqual(self.world.counters.dropped_publications, 49)
        producer.resumeProducing()
        broadcasts = [each for each in stream.messages() if each["type"] == "Broadcast"]
        self.assertEqual([each["data"]["payload"] for each in broadcasts], [49])

    def test_what_waits_for_many_is_kept_once(self) -> None:
        """Streams that do not read have the same bytes waiting, not each a copy."""
        streams = [self.stream("room.a"), self.stream("room.a", user="bob")]
        for stream in streams:
            stream.wire.transport.producer.pauseProducing()
        self.publish("room.a", "x" * 900)
        one, other = (
            [frames[-1] for frames in client.transport._queue._waiting.values()]
            for client in self.world.hub.connections()
        )
        self.assertIn(b"x" * 900, one[0])
        self.assertIs(one[0], other[0])

    def test_never_read_to_its_end(self) -> None:
        """A connection whose client does not take the end is aborted."""
        stream = self.stream()
        self.world.hub.connections()[0].close(CloseCode.FORCED)
        self.world.clock.advance(6)
        self.assertTrue(stream.wire.transport.disconnected)

    def test_what_follows_the_request(self) -> None:
        """More bytes from the client are neither kept nor obeyed."""
        stream = self.stream()
        stream.wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 100_000)
        self.world.hub.connections()[0].close(CloseCode.FORCED)
        self.assertTrue(stream.ended)

    def test_no_http_connection(self) -> None:
        """Streams do not count as HTTP connections that have to end before the server does."""
        self.stream()
        self.assertEqual(len(self.site.crowd), 0)

    def test_dead_network(self) -> None:
        """The kernel is told to give a connection up whose other side is silent for so long."""
        options = []

        class Handle:
            def setsockopt(self, *option: int) -> None:
                options.append(option)

        wire = Wire(self.site)
        wire.transport.getHandle = Handle  # type: ignore[attr-defined]
        wire.send(b"GET /sse?token=alice HTTP/1.1\r\nHost: server\r\n\r\n")
        self.assertEqual(options, [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)])


class _Hooks:
    """A gatekeeper that takes its time."""

    wants = frozenset({"connect"})

    def __init__(self) -> None:
        self.asked: list[Deferred[None]] = []

    async def connect(self, identity: Identity) -> None:
        """Answer when the test does."""
        self.asked.append(Deferred())
        await self.asked[-1]


class HookTests(SseTestCase):
    """The operator's hook is asked about streams too."""

    def setUp(self) -> None:
        """Have a hook."""
        self.hooks = _Hooks()
        self.make()

    def begin(self) -> Wire:
        """Ask for a stream; there is no answer yet."""
        wire = Wire(self.site)
        wire.send(b"GET /sse?token=alice HTTP/1.1\r\nHost: server\r\n\r\n")
        self.assertEqual(wire.transport.value(), b"")
        return wire

    def test_admitted(self) -> None:
        """The stream begins when the hook has admitted."""
        wire = self.begin()
        self.hooks.asked[0].callback(None)
        self.assertIn(b"200 OK", wire.transport.value())

    def test_refused(self) -> None:
        """Whom it does not admit gets 403."""
        wire = self.begin()
        self.hooks.asked[0].errback(Forbidden("no"))
        self.assertEqual(wire.answer().status, 403)

    def test_ended_meanwhile(self) -> None:
        """Whose session has ended before the hook answers gets 401."""
        wire = self.begin()
        del self.world.tokens["alice"]
        self.hooks.asked[0].callback(None)
        self.assertEqual(wire.answer().status, 401)

    def test_gone_meanwhile(self) -> None:
        """Who has gone before the hook answers leaves nothing behind."""
        wire = self.begin()
        wire.channel.connectionLost(Failure(ConnectionDone()))
        self.world.settle()
        self.assertEqual(self.world.counters.total_connections, 0)
