"""Tests for `realtime.websocket`, and of `realtime.fastpath` wherever the two must not differ.

Each behaviour runs on both connection classes, over plain TCP and over TLS, on real sockets.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

from realtime import fanout
from realtime.drain import close_all
from realtime.errors import CloseCode, Forbidden, InvalidToken, TokenExpired, Unavailable
from realtime.handshake import SUBPROTOCOL
from realtime.model import Namespace
from realtime.rules import DEFAULT
from tests.support.backends import Gate, Recorder
from tests.support.http import Answer
from tests.support.peers import identity_of
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close_frame,
    command,
    frame,
    on_every_path,
    request_head,
)

PING_COMMAND = {"type": "Ping", "id": 1}


def broadcast(topic: str, payload: Any, **more: Any) -> bytes:
    """A frame with a Broadcast."""
    return command("Broadcast", {"topic": topic, "payload": payload}, **more)


def payloads(frames: list[Frame]) -> list[Any]:
    """The payloads of Broadcast messages."""
    return [
        json.loads(frame.payload)["data"]["payload"]
        for frame in frames
        if frame.payload.startswith(b'{"type":"Broadcast"')
    ]


class Handshake:
    """The opening handshake: who gets in, and with what answer."""

    def assert_refused(self, answer: Answer, status: int, code: str) -> None:
        """The refusal has the error envelope."""
        self.assertEqual((answer.status, answer.error()["code"]), (status, code))
        self.assertIn("close", answer.header("Connection").lower())
        self.assertEqual(answer.header("Cache-Control"), "no-store")

    def refuse(self, head: bytes, status: int, code: str, **options: Any) -> Answer:
        """Connect to a new server, and be refused and disconnected."""
        rig = self.rig(**options)
        client = rig.client()
        answer = client.ask(head)
        self.assert_refused(answer, status, code)
        rig.wait(lambda: client.ended)
        self.assertEqual((client.ended, client.data), ("end", b""))
        self.assertEqual(rig.counters.refused_connections, 1)
        self.assertEqual(rig.counters.errors, 1)
        self.assertEqual(rig.counters.total_connections, 0)
        return answer

    def test_accept(self) -> None:
        """A good request is answered 101 with the key's proof, without protocol or extension."""
        client = self.rig().client()
        answer = client.ask(request_head())
        self.assertEqual(answer.status, 101)
        proof = hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        self.assertEqual(answer.header("Sec-WebSocket-Accept"), base64.b64encode(proof).decode())
        self.assertEqual(answer.header("Upgrade").lower(), "websocket")
        self.assertEqual(answer.header("Connection").lower(), "upgrade")
        self.assertIsNone(answer.header("Sec-WebSocket-Protocol"))
        self.assertIsNone(answer.header("Sec-WebSocket-Extensions"))

    def test_no_compression(self) -> None:
        """An offer of compression is not taken up."""
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
        client = self.rig().client()
        answer = client.ask(request_head(headers=offer))
        self.assertEqual(answer.status, 101)
        self.assertIsNone(answer.header("Sec-WebSocket-Extensions"))

    def test_welcome_first(self) -> None:
        """The first message is the welcome."""
        rig = self.rig(heartbeat_interval=7, client_timeout=13)
        rig.identities["alice"] = identity_of("u1", username="alice", session_id="s1")
        welcome = rig.client().open()
        self.assertEqual(welcome["type"], "Status")
        data = welcome["data"]
        self.assertEqual(data["status"], "connected")
        self.assertEqual((data["user_id"], data["username"]), ("u1", "alice"))
        self.assertEqual(data["session_id"], "s1")
        self.assertEqual(data["heartbeat_interval_secs"], 7)
        self.assertEqual(data["client_timeout_secs"], 13)
        self.assertEqual(data["max_frame_size"], 65536)
        self.assertEqual((rig.counters.active_connections, rig.counters.total_connections), (1, 1))

    def test_welcome_before_messages_of_the_same_turn(self) -> None:
        """It is the first message for one who is written to in the very turn of connecting."""
        rig = self.rig()
        bob = rig.subscriber("bob")
        alice = rig.client()
        serve = rig.node.connect

        def connect_amid_traffic(peer: Any) -> None:
            rig.node.publish("news", DEFAULT, b"1", "bob", rig.clock.seconds())
            serve(peer)
            rig.node.direct("alice", b"2", "bob", rig.clock.seconds())

        self.patch(rig.node, "connect", connect_amid_traffic)
        self.assertEqual(alice.open()["data"]["status"], "connected")
        self.assertEqual(alice.message()["type"], "DirectMessage")
        self.assertEqual(bob.message()["type"], "Broadcast")

    def test_token_in_header(self) -> None:
        """The token may be in the Authorization header, whose scheme has no case."""
        rig = self.rig()
        for scheme in ("Bearer", "bearer"):
            head = request_head("/ws", {"Authorization": f"{scheme} alice"})
            self.assertEqual(rig.client().open(head)["data"]["user_id"], "alice")

    def test_token_in_subprotocol(self) -> None:
        """The token may be in a subprotocol, which the answer then selects."""
        client = self.rig().client()
        offer = f"chat, {SUBPROTOCOL}alice"
        answer = client.ask(request_head("/ws", {"Sec-WebSocket-Protocol": offer}))
        self.assertEqual(answer.status, 101)
        self.assertEqual(answer.header("Sec-WebSocket-Protocol"), f"{SUBPROTOCOL}alice")
        self.assertEqual(client.message()["data"]["user_id"], "alice")

    def test_token_in_query(self) -> None:
        """The token may be in the query; other subprotocols are then not selected."""
        client = self.rig().client()
        answer = client.ask(request_head("/ws?x=1&token=alice", {"Sec-WebSocket-Protocol": "chat"}))
        self.assertEqual(answer.status, 101)
        self.assertIsNone(answer.header("Sec-WebSocket-Protocol"))
        self.assertEqual(client.message()["data"]["user_id"], "alice")

    def test_precedence_of_tokens(self) -> None:
        """Header before subprotocol before query; a subprotocol is selected all the same."""
        rig = self.rig()
        three = {"Authorization": "Bearer alice", "Sec-WebSocket-Protocol": f"{SUBPROTOCOL}bob"}
        client = rig.client()
        answer = client.ask(request_head("/ws?token=carol", three))
        self.assertEqual(answer.header("Sec-WebSocket-Protocol"), f"{SUBPROTOCOL}bob")
        self.assertEqual(client.message()["data"]["user_id"], "alice")
        for authorization in (None, "Basic YWxpY2U6eA=="):
            client = rig.client()
            client.ask(request_head("/ws?token=carol", three | {"Authorization": authorization}))
            self.assertEqual(client.message()["data"]["user_id"], "bob")

    def test_first_place_counts(self) -> None:
        """A bad token is not made good by another one in a later place."""
        for headers in (
            {"Authorization": "Bearer bad"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer"},
            {"Sec-WebSocket-Protocol": f"{SUBPROTOCOL}bad"},
            {"Sec-WebSocket-Protocol": SUBPROTOCOL},
        ):
            answer = self.refuse(request_head("/ws?token=alice", headers), 401, "INVALID_TOKEN")
            self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")

    def test_no_token(self) -> None:
        """Without a token it is 401 INVALID_TOKEN."""
        for target in ("/ws", "/ws?", "/ws?token=", "/ws?Token=alice"):
            answer = self.refuse(request_head(target), 401, "INVALID_TOKEN")
            self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")

    def test_no_token_in_urls(self) -> None:
        """Where URLs may have none, one there does not count; the other places do."""
        answer = self.refuse(request_head(), 401, "INVALID_TOKEN", token_in_url=False)
        self.assertNotIn("?token=", answer.error()["message"])
        rig = self.rig(token_in_url=False)
        rig.client().open(request_head("/ws", {"Authorization": "Bearer alice"}))

    def test_expired_token(self) -> None:
        """With an expired one it is 401 TOKEN_EXPIRED."""
        rig = self.rig()
        rig.identities["old"] = TokenExpired()
        answer = rig.client().ask(request_head("/ws?token=old"))
        self.assert_refused(answer, 401, "TOKEN_EXPIRED")
        self.assertEqual(answer.header("WWW-Authenticate"), "Bearer")

    def test_role(self) -> None:
        """Without one of the roles asked for it is 403."""
        self.refuse(request_head(), 403, "FORBIDDEN", connect_roles=["operator"])
        self.rig(connect_roles=["operator", "user"]).connect()

    def test_too_many_of_a_user(self) -> None:
        """A user has so many connections; one more gets 429, and another user does not."""
        rig = self.rig(per_user=2)
        first = rig.connect()
        rig.connect()
        answer = rig.client().ask(request_head())
        self.assert_refused(answer, 429, "RATE_LIMITED")
        self.assertEqual(answer.error()["details"]["limit"], "user")
        self.assertEqual(answer.header("Retry-After"), "1")
        self.assertEqual(rig.counters.limited_connections, 1)
        self.assertEqual(sum(rig.counters.limited.values()), 1)
        rig.connect("bob")
        first.abandon()
        rig.wait(lambda: rig.counters.active_connections == 2)
        rig.connect()

    def test_too_many_of_an_address(self) -> None:
        """An address has so many connections, as a trusted proxy tells of addresses."""
        rig = self.rig(per_address=1, trusted=["127.0.0.0/8"])
        first = rig.client()
        first.open(request_head(headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7"}))
        same = request_head(headers={"X-Forwarded-For": "198.51.100.7"})
        answer = rig.client().ask(same)
        self.assert_refused(answer, 429, "RATE_LIMITED")
        self.assertEqual(answer.error()["details"]["limit"], "address")
        rig.client().open(request_head(headers={"X-Forwarded-For": "198.51.100.8"}))
        first.abandon()
        rig.wait(lambda: rig.counters.active_connections == 1)
        self.assertEqual(rig.client().ask(same).status, 101)

    def test_header_of_anybody(self) -> None:
        """Who is no trusted proxy cannot choose an address."""
        rig = self.rig(per_address=1)
        rig.client().open(request_head(headers={"X-Forwarded-For": "198.51.100.7"}))
        other = request_head(headers={"X-Forwarded-For": "198.51.100.8"})
        self.assert_refused(rig.client().ask(other), 429, "RATE_LIMITED")

    def test_role_at_renewal(self) -> None:
        """A renewed token needs one of the roles as well, or is refused."""
        rig = self.rig(connect_roles=["user"])
        client = rig.connect()
        rig.identities["renewed"] = replace(identity_of("alice"), roles=frozenset({"other"}))
        client.send(command("Authenticate", {"token": "renewed"}, id=1))
        reply = client.message()
        self.assertEqual((reply["id"], reply["data"]["code"]), (1, "FORBIDDEN"))

    def test_origin(self) -> None:
        """From a page of an origin not allowed it is 403; no page, and its own, may connect."""
        home = "https://home.example"
        foreign = request_head(headers={"Origin": "https://evil.example"})
        self.refuse(foreign, 403, "FORBIDDEN", origins=[home])
        self.refuse(request_head(headers={"Origin": "null"}), 403, "FORBIDDEN", origins=[home])
        rig = self.rig(origins=[home])
        for origin in (home, None, "http://server:8081"):
            rig.client().open(request_head(headers={"Origin": origin}))
        self.rig().client().open(foreign)

    def test_pages_may_read_refusals(self) -> None:
        """A refusal has the CORS headers of any other answer."""
        home = "https://home.example"
        for origins, origin, allowed in (
            (["*"], home, "*"),
            ([home], home, home),
            ([home], "https://evil.example", None),
        ):
            head = request_head("/ws", headers={"Origin": origin})
            answer = self.rig(origins=origins).client().ask(head)
            self.assertIn(answer.status, (400, 401))
            self.assertEqual(answer.header("Access-Control-Allow-Origin"), allowed)

    def test_gatekeeper(self) -> None:
        """Where a gatekeeper is asked, who is allowed gets in then, and who is not is refused."""
        gate = Gate("connect")
        rig = self.rig(hooks=gate)
        client = rig.client()
        client.send(request_head() + command("Ping", id=1))
        rig.wait(lambda: gate.asked)
        self.assertEqual(gate.asked, [("connect", "alice")])
        self.assertEqual((client.data, rig.counters.active_connections), (b"", 0))
        client.send(command("Ping", id=2))
        gate.answers.pop().callback(None)
        self.assertEqual(client.answer().status, 101)
        self.assertEqual(client.message()["data"]["status"], "connected")
        self.assertEqual([client.message()["id"] for _ in range(2)], [1, 2])
        for failure, status in ((Forbidden("no"), 403), (Unavailable(), 503)):
            client = rig.client()
            client.send(request_head())
            rig.wait(lambda: gate.answers)
            gate.answers.pop().errback(failure)
            self.assertEqual(client.answer().status, status)

    def test_gone_while_the_gatekeeper_is_asked(self) -> None:
        """One who has gone, or is too late, is not let in by a belated answer."""
        gate = Gate("connect")
        rig = self.rig(hooks=gate)
        gone, late = rig.client(), rig.client()
        for client in (gone, late):
            client.send(request_head())
        rig.wait(lambda: len(gate.answers) == 2)
        gone.reset()
        rig.pass_seconds(12)
        self.assertEqual(late.answer().status, 408)
        for answer in gate.answers:
            answer.callback(None)
        rig.settle()
        self.assertEqual((rig.counters.active_connections, len(rig.hub)), (0, 0))
        client = rig.client()
        client.send(request_head())
        rig.wait(lambda: len(gate.answers) == 3)
        rig.node.draining = True
        gate.answers.pop().callback(None)
        self.assertEqual(client.answer().status, 503)

    def test_changed_while_the_gatekeeper_is_asked(self) -> None:
        """What has ended meanwhile, and for whom there is no room any more, is not let in."""
        gate = Gate("connect")
        rig = self.rig(hooks=gate, per_user=1, per_address=2)
        first, second, ended, third, other = (rig.client() for _ in range(5))
        for client, user in (
            (first, "alice"),
            (second, "alice"),
            (ended, "bob"),
            (third, "carol"),
            (other, "dave"),
        ):
            rig.identities.setdefault(user, identity_of(user))
            client.send(request_head(f"/ws?token={user}"))
        rig.wait(lambda: len(gate.answers) == 5)
        rig.identities["bob"] = InvalidToken("The session has ended.")
        for client, answer, status in zip(
            (first, second, ended, third, other),
            gate.answers,
            (101, 429, 401, 101, 429),
            strict=True,
        ):
            answer.callback(None)
            self.assertEqual(client.answer().status, status)
        self.assertEqual(rig.counters.active_connections, 2)

    def test_full(self) -> None:
        """At capacity it is 503 SERVER_FULL with Retry-After, until somebody has left."""
        rig = self.rig(max_connections=1)
        alice = rig.connect()
        answer = rig.client().ask(request_head("/ws?token=bob"))
        self.assert_refused(answer, 503, "SERVER_FULL")
        self.assertEqual(answer.header("Retry-After"), "5")
        alice.abandon()
        rig.wait(lambda: rig.counters.active_connections == 0)
        rig.connect("bob")

    def test_draining(self) -> None:
        """While the server shuts down it is 503 UNAVAILABLE with Retry-After."""
        rig = self.rig()
        rig.node.draining = True
        answer = rig.client().ask(request_head())
        self.assert_refused(answer, 503, "UNAVAILABLE")
        self.assertTrue(answer.header("Retry-After"))

    def test_order_of_refusals(self) -> None:
        """Of several reasons the first of 400, 401, 403, 503 is told."""
        everything = {"connect_roles": ["operator"], "max_connections": 0}
        bad_key = {"Sec-WebSocket-Key": "short"}
        self.refuse(request_head("/ws?token=x", bad_key), 400, "INVALID_REQUEST", **everything)
        self.refuse(request_head("/ws?token=x"), 401, "INVALID_TOKEN", **everything)
        self.refuse(request_head(), 403, "FORBIDDEN", **everything)
        self.refuse(request_head(), 503, "SERVER_FULL", max_connections=0)
        foreign = request_head(headers={"Origin": "https://evil.example"})
        self.refuse(foreign, 403, "FORBIDDEN", origins=["https://x"], max_connections=0)

    def test_upgrade_required(self) -> None:
        """No upgrade to a WebSocket, or a version other than 13, is 426 that names both."""
        for headers in (
            {"Upgrade": None},
            {"Upgrade": "h2c"},
            {"Sec-WebSocket-Version": "8"},
            {"Sec-WebSocket-Version": "14"},
            {"Sec-WebSocket-Version": "0"},
        ):
            answer = self.refuse(request_head(headers=headers), 426, "INVALID_REQUEST")
            self.assertEqual(answer.header("Upgrade"), "websocket")
            self.assertEqual(answer.header("Sec-WebSocket-Version"), "13")
            self.assertIn("upgrade", answer.header("Connection").lower())

    def test_bad_request(self) -> None:
        """What is no opening handshake is 400, and the answer does not repeat the token."""
        for head in (
            request_head(headers={"Host": None}),
            request_head(headers={"Host": "a:b"}),
            request_head(headers={"Connection": None}),
            request_head(headers={"Connection": "keep-alive"}),
            request_head(headers={"Sec-WebSocket-Key": None}),
            request_head(headers={"Sec-WebSocket-Key": "x" * 24}),
            request_head(headers={"Sec-WebSocket-Version": None}),
            request_head(headers={"Sec-WebSocket-Version": "x"}),
            request_head(headers={"Sec-WebSocket-Version": "9" * 5000}),
            request_head(headers={"Sec-WebSocket-Protocol": "access_token.alice," * 2}),
            request_head(headers={"Origin": "no origin"}),
            request_head(first="GET /ws?token=alice#x HTTP/1.1"),
            request_head(first="GET /ws?token=alice  more HTTP/1.1"),
            request_head(first="GET /ws?token=alice"),
            request_head(first="GET http://[/ws?token=alice HTTP/1.1"),
        ):
            answer = self.refuse(head, 400, "INVALID_REQUEST")
            self.assertNotIn(b"alice", answer.body)

    def test_forbidden_bytes(self) -> None:
        """Bytes that no head may have are 400, wherever they are, before the token is read."""
        whole = request_head("/ws?token=nobody", {"X-More": "a@b"})
        for bad in (b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x7f", b"\x85"):
            self.refuse(whole.replace(b"@", bad), 400, "INVALID_REQUEST")
            self.refuse(whole.replace(b"nobody", bad), 400, "INVALID_REQUEST")
        for bad in (b"\r", b"\n", b"\n\r", b"\r\r\n"):
            self.refuse(whole.replace(b"@", bad), 400, "INVALID_REQUEST")

    def test_smuggled_header(self) -> None:
        """What one parser takes for the end of a line makes no header for another."""
        for end in (b"\x85", b"\x1c", b"\n", b"\r"):
            head = request_head("/ws", {"X-More": "a@Authorization: Bearer alice"})
            self.refuse(head.replace(b"@", end), 400, "INVALID_REQUEST")

    def test_malformed_headers(self) -> None:
        """A header that not everybody would read alike is 400, before the token is read."""
        token = "Authorization: Bearer nobody"
        for line in (
            f" {token}",
            f"\t{token}",
            f"\xa0{token}",
            "Authorization : Bearer nobody",
            "Authorization\t: Bearer nobody",
            ": Bearer nobody",
            "Authorization",
            'Auth"orization: x',
        ):
            head = request_head("/ws", {"X-More": "a"})
            head = head.removesuffix(b"\r\n") + line.encode("latin-1") + b"\r\n\r\n"
            self.refuse(head, 400, "INVALID_REQUEST")

    def test_body(self) -> None:
        """A request that announces a body is 400: its bytes would be taken for frames."""
        for header in (
            {"Content-Length": "5"},
            {"content-length": "00x"},
            {"Content-Length": "0, 5"},
            {"Transfer-Encoding": "chunked"},
            {"TRANSFER-ENCODING": "identity"},
        ):
            self.refuse(request_head(headers=header), 400, "INVALID_REQUEST")
        for length in ("0", " 00"):
            self.rig().client().open(request_head(headers={"Content-Length": length}))

    def test_large_head(self) -> None:
        """A head of 16 KiB is read; one more byte is 431, whether or not it ever ends."""
        most = 16 * 1024
        room = most - len(request_head(headers={"X-More": ""}))
        self.rig().client().open(request_head(headers={"X-More": "x" * room}))
        large = request_head(headers={"X-More": "x" * (room + 1)})
        self.refuse(large, 431, "INVALID_REQUEST")
        self.refuse(large[: most + 1], 431, "INVALID_REQUEST")

    def test_every_split(self) -> None:
        """A head may come in any two pieces, and byte by byte."""
        rig = self.rig()
        head = request_head()
        for end in range(1, len(head)):
            client = rig.client()
            client.send(head[:end], head[end:])
            client.open(b"")
            client.abandon()
        client = rig.client()
        client.send(*(head[n : n + 1] for n in range(len(head))))
        client.open(b"")

    def test_frames_right_behind(self) -> None:
        """Frames that come with the head are obeyed, after the welcome."""
        rig = self.rig()
        client = rig.client()
        client.send(request_head() + command("Ping", id=1) + frame(b"x", PING))
        self.assertEqual(client.answer().status, 101)
        self.assertEqual(client.message()["type"], "Status")
        self.assertEqual(client.message()["id"], 1)
        self.assertEqual(client.frames(), [Frame(PONG, b"x")])

    def test_deadline(self) -> None:
        """A handshake that trickles in is given 10 seconds, then refused with 408."""
        rig = self.rig()
        silent, slow = rig.client(), rig.client()
        for byte in request_head()[:9]:
            slow.send(bytes([byte]))
            rig.pass_seconds(1)
        self.assertEqual((silent.ended, slow.ended), (None, None))
        rig.pass_seconds(1)
        for client in (silent, slow):
            self.assert_refused(client.answer(), 408, "INVALID_REQUEST")
            rig.wait(lambda client=client: client.ended)

    def test_no_deadline_when_open(self) -> None:
        """An open connection is not dropped for its handshake's age."""
        rig = self.rig(heartbeat_interval=1000, client_timeout=1000)
        alice = rig.connect()
        rig.pass_seconds(60)
        self.assertIsNone(alice.ended)

    def test_failure_inside(self) -> None:
        """A failure of ours is 500 that tells nothing, and a line in the log."""
        rig = self.rig()
        rig.identities["odd"] = ZeroDivisionError("secret")
        answer = rig.client().ask(request_head("/ws?token=odd"))
        self.assert_refused(answer, 500, "INTERNAL_ERROR")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_leaving_early(self) -> None:
        """Clients that vanish in mid-handshake leave nothing behind."""
        rig = self.rig()
        for piece in (b"", b"GET", request_head()[:-1]):
            for leave in (RawClient.abandon, RawClient.reset):
                client = rig.client()
                client.send(piece)
                leave(client)
        rig.wait(lambda: not len(rig.node.deadlines))


class Frames:
    """Frames and messages in."""

    def open(self, **options: Any) -> RawClient:
        """Connect to a new server."""
        return self.rig(**options).connect()

    def assert_pong(self, client: RawClient, id: object = 1) -> None:
        """The next message answers a Ping command."""
        message = client.message()
        self.assertEqual((message["type"], message["id"]), ("Pong", id))

    def assert_closed(self, client: RawClient, code: int) -> None:
        """The server closes with this code, and after the answer the connection ends."""
        self.assertEqual(client.close_code(), code)
        client.send(close_frame(code))
        self.assertEqual(client.rest(), [])
        self.assertEqual(client.ended, "end")
        client.rig.wait(lambda: client.rig.counters.active_connections == 0)

    def padded(self, size: int, id: int = 1) -> bytes:
        """A Ping command of exactly so many bytes."""
        text = json.dumps({"type": "Ping", "id": id}).encode()
        return text + b" " * (size - len(text))

    def test_sizes(self) -> None:
        """Messages on both sides of each form of length are read, one by one and all at once."""
        sizes = (25, 124, 125, 126, 127, 128, 255, 256, 1000, 65535, 65536)
        frames = [frame(self.padded(size, size)) for size in sizes]
        client = self.open()
        client.send(*frames)
        client.send(b"".join(frames))
        for size in sizes * 2:
            self.assert_pong(client, size)

    def test_split(self) -> None:
        """A frame may come in any two pieces, and byte by byte."""
        client = self.open()
        for size in (30, 130):
            whole = frame(self.padded(size))
            for end in range(1, len(whole)):
                client.send(whole[:end], whole[end:])
                self.assert_pong(client)
            client.send(*(whole[n : n + 1] for n in range(len(whole))))
            self.assert_pong(client)

    def test_pieces_across_frames(self) -> None:
        """A piece may hold the end of one frame, whole ones, and the beginning of another."""
        client = self.open()
        stream = b"".join(frame(self.padded(40, id)) for id in range(100))
        client.send(*(stream[n : n + 77] for n in range(0, len(stream), 77)))
        for id in range(100):
            self.assert_pong(client, id)

    def test_floods_that_are_no_messages(self) -> None:
        """Pings, Pongs and fragments, empty or not, count as messages do: going on is 4004."""
        start = frame(b"[", final=False)
        for before, flood in (
            (b"", frame(b"", PING)),
            (b"", frame(b"x" * 125, PING)),
            (b"", frame(b"", PONG)),
            (start, frame(b"", CONTINUATION, final=False)),
            (start, frame(b"1", CONTINUATION, final=False)),
        ):
            client = self.open(message_rate=10, message_burst=5)
            client.send(before + flood * 300)
            pongs, code = client.until_close()
            self.assertEqual(code, 4004)
            answered = flood[0] == frame(b"", PING)[0]
            self.assertEqual([frame.opcode for frame in pongs], [PONG] * 5 * answered)

    def test_pings_within_the_rate(self) -> None:
        """Each Ping within the rate has its Pong, and above it for a while there is none."""
        client = self.open(message_rate=10, message_burst=5)
        client.send(*(frame(b"%d" % number, PING) for number in range(7)))
        self.assertEqual(client.frames(5), [Frame(PONG, b"%d" % number) for number in range(5)])
        client.rig.pass_seconds(1)
        client.send(frame(b"again", PING))
        self.assertEqual(client.frames(), [Frame(PONG, b"again")])

    def test_bytes_that_look_like_a_frame(self) -> None:
        """A piece that begins like a frame, and is in the middle of one, is no frame."""
        start = b'{"type":"Ping","id":"'
        middle = b"\x81\xc3\xa9ab\xc3" + b"\x89AB\xc3" * 16 + b"\x89AB"
        text = start + b"\xc2" + middle + b'"}'
        client = self.open()
        whole = frame(text, key=bytes(4))
        client.send(whole[: -len(middle) - 2], whole[-len(middle) - 2 :])
        self.assert_pong(client, json.loads(text)["id"])
        payload = b"a\x81\x80bcde"
        whole = frame(payload, PING, key=bytes(4))
        client.send(whole[:7], whole[7:])
        self.assertEqual(client.frames(), [Frame(PONG, payload)])
        whole = frame(PING_COMMAND, key=b"\x81\x80ab")
        client.send(whole[:2], whole[2:])
        self.assert_pong(client)

    def test_message_within_a_message(self) -> None:
        """A whole message between the fragments of another is 1002, in whatever pieces."""
        client = self.open()
        client.send(frame(b'"', final=False), command("Ping", id=1))
        self.assert_closed(client, 1002)

    def test_max_frame_size(self) -> None:
        """A message of max_frame_size passes, a byte more closes 1009."""
        for limit in (1024, 65536):
            client = self.open(max_frame_size=limit)
            client.send(frame(self.padded(limit)))
            self.assert_pong(client)
            client.send(frame(self.padded(limit + 1)))
            self.assert_closed(client, 1009)

    def test_max_size_of_fragments(self) -> None:
        """The same holds for the fragments of a message together, empty ones not counted."""
        whole = self.padded(65536)
        client = self.open()
        client.send(
            frame(whole[:30000], TEXT, final=False)
            + frame(b"", CONTINUATION, final=False) * 3
            + frame(whole[30000:60000], CONTINUATION, final=False),
            frame(whole[60000:], CONTINUATION),
        )
        self.assert_pong(client)
        client.send(
            frame(whole, TEXT, final=False),
            frame(b" ", CONTINUATION),
        )
        self.assert_closed(client, 1009)

    def test_announced_length(self) -> None:
        """A length that is only announced closes 1009 at once, whatever its form."""
        for length in (65537, 1 << 20, 1 << 62):
            client = self.open()
            client.send(frame(b"", length=length))
            self.assert_closed(client, 1009)
        client = self.open(max_frame_size=1024)
        client.send(frame(b"", length=1025))
        self.assert_closed(client, 1009)

    def test_rest_of_what_was_too_big(self) -> None:
        """What follows a violation is skipped up to the client's answer, and not kept."""
        client = self.open()
        served = client.rig.served("alice")
        client.send(frame(b"", length=10_000_000))
        self.assertEqual(client.close_code(), 1009)
        for _ in range(10_000_000 // 500_000):
            client.send(bytes(500_000))
            self.assertLess(kept(served), 200_000)
        client.send(close_frame(1009))
        self.assertEqual(client.rest(), [])

    def test_endless_control_frame(self) -> None:
        """A control frame that announces too much closes 1002, and is not kept either."""
        client = self.open()
        served = client.rig.served("alice")
        client.send(frame(b"", PING, length=1 << 40))
        self.assertEqual(client.close_code(), 1002)
        for _ in range(10):
            client.send(bytes(100_000))
        self.assertLess(kept(served), 200_000)

    def test_endless_empty_fragments(self) -> None:
        """Fragments without content may be many, and are not kept."""
        client = self.open()
        served = client.rig.served("alice")
        text = json.dumps(PING_COMMAND).encode()
        client.send(frame(text[:9], final=False))
        for _ in range(5):
            client.send(frame(b"", CONTINUATION, final=False) * 10_000)
        self.assertLess(kept(served), 1000)
        client.send(frame(text[9:], CONTINUATION))
        self.assert_pong(client)

    def test_binary(self) -> None:
        """A binary frame closes 1003, as soon as it begins."""
        for whole in (
            frame(b"{}", BINARY),
            frame(b"", BINARY),
            frame(b"{}", BINARY, final=False),
            frame(b"", BINARY, length=60000),
        ):
            client = self.open()
            client.send(whole)
            self.assertEqual(client.close_code(), 1003)

    def test_invalid_utf8(self) -> None:
        """Text that is not UTF-8 closes 1007, in one frame or across fragments."""
        for bad in (b"\xff", b"a\x80", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"):
            for size in (0, 200):
                client = self.open()
                client.send(frame(b"x" * size + bad))
                self.assertEqual(client.close_code(), 1007)
        client = self.open()
        client.send(frame(b'"\xc3', final=False), frame(b"(", CONTINUATION, final=False))
        self.assertEqual(client.close_code(), 1007)
        client = self.open()
        client.send(frame(b'"\xc3', final=False) + frame(b"", CONTINUATION))
        self.assertEqual(client.close_code(), 1007)

    def test_character_across_fragments(self) -> None:
        """A character may begin in one fragment and end in another."""
        text = json.dumps({"type": "Ping", "id": "é€𝄞"}, ensure_ascii=False).encode()
        client = self.open()
        client.send(frame(text))
        self.assert_pong(client, "é€𝄞")
        for end in range(len(text)):
            client.send(frame(text[:end], final=False) + frame(text[end:], CONTINUATION))
            self.assert_pong(client, "é€𝄞")

    def test_violations(self) -> None:
        """What breaks RFC 6455 closes 1002."""
        for bad in (
            frame(PING_COMMAND, masked=False),
            frame(b"", masked=False),
            frame(PING_COMMAND, reserved=1),
            frame(PING_COMMAND, reserved=2),
            frame(PING_COMMAND, reserved=4),
            *(frame(PING_COMMAND, opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
            frame(PING_COMMAND, CONTINUATION),
            frame(PING_COMMAND, CONTINUATION, final=False),
            frame(b"a", TEXT, final=False) + frame(b"b", TEXT),
            frame(b"a", TEXT, final=False) + frame(b"b", BINARY),
            frame(b"", PING, final=False),
            frame(b"", CLOSE, final=False),
            frame(b"x" * 126, PING),
            frame(b"\x03\xe8" + b"x" * 124, CLOSE),
            frame(b"\x03", CLOSE),
            frame(PING_COMMAND, form=16),
            frame(b"", form=16),
            frame(b" " * 125, form=16),
            frame(b" " * 126, form=64),
            frame(b" " * 65535, form=64),
        ):
            client = self.open()
            client.send(bad)
            self.assertEqual(client.close_code(), 1002, bad[:20])
            client.send(close_frame(1002))
            self.assertEqual(client.rest(), [])

    def test_messages_before_a_violation(self) -> None:
        """What came whole before a violation is obeyed, what comes after it is not."""
        client = self.open()
        client.send(
            command("Ping", id=1)
            + frame(PING_COMMAND, final=False)
            + frame(b"", CONTINUATION)
            + frame(b"", 3)
            + command("Ping", id=3)
        )
        self.assert_pong(client)
        self.assert_pong(client)
        self.assert_closed(client, 1002)

    def test_close_codes_of_clients(self) -> None:
        """A Close frame is answered with its own code and reason, or with none; then TCP ends."""
        for code in (None, 1000, 1001, 1003, 1011, 3000, 3999, 4000, 4999):
            client = self.open()
            client.send(close_frame(code, b"" if code is None else "grüß".encode()))
            (answer,) = client.rest()
            self.assertEqual(answer.opcode, CLOSE)
            expected = b"" if code is None else code.to_bytes(2, "big") + "grüß".encode()
            self.assertEqual(answer.payload, expected)
            self.assertEqual(client.ended, "end")
            client.rig.wait(lambda client=client: client.rig.counters.active_connections == 0)

    def test_bad_close_frames(self) -> None:
        """A code that may not be sent is 1002, a reason that is not UTF-8 is 1007."""
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535):
            client = self.open()
            client.send(close_frame(code))
            self.assertEqual(client.close_code(), 1002, code)
        client = self.open()
        client.send(close_frame(1000, b"\xff"))
        self.assertEqual(client.close_code(), 1007)

    def test_after_close(self) -> None:
        """Whatever follows the client's Close frame is ignored."""
        client = self.open()
        client.send(close_frame(1000) + command("Ping", id=1) + frame(b"", PING) + frame(b"", 3))
        self.assertEqual(client.rest(), [Frame(CLOSE, b"\x03\xe8")])

    def test_ping(self) -> None:
        """A Ping is answered with a Pong of the same payload; a Pong with nothing."""
        client = self.open()
        for payload in (b"", b"x", bytes(range(125)), b"\xff" * 125):
            client.send(frame(payload, PING))
            self.assertEqual(client.frames(), [Frame(PONG, payload)])
        client.send(frame(b"", PONG) + frame(b"unasked", PONG))
        self.assertEqual(client.pending(), [])

    def test_control_frames_between(self) -> None:
        """Control frames are answered between fragments and between the pieces of a message."""
        text = json.dumps(PING_COMMAND).encode()
        client = self.open()
        client.send(
            frame(text[:5], final=False) + frame(b"1", PING),
            frame(text[5:9], CONTINUATION, final=False) + frame(b"2", PING)[:3],
            frame(b"2", PING)[3:] + frame(b"", PONG),
            frame(text[9:], CONTINUATION),
        )
        self.assertEqual(client.frames(2), [Frame(PONG, b"1"), Frame(PONG, b"2")])
        self.assert_pong(client)
        client.send(frame(text) + frame(b"3", PING) + frame(text))
        self.assert_pong(client)
        self.assertEqual(client.frames(), [Frame(PONG, b"3")])
        self.assert_pong(client)

    def test_close_between_fragments(self) -> None:
        """A client may close in the middle of a message, which is then forgotten."""
        client = self.open()
        client.send(frame(b'{"type"', final=False) + close_frame(1001))
        self.assertEqual(client.close_code(), 1001)

    def test_bad_commands(self) -> None:
        """Text that is no command is answered with an Error, until there are too many."""
        client = self.open()
        client.send(*[frame(b"nonsense"), frame(b"")] * 51)
        for _ in range(100):
            self.assertEqual(client.message()["data"]["code"], "INVALID_REQUEST")
        self.assertEqual(client.message()["type"], "Error")
        self.assert_closed(client, 4502)


class Life:
    """Liveness: heartbeat, silence, expiry, and connections that die."""

    def test_heartbeat(self) -> None:
        """The server pings at each interval."""
        rig = self.rig(heartbeat_interval=10, client_timeout=100)
        alice = rig.connect()
        rig.pass_seconds(9)
        self.assertEqual(alice.pending(), [])
        rig.pass_seconds(1)
        self.assertEqual(alice.frames(), [Frame(PING, b"")])
        rig.pass_seconds(10)
        self.assertEqual(alice.frames(), [Frame(PING, b"")])

    def test_signs_of_life(self) -> None:
        """Any traffic counts as life: a Pong, a command, a lone fragment, half a frame."""
        for sign in (frame(b"", PONG), command("Ping"), frame(b"a", final=False), b"\x81"):
            rig = self.rig(heartbeat_interval=1000, client_timeout=20)
            alice = rig.connect()
            rig.pass_seconds(15)
            alice.send(sign)
            rig.pass_seconds(19)
            self.assertTrue(all(frame.opcode != CLOSE for frame in alice.pending()), sign)
            rig.pass_seconds(1)
            self.assertEqual(alice.close_code(), 4003)

    def test_silence(self) -> None:
        """A client that says nothing is closed 4003, and dropped two seconds later."""
        rig = self.rig(heartbeat_interval=1000, client_timeout=20)
        alice = rig.connect()
        rig.pass_seconds(20)
        self.assertEqual(alice.close_code(), 4003)
        rig.pass_seconds(1)
        self.assertEqual(rig.counters.active_connections, 1)
        rig.pass_seconds(1)
        rig.wait(lambda: rig.counters.active_connections == 0)

    def test_expiry(self) -> None:
        """When its token expires a client is closed 4001."""
        rig = self.rig()
        rig.identities["brief"] = identity_of("brief", expires_at=rig.clock.seconds() + 5)
        client = rig.connect("brief")
        rig.pass_seconds(5)
        self.assertEqual(client.pending()[-1].payload[:2], (4001).to_bytes(2, "big"))

    def test_vanishing(self) -> None:
        """However a connection dies, in whatever state, all that was held of it is given up."""
        for leave in (RawClient.abandon, RawClient.reset):
            for last in (b"", b"\x81", frame(b"a", final=False), frame(b"", 3), close_frame(1000)):
                rig = self.rig()
                alice = rig.subscriber("alice")
                bob = rig.subscriber("bob")
                alice.send(last)
                leave(alice)
                rig.wait(lambda rig=rig: rig.counters.active_connections == 1)
                self.assertEqual(rig.counters.subscriptions, 1)
                self.assertEqual(len(rig.hub), 1)
                bob.send(broadcast("news", 1))
                self.assertEqual(bob.message()["data"]["payload"], 1)

    def test_vanishing_while_written_to(self) -> None:
        """A reset that the server meets while it writes ends that connection only."""
        rig = self.rig()
        alice, bob = rig.subscriber("alice"), rig.subscriber("bob")
        carol = rig.connect("carol")
        sent = b"".join(broadcast("news", n) for n in range(3))
        carol.send(b"")
        alice.reset()
        carol._socket.send(sent)
        for n in range(3):
            self.assertEqual(bob.message()["data"]["payload"], n)
        rig.wait(lambda: rig.counters.active_connections == 2)

    def test_half_closed(self) -> None:
        """A client that ends its half without a Close frame is gone."""
        rig = self.rig()
        alice = rig.connect()
        alice.finish_writing()
        rig.wait(lambda: rig.counters.active_connections == 0)
        self.assertEqual(alice.rest(), [])


class Closing:
    """Closing handshakes, by whichever side, and their deadline."""

    def test_closed_by_us(self) -> None:
        """The server's Close frame has code and meaning; the client's answer ends TCP cleanly."""
        rig = self.rig()
        alice = rig.connect()
        rig.node.revoke("user", "alice")
        (taken,) = alice.frames()
        self.assertEqual(taken.payload, b"\x11\x94The session was ended.")
        self.assertEqual(rig.counters.active_connections, 1)
        alice.send(close_frame(4500))
        self.assertEqual(alice.rest(), [])
        self.assertEqual(alice.ended, "end")

    def test_all_codes(self) -> None:
        """Every code of ours reaches the client with its meaning."""
        for code in CloseCode:
            rig = self.rig()
            alice = rig.connect()
            rig.served("alice").close(code)
            (taken,) = alice.frames()
            self.assertEqual(taken.payload, code.to_bytes(2, "big") + code.meaning.encode())

    def test_no_answer(self) -> None:
        """A client that does not answer the Close frame is dropped after two seconds."""
        rig = self.rig()
        alice = rig.connect()
        rig.node.revoke("user", "alice")
        self.assertEqual(alice.close_code(), 4500)
        rig.pass_seconds(1)
        self.assertIsNone(alice.ended)
        rig.pass_seconds(1)
        rig.wait(lambda: alice.ended)
        self.assertEqual(rig.counters.active_connections, 0)

    def test_no_answer_but_traffic(self) -> None:
        """Nothing that a client sends instead of the answer gives it more time."""
        for noise in (
            frame(b"x", BINARY),
            frame(b"", BINARY, final=False),
            frame(b"", PING),
            command("Ping", id=1),
            frame(b"x" * 60000, TEXT, final=False),
            frame(b"", length=1 << 40),
        ):
            rig = self.rig()
            alice = rig.connect()
            rig.node.revoke("user", "alice")
            self.assertEqual(alice.close_code(), 4500)
            for _ in range(2):
                alice.send(noise)
                rig.pass_seconds(1)
            self.assertEqual(rig.counters.active_connections, 0, noise[:10])
            self.assertEqual(alice.rest(), [])

    def test_no_answer_over_tls_either(self) -> None:
        """A client that neither reads nor ends its side cannot keep a closed connection."""
        rig = self.rig()
        alice = rig.connect()
        alice.reading = False
        alice.send(close_frame(1000))
        rig.pass_seconds(2)
        rig.wait(lambda: rig.counters.active_connections == 0)

    def test_both_close(self) -> None:
        """Close frames that cross count as answers."""
        rig = self.rig()
        alice = rig.connect()
        rig.node.revoke("user", "alice")
        alice.send(close_frame(1001))
        self.assertEqual(alice.close_code(), 4500)
        self.assertEqual(alice.rest(), [])
        self.assertEqual(alice.ended, "end")

    def test_closed_once(self) -> None:
        """One Close frame is sent, however many reasons there are, and they give no more time."""
        rig = self.rig()
        alice = rig.connect()
        served = rig.served("alice")
        for code in (CloseCode.FORCED, CloseCode.SLOW_CONSUMER, CloseCode.SERVICE_RESTART):
            served.close(code)
        self.assertEqual(alice.close_code(), 4501)
        rig.pass_seconds(1)
        served.close(CloseCode.FORCED)
        rig.pass_seconds(1)
        rig.wait(lambda: alice.ended)
        self.assertEqual(alice.rest(), [])

    def test_nothing_after_close(self) -> None:
        """Nothing is sent after a Close frame: no publication, reply, Pong or heartbeat."""
        rig = self.rig(heartbeat_interval=1)
        alice, bob = rig.subscriber("alice"), rig.subscriber("bob")
        news = broadcast("news", 1)
        bob.send(news + frame(b"", 3) + news + command("Ping", id=1) + frame(b"", PING))
        rig.node.publish("news", DEFAULT, b"2", "bob", rig.clock.seconds())
        rig.node.direct("bob", b"3", "alice", rig.clock.seconds())
        rig.pass_seconds(1)
        frames = bob.pending()
        self.assertEqual(frames[-1].payload[:2], b"\x03\xea")
        self.assertEqual([frame.opcode for frame in frames].count(CLOSE), 1)
        self.assertEqual(payloads(alice.pending()), [1, 2])

    def test_not_obeyed_after_close(self) -> None:
        """Commands that come after the server's Close frame are not obeyed."""
        news = broadcast("news", 1)
        rig = self.rig()
        bob, alice = rig.subscriber("bob"), rig.connect()
        rig.node.revoke("user", "alice")
        alice.send(news, news[:9], news[9:])
        self.assertEqual(alice.close_code(), 4500)
        carol = rig.connect("carol")
        carol.send(frame(b"nonsense") * 150 + news)
        self.assertEqual(carol.until_close()[1], 4502)
        self.assertEqual(bob.pending(), [])

    def test_closed_while_publications_wait(self) -> None:
        """One who is closed in the turn of publications gets those from before the Close."""
        rig = self.rig()
        alice, bob = rig.subscriber("alice"), rig.subscriber("bob")
        now = rig.clock.seconds()
        rig.node.publish("news", DEFAULT, b"1", "carol", now)
        rig.node.revoke("user", "alice")
        rig.node.publish("news", DEFAULT, b"2", "carol", now)
        first, last = alice.pending()
        self.assertEqual(payloads([first]), [1])
        self.assertEqual(last.payload[:2], b"\x11\x94")
        self.assertEqual(payloads(bob.pending()), [1, 2])

    def test_closed_amid_a_long_write(self) -> None:
        """One who is closed while a write to many is under way misses the end, never the middle."""
        self.patch(fanout, "SLICE", 1)
        rig = self.rig()
        bob, alice = rig.subscriber("bob"), rig.subscriber("alice")
        now = rig.clock.seconds()
        rig.node.publish("news", DEFAULT, b"1", "carol", now)
        rig.reactor.iterate(0)
        rig.node.publish("news", DEFAULT, b"2", "carol", now)
        rig.node.revoke("user", "alice")
        frames, code = alice.until_close()
        self.assertEqual((payloads(frames), code), ([], 4500))
        self.assertEqual(payloads(bob.frames(2)), [1, 2])

    def test_subscriptions_end_with_the_close_frame(self) -> None:
        """A closing connection counts as open, and has no subscriptions any more."""
        rig = self.rig()
        rig.subscriber("alice")
        rig.node.revoke("user", "alice")
        self.assertEqual(rig.counters.subscriptions, 0)
        self.assertEqual(len(rig.hub.topics()), 0)
        self.assertEqual(rig.counters.active_connections, 1)

    def test_drain(self) -> None:
        """At shutdown all get what was published before, the notice, and Close 1012."""
        rig = self.rig()
        clients = [rig.subscriber(user) for user in ("alice", "bob", "carol")]
        rig.node.publish("news", DEFAULT, b"1", "alice", rig.clock.seconds())
        done = close_all(rig.node, CloseCode.SERVICE_RESTART)
        rig.node.publish("news", DEFAULT, b"2", "alice", rig.clock.seconds())
        for client in clients:
            first, notice, last = client.frames(3)
            self.assertEqual(payloads([first]), [1])
            self.assertEqual(json.loads(notice.payload)["data"], {"status": "draining"})
            self.assertEqual(last.payload[:2], b"\x03\xf4")
        self.assertNoResult(done)
        for client in clients:
            client.send(close_frame(1012))
            self.assertEqual(client.rest(), [])
        rig.settle()
        self.successResultOf(done)


class Ends:
    """What is told of a connection's end."""

    def test_codes(self) -> None:
        """The code is that of the first Close frame, or 1006 where there was none."""
        events = Recorder()
        rig = self.rig(events=events)
        for leave, code in (
            (lambda client: client.send(close_frame(1000)), 1000),
            (lambda client: client.send(close_frame(4321)), 4321),
            (RawClient.abandon, 1006),
            (RawClient.reset, 1006),
            (lambda client: rig.node.revoke("user", "alice"), 4500),
            (lambda client: client.send(frame(b"x", BINARY)), 1003),
        ):
            client = rig.connect()
            self.assertEqual(events.take(), [("connect", "alice")])
            leave(client)
            rig.wait(lambda: not rig.counters.active_connections or rig.pass_seconds(3))
            self.assertEqual(events.take(), [("disconnect", "alice", code)])


class Order:
    """The order in which things reach a client."""

    def test_publications(self) -> None:
        """Publications arrive in the order accepted, in whatever pieces they were sent."""
        rig = self.rig()
        bob = rig.subscriber("bob")
        alice = rig.connect()
        stream = b"".join(broadcast("news", n) for n in range(500))
        alice.send(*(stream[n : n + 5000] for n in range(0, len(stream), 5000)))
        self.assertEqual(payloads(bob.frames(500)), list(range(500)))

    def test_topics_direct_messages_and_status(self) -> None:
        """Publications on several topics, direct messages and subscriptions keep their order."""
        rig = self.rig()
        alice = rig.subscriber("alice", "a")
        expected: list[object] = []
        sent = b""
        for n in range(0, 60, 6):
            sent += broadcast("a", n) + broadcast("b", "missed") + broadcast("a", n + 1)
            sent += command("DirectMessage", {"target_user": "alice", "payload": n + 2})
            sent += command("Subscribe", {"topics": ["b"]}) + broadcast("b", n + 3)
            sent += broadcast("a", n + 4) + command("Unsubscribe", {"topics": ["b"]}, id=n)
            sent += broadcast("b", "missed") + broadcast("a", n + 5)
            expected += [n, n + 1, n + 2, "subscribed", n + 3, n + 4, "unsubscribed", n + 5]
        alice.send(sent)
        got = [message["data"] for message in alice.messages(len(expected))]
        self.assertEqual([data.get("status", data.get("payload")) for data in got], expected)

    def test_acks(self) -> None:
        """Every Ack comes once, in the order of the commands."""
        rig = self.rig()
        bob = rig.subscriber("bob")
        alice = rig.connect()
        alice.send(b"".join(broadcast("news", n, id=n) for n in range(300)))
        acks = alice.messages(300)
        self.assertEqual([ack["type"] for ack in acks], ["Ack"] * 300)
        self.assertEqual([ack["id"] for ack in acks], list(range(300)))
        self.assertEqual(payloads(bob.frames(300)), list(range(300)))

    def test_acks_before_the_close(self) -> None:
        """Commands accepted are answered before the Close frame, whoever closes and why."""
        for last, code in ((close_frame(1000), 1000), (frame(b"", 3), 1002)):
            rig = self.rig()
            alice = rig.subscriber("alice")
            rig.subscriber("bob")
            alice.send(broadcast("news", "x", id=1) + command("Ping", id=2) + last)
            got = [json.loads(frame.payload) for frame in alice.frames(3)]
            self.assertEqual(
                sorted((message["type"], message.get("id", 0)) for message in got),
                [("Ack", 1), ("Broadcast", 0), ("Pong", 2)],
            )
            self.assertEqual(alice.close_code(), code)

    def test_large_and_small(self) -> None:
        """Messages too large for one write and small ones keep their order and content."""
        rig = self.rig(max_queue_bytes=1 << 20)
        bob = rig.subscriber("bob")
        alice = rig.connect()
        sizes = [60000, 0, 1, 125, 126, 30000, 65000, 3]
        alice.send(b"".join(broadcast("news", "€"[:1] + "x" * size) for size in sizes))
        got = payloads(bob.frames(len(sizes)))
        self.assertEqual([len(payload) - 1 for payload in got], sizes)

    def test_slow_then_quick(self) -> None:
        """One who stops reading for a while, and is not cut, misses nothing."""
        rig = self.rig(max_queue_bytes=300_000, send_buffer=4096)
        bob = rig.subscriber("bob", receive_buffer=4096)
        alice = rig.connect()
        for _ in range(4):
            bob.reading = False
            sent = 0
            while rig.held(rig.served("bob")) < 180_000:
                alice.send(broadcast("news", [sent, "x" * 5000]))
                sent += 1
            bob.reading = True
            alice.send(*(broadcast("news", [n, ""]) for n in range(sent, sent + 50)))
            got = payloads(bob.frames(sent + 50))
            self.assertEqual([payload[0] for payload in got], list(range(sent + 50)))
            self.assertEqual(rig.held(rig.served("bob")), 0)

    def test_stop_and_go(self) -> None:
        """One who reads all, then nothing, and so on, misses nothing of large messages either."""
        rig = self.rig(max_queue_bytes=300_000, send_buffer=4096)
        bob = rig.subscriber("bob", receive_buffer=4096)
        alice = rig.connect()
        for round in range(4):
            bob.reading = False
            texts = [f"{round} {n} " + "xyz" * 20_000 for n in range(3)]
            alice.send(*(broadcast("news", text) for text in texts))
            bob.reading = True
            self.assertEqual(payloads(bob.frames(3)), texts)


class SlowConsumers:
    """Clients that do not read as fast as they are written to."""

    limit = 100_000
    # What may wait: the limit, what transports buffer before they say so, what TLS adds.
    bound = limit + 65536 + 16384

    def start(self) -> None:
        """A server with small buffers; bob does not read, carol does, alice publishes."""
        rig = self.server = self.rig(
            max_queue_bytes=self.limit, send_buffer=4096, heartbeat_interval=1000
        )
        self.bob = rig.subscriber("bob", receive_buffer=4096)
        self.carol = rig.subscriber("carol")
        self.alice = rig.connect()
        self.bob.reading = False
        self.served = rig.served("bob")

    def flood(self) -> int:
        """Publish until bob is cut; answer how many messages that took."""
        text = "x" * 3000
        most = 0
        for number in range(10_000):
            self.alice.send(broadcast("news", [number, text]))
            most = max(most, self.server.held(self.served))
            if self.server.counters.closed_slow_consumers:
                self.assertLess(most, self.bound)
                self.assertGreater(most, self.limit - 4096)
                return number + 1
        raise AssertionError("never cut")

    def test_cut(self) -> None:
        """One who never reads is closed at max_queue_bytes, then dropped; others miss nothing."""
        self.start()
        sent = self.flood()
        rig = self.server
        self.assertEqual(payloads(self.carol.frames(sent)), [[n, "x" * 3000] for n in range(sent)])
        self.assertEqual(rig.counters.active_connections, 3)
        self.assertEqual(rig.counters.subscriptions, 1)
        held = rig.held(self.served)
        self.alice.send(broadcast("news", "more"))
        self.assertEqual(self.carol.message()["data"]["payload"], "more")
        # Nothing is added; the kernel may still take some of it.
        self.assertLessEqual(rig.held(self.served), held)
        rig.pass_seconds(2)
        rig.wait(lambda: rig.counters.active_connections == 2)
        self.assertEqual(rig.counters.closed_slow_consumers, 1)

    def test_cut_then_read(self) -> None:
        """One who reads on after all gets what was on its way, in order, and Close 4002."""
        self.start()
        sent = self.flood()
        self.bob.reading = True
        messages, code = self.bob.until_close()
        self.assertEqual(code, 4002)
        numbers = [payload[0] for payload in payloads(messages)]
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertLess(len(numbers), sent)
        self.bob.send(close_frame(4002))
        self.assertEqual(self.bob.rest(), [])

    def test_replies(self) -> None:
        """One who asks and never reads the replies is cut too."""
        self.start()
        for _ in range(10_000):
            self.bob.send(command("Ping", id="x" * 3000) * 10)
            self.assertLess(self.server.held(self.served), self.bound)
            if self.server.counters.closed_slow_consumers:
                return
        raise AssertionError("never cut")

    def test_ping_flood(self) -> None:
        """So is one who sends protocol Pings and never reads the Pongs."""
        self.start()
        for _ in range(10_000):
            self.bob.send(frame(b"x" * 125, PING) * 100)
            self.assertLess(self.server.held(self.served), self.bound)
            if self.server.counters.closed_slow_consumers:
                break
        self.server.pass_seconds(2)
        self.server.wait(lambda: self.server.counters.active_connections == 2)

    def test_close_of_one_who_does_not_read(self) -> None:
        """A Close frame behind a full queue waits its two seconds, no more."""
        self.start()
        while self.server.held(self.served) < self.limit // 2:
            self.alice.send(broadcast("news", "x" * 3000))
        self.server.node.revoke("user", "bob")
        self.server.pass_seconds(1)
        self.assertEqual(self.server.counters.active_connections, 3)
        self.server.pass_seconds(1)
        self.server.wait(lambda: self.server.counters.active_connections == 2)
        self.assertEqual(self.server.counters.closed_slow_consumers, 0)

    def test_reset_with_a_full_queue(self) -> None:
        """One who vanishes with messages waiting leaves nothing behind."""
        self.start()
        while self.server.held(self.served) < self.limit // 2:
            self.alice.send(broadcast("news", "x" * 3000))
        self.bob.reset()
        self.server.wait(lambda: self.server.counters.active_connections == 2)

    def test_topics_that_may_be_missed(self) -> None:
        """Publications of topics that allow it are dropped, and the client is kept."""
        for policy in ("drop-oldest", "latest"):
            rule = Namespace("ticker.*", slow_consumers=policy)
            rig = self.rig(
                max_queue_bytes=self.limit, send_buffer=4096, topics=[rule], heartbeat_interval=1000
            )
            bob = rig.subscriber("bob", "ticker.>", receive_buffer=4096)
            bob.send(command("Subscribe", {"topics": ["news"]}))
            bob.message()
            carol = rig.subscriber("carol", "ticker.>")
            alice = rig.connect()
            bob.reading = False
            most = 0
            got: list[int] = []
            for number in range(400):
                topic = f"ticker.{number % 2}"
                text = [number, "x" * 3000]
                alice.send(command("Broadcast", {"topic": topic, "payload": text}))
                most = max(most, rig.held(rig.served("bob")))
                if number % 4 == 3:  # often enough for carol not to be slow
                    got += [n for n, _ in payloads(carol.pending())]
            alice.send(broadcast("news", ["last", ""]))
            self.assertLess(most, self.bound)
            self.assertEqual(got, list(range(400)))
            self.assertEqual(rig.counters.closed_slow_consumers, 0)
            dropped = rig.counters.dropped_publications
            self.assertGreater(dropped, 300)
            bob.reading = True
            *numbers, last = [n for n, _ in payloads(bob.frames(401 - dropped))]
            self.assertEqual(last, "last")
            self.assertEqual(numbers, sorted(numbers))
            # What the transport had taken already comes in any case.
            begun = next(place for place, number in enumerate(numbers) if number != place)
            expected = range(400 - len(numbers) + begun, 400)
            self.assertEqual(numbers[begun:], list(expected))
            if policy == "latest":
                self.assertEqual(numbers[begun:], [398, 399])
            self.assertEqual(rig.held(rig.served("bob")), 0)

    def test_too_many_bytes_a_second(self) -> None:
        """Who sends more than a second may bring is read no further until the next; all arrives."""
        rig = self.rig(byte_rate=40_000)
        carol = rig.subscriber("carol")
        alice = rig.connect()
        alice.send(b"".join(broadcast("news", [n, "x" * 1000]) for n in range(300)))
        got = [n for n, _ in payloads(carol.pending())]
        # TLS reads up to 64 KiB at once.
        self.assertLess(len(got), 120)
        seconds = 0
        while len(got) < 300 and seconds < 20:
            rig.pass_seconds(1)
            seconds += 1
            new = [n for n, _ in payloads(carol.pending())]
            self.assertLess(len(new), 120)
            got += new
        self.assertEqual(got, list(range(300)))
        self.assertGreater(seconds, 1)
        self.assertGreater(rig.counters.limited["byte-rate"], 1)
        for leave in (RawClient.abandon, RawClient.reset):
            client = rig.connect("bob")
            client.send(b"".join(broadcast("news", [n, "x" * 1000]) for n in range(300)))
            leave(client)
            rig.pass_seconds(20)
            rig.wait(lambda: rig.counters.active_connections == 2)

    def test_publisher_is_held(self) -> None:
        """A publisher that is faster than the server writes is read no further, then goes on."""
        self.patch(fanout.Fanout, "high_water", 10)
        rig = self.rig()
        carol = rig.subscriber("carol")
        alice = rig.connect()
        served: Any = rig.served("alice")
        resume = served.transport.resumeProducing
        resumed: list[bool] = []

        def record() -> None:
            resumed.append(rig.hub.congested)
            resume()

        self.patch(served.transport, "resumeProducing", record)
        stream = b"".join(broadcast("news", [n, "x" * 1000]) for n in range(1000))
        alice.send(stream)
        self.assertEqual([n for n, _ in payloads(carol.frames(1000))], list(range(1000)))
        alice.send(command("Ping", id=1))
        self.assertEqual(alice.message()["id"], 1)
        self.assertGreater(len(resumed), 5)
        self.assertEqual(set(resumed), {False})

    def test_held_publisher_vanishes(self) -> None:
        """A publisher that goes while it is held is noticed, and the rest of the queue is sent."""
        self.patch(fanout.Fanout, "high_water", 10)
        for leave in (RawClient.abandon, RawClient.reset):
            rig = self.rig()
            carol = rig.subscriber("carol")
            alice = rig.connect()
            for _ in range(3):
                alice.send(b"".join(broadcast("news", [n, "x" * 1000]) for n in range(20)))
            leave(alice)
            rig.wait(lambda rig=rig: rig.counters.active_connections == 1)
            self.assertEqual(len(payloads(carol.frames(60))), 60)


def kept(connection: Any) -> int:
    """Bytes that a connection holds of what it has received."""
    size = len(connection.data)
    for name in ("message_data", "frame_data", "control_frame_data"):
        size += sum(len(piece) + 8 for piece in getattr(connection, name, None) or ())
    return size


globals().update(on_every_path(Handshake, Frames, Life, Closing, Ends, Order, SlowConsumers))
