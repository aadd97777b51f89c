"""Two nodes on one Redis are one service."""

from __future__ import annotations

import json
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from realtime import __version__
from tests.support.redis import RedisServer, new_prefix, shared_redis
from tests.support.server import Server, wait_until

CONFIG = """
[[topic]]
pattern = "room.>"
history_size = 100
presence = true
join_leave = true
"""


class Client:
    """A connection to a node."""

    def __init__(self, case: SynchronousTestCase, server: Server, token: str) -> None:
        self.socket: ClientConnection = connect(server.token_url(token))
        case.addCleanup(self.socket.close)
        self.welcome = self.next()["data"]
        self.heard: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any]:
        """What comes next."""
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=20))
        return message

    def ask(self, type: str, **data: Any) -> dict[str, Any]:
        """Send a command, and read up to its answer; what comes before is in `heard`."""
        self.socket.send(json.dumps({"type": type, "id": "1", "data": data}))
        while True:
            message = self.next()
            if message.get("id") == "1":
                return message
            self.heard.append(message)

    def until(self, type: str) -> dict[str, Any]:
        """Take the next message of a type, of those heard or to come."""
        for message in self.heard:
            if message["type"] == type:
                self.heard.remove(message)
                return message
        while True:
            message = self.next()
            if message["type"] == type:
                return message
            self.heard.append(message)

    def close_code(self) -> int | None:
        """Read up to the end."""
        try:
            while True:
                self.next()
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code


class NodesTestCase(SynchronousTestCase):
    """Two nodes with one state directory, as two workers have it."""

    def start(self, redis: RedisServer | None = None) -> None:
        """Start them."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        config = Path(folder.name, "config.toml")
        config.write_text(CONFIG)
        state = Path(folder.name, "state")
        state.mkdir()
        self.prefix = new_prefix()
        options = (
            f"--config={config}",
            f"--redis={(redis or shared_redis()).url}",
            f"--redis-prefix={self.prefix}",
            "--presence-grace=0",
        )
        self.servers = []
        for _ in range(2):
            server = Server(*options, state=str(state)).start()
            self.addCleanup(server.stop, signal.SIGKILL)
            self.servers.append(server)
        password = self.servers[0].admin_password
        self.servers[0].add_user("bob")
        self.admin = self.servers[1].login("admin", password)["access_token"]
        self.session = self.servers[0].login("bob")
        self.bob = self.session["access_token"]

    def client(self, node: int, token: str = "") -> Client:
        """Connect to a node."""
        return Client(self, self.servers[node], token or self.admin)

    def rest(self, node: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask a node as the admin."""
        status, _, answer = self.servers[node].request(
            method, path, body, Authorization=f"Bearer {self.admin}"
        )
        return status, answer


class NodesTests(NodesTestCase):
    """What crosses from one node to the other."""

    def test_key_of_its_own(self) -> None:
        """A node of another state directory refuses the others' tokens; the logs tell the keys."""
        self.start()
        one = self.servers[0]
        other = Server(f"--redis={shared_redis().url}", f"--redis-prefix={self.prefix}").start()
        self.addCleanup(other.stop, signal.SIGKILL)
        keys = [
            re.findall(r"signed by key (\w+) of", server.output)
            for server in (*self.servers, other)
        ]
        self.assertEqual([len(each) for each in keys], [1, 1, 1])
        self.assertEqual(keys[0], keys[1])
        self.assertNotEqual(keys[0], keys[2])
        headers = {"Authorization": f"Bearer {self.admin}"}
        self.assertEqual(one.request("GET", "/topics", **headers)[0], 200)
        self.assertEqual(other.request("GET", "/topics", **headers)[0], 401)

    def test_topics(self) -> None:
        """Publications cross with their positions, by name and by pattern, and recover anywhere."""
        self.start()
        one, two = self.client(0), self.client(1)
        entry = one.ask("Subscribe", topics=["room.1"])["data"]["topics"][0]
        two.ask("Subscribe", topics=["room.*"])
        for number in range(3):
            ack = two.ask("Broadcast", topic="room.1", payload=number)["data"]
            self.assertEqual((ack["offset"], ack["epoch"]), (number + 1, entry["epoch"]))
        for client in (one, two):
            got = [client.until("Broadcast")["data"] for _ in range(3)]
            self.assertEqual([each["payload"] for each in got], [0, 1, 2])
            self.assertEqual([each["offset"] for each in got], [1, 2, 3])
        three = self.client(1)
        since = {"room.1": {"offset": 1, "epoch": entry["epoch"]}}
        status = three.ask("Subscribe", topics=["room.1"], recover=since)["data"]["topics"][0]
        self.assertEqual((status["recovered"], status["offset"]), (True, 3))
        missed = [m["data"]["payload"] for m in three.heard if m["type"] == "Broadcast"]
        self.assertEqual(missed, [1, 2])
        page = self.rest(0, "GET", "/topics/room.1/history")[1]
        self.assertEqual([each["payload"] for each in page["publications"]], [0, 1, 2])
        self.assertEqual(
            self.rest(0, "GET", "/topics")[1], {"topics": [{"topic": "room.1", "subscribers": 2}]}
        )

    def test_keys(self) -> None:
        """A key holds on all nodes, for publications and direct messages."""
        self.start()
        listener = self.client(0, self.bob)
        listener.ask("Subscribe", topics=["plain"])
        for node in (0, 1, 1):
            self.client(node).ask("Broadcast", topic="plain", payload=1, key="k")
            ack = self.client(node).ask("DirectMessage", target_user="bob", payload=2, key="k")
            self.assertEqual(ack["data"], {"delivered": 1})
        # What comes by way of Redis comes in order: a repetition would be before these.
        self.client(1).ask("Broadcast", topic="plain", payload=3)
        self.client(1).ask("DirectMessage", target_user="bob", payload=4)
        got = [listener.next() for _ in range(4)]
        heard = sorted((m["type"], m["data"]["payload"]) for m in (*listener.heard, *got))
        self.assertEqual(
            heard,
            [("Broadcast", 1), ("Broadcast", 3), ("DirectMessage", 2), ("DirectMessage", 4)],
        )

    def test_direct(self) -> None:
        """A direct message reaches a user's connections on all nodes, by id and by name."""
        self.start()
        clients = [self.client(node, self.bob) for node in (0, 1, 1)]
        user_id = clients[0].welcome["user_id"]
        sender = self.client(0)
        for target in (user_id, "bob", "BOB"):
            ack = sender.ask("DirectMessage", target_user=target, payload="hi")
            self.assertEqual(ack["data"], {"delivered": 3})
            for client in clients:
                self.assertEqual(client.until("DirectMessage")["data"]["payload"], "hi")
        sent = self.rest(1, "POST", "/users/bob/messages", {"payload": 1})
        self.assertEqual(sent, (200, {"delivered": 3}))
        self.assertEqual(
            sender.ask("DirectMessage", target_user="nobody", payload=1)["data"], {"delivered": 0}
        )

    def test_presence(self) -> None:
        """Who is there is the same on all nodes; a user comes once and goes once."""
        self.start()
        watcher = self.client(0)
        watcher.ask("Subscribe", topics=["room.1"])
        here, there = self.client(0, self.bob), self.client(1, self.bob)
        for client in (here, there):
            client.ask("Subscribe", topics=["room.1"])
        user_id = here.welcome["user_id"]
        for client in (watcher, there):

            def counted(client: Client = client) -> bool:
                found = client.ask("Presence", topic="room.1")["data"]
                return (found["users"], found["connections"]) == (2, 3)

            # One node tells the other by way of Redis, which takes a moment.
            wait_until(counted)
        here.socket.close()
        there.ask("Presence", topic="room.1", state="busy")
        there.socket.close()
        while True:
            if watcher.until("Leave")["data"]["user_id"] == user_id:
                break
        told = [m["type"] for m in watcher.heard if m["data"].get("user_id") == user_id]
        self.assertEqual(told, ["Join", "Update"])

    def test_sessions(self) -> None:
        """A session ended on one node ends its connections on the other, and its tokens on both."""
        self.start()
        there = self.client(1, self.bob)
        other = self.client(1)
        path = f"/sessions/{self.session['session_id']}"
        self.assertEqual(self.rest(0, "DELETE", path)[0], 204)
        self.assertEqual(there.close_code(), 4500)
        for server in self.servers:
            status = server.request("DELETE", path, Authorization=f"Bearer {self.bob}")[0]
            self.assertEqual(status, 401)
        self.assertEqual(other.ask("Ping")["type"], "Pong")

    def test_connections(self) -> None:
        """Connections of all nodes are listed in pages, and ended from any."""
        self.start()
        bobs = [self.client(node, self.bob) for node in (0, 0, 1, 1)]
        admin = self.client(1)
        seen, after = [], ""
        while True:
            page = self.rest(0, "GET", f"/connections?limit=2{after}")[1]
            seen += [each["connection_id"] for each in page["connections"]]
            if "after" not in page:
                break
            after = f"&after={page['after']}"
        expected = {client.welcome["connection_id"] for client in (*bobs, admin)}
        self.assertEqual((len(seen), set(seen)), (5, expected))
        mine = self.rest(1, "GET", "/connections?user=bob")[1]["connections"]
        self.assertEqual(len(mine), 4)
        there = bobs[3].welcome["connection_id"]
        self.assertEqual(self.rest(0, "DELETE", f"/connections/{there}")[0], 204)
        self.assertEqual(bobs[3].close_code(), 4501)
        self.assertEqual(self.rest(0, "DELETE", f"/connections/{there}")[0], 404)
        self.assertEqual(self.rest(0, "DELETE", "/connections/gone-1")[0], 404)
        self.assertEqual(self.rest(0, "DELETE", "/users/bob/connections"), (200, {"closed": 3}))
        self.assertEqual([client.close_code() for client in bobs[:3]], [4501] * 3)
        self.assertEqual(admin.ask("Ping")["type"], "Pong")

    def test_info(self) -> None:
        """`/info` tells of all nodes."""
        self.start()
        ids = {self.client(node).welcome["connection_id"].partition("-")[0] for node in (0, 1)}
        nodes = self.rest(0, "GET", "/info")[1]["nodes"]
        self.assertEqual({node["node_id"] for node in nodes}, ids)
        self.assertEqual({node["version"] for node in nodes}, {__version__})
        self.assertEqual({node["status"] for node in nodes}, {"healthy"})

    def test_stopping(self) -> None:
        """A node that stops leaves at once, and the other goes on."""
        self.start()
        self.assertEqual(self.servers[0].stop(), 0)
        self.assertEqual(len(self.rest(1, "GET", "/info")[1]["nodes"]), 1)
        self.assertNotIn("Traceback", self.servers[0].output)


class FailureTests(NodesTestCase):
    """Without Redis."""

    def test_redis_refuses(self) -> None:
        """A Redis that takes no writes is told by health, and by every command that needs one."""
        redis = RedisServer()
        self.addCleanup(redis.remove)
        redis.start()
        self.start(redis)
        client = self.client(0)
        redis.tell("CONFIG", "SET", "min-replicas-to-write", "1")
        self.assertEqual(
            client.ask("Broadcast", topic="room.1", payload=1)["data"]["code"], "UNAVAILABLE"
        )
        for server in self.servers:
            wait_until(lambda server=server: server.request("GET", "/health")[0] == 503)
            body = server.request("GET", "/health")[2]
            self.assertEqual(body["reason"], "Broker refuses to write")
        redis.tell("PUBLISH", f"{self.prefix}revoked", "junk")
        redis.tell("CONFIG", "SET", "min-replicas-to-write", "0")
        for server in self.servers:
            wait_until(lambda server=server: server.request("GET", "/health")[0] == 200)
            self.assertNotIn("Traceback", server.output)
        self.assertEqual(client.ask("Broadcast", topic="room.1", payload=2)["type"], "Ack")

    def test_redis_goes_and_comes(self) -> None:
        """Clients stay connected, what needs Redis is refused, health says so; then all works."""
        redis = RedisServer()
        self.addCleanup(redis.remove)
        redis.start()
        self.start(redis)
        one, two = self.client(0), self.client(1, self.bob)
        one.ask("Subscribe", topics=["room.1", "plain"])
        one.ask("Broadcast", topic="room.1", payload=1)
        redis.kill()
        for server in self.servers:
            wait_until(lambda server=server: server.request("GET", "/health")[0] == 503)
            body = server.request("GET", "/health")[2]
            self.assertEqual(body["reason"], "Broker unreachable")
            self.assertEqual(server.request("GET", "/health/live")[0], 200)
        for type, data in (
            ("Broadcast", {"topic": "room.1", "payload": 2}),
            ("Broadcast", {"topic": "plain", "payload": 2}),
            ("Subscribe", {"topics": ["room.2"]}),
            ("History", {"topic": "room.1"}),
            ("Presence", {"topic": "room.1"}),
            ("DirectMessage", {"target_user": "bob", "payload": 1}),
        ):
            refusal = one.ask(type, **data)
            self.assertEqual((refusal["type"], refusal["data"]["code"]), ("Error", "UNAVAILABLE"))
        self.assertEqual(self.rest(0, "POST", "/publish", {"topic": "plain", "payload": 1})[0], 503)
        self.assertEqual(self.rest(0, "GET", "/connections")[0], 503)
        self.assertEqual(one.ask("Ping")["type"], "Pong")
        # Who has a token connects all the same.
        three = self.client(0, self.bob)
        redis.start()
        for server in self.servers:
            wait_until(lambda server=server: server.request("GET", "/health")[0] == 200, 30)
        two.ask("Broadcast", topic="plain", payload=3)
        ack = two.ask("Broadcast", topic="room.1", payload=4)
        self.assertEqual(ack["data"]["offset"], 2)
        got = [one.until("Broadcast")["data"]["payload"] for _ in range(3)]
        self.assertEqual(got, [1, 3, 4])
        ack = one.ask("DirectMessage", target_user="bob", payload=5)
        self.assertEqual(ack["data"], {"delivered": 2})
        self.assertEqual(three.until("DirectMessage")["data"]["payload"], 5)
        for server in self.servers:
            self.assertEqual(server.stop(), 0)
            for word in ("Traceback", "Unhandled"):
                self.assertNotIn(word, server.output)
