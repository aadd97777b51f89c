"""`--workers N`: several processes on one port."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from realtime.workers import LONGEST_PAUSE, pause
from tests.support.redis import new_prefix, shared_redis
from tests.support.server import Server, free_port, run, wait_until


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_ports(number: int) -> int:
    """The first of some ports in a row that were free a moment ago."""
    while True:
        first = free_port()
        with ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first


def get(port: int, path: str) -> tuple[int, str]:
    """Read a path; answer status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Accept": "text/plain"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def lives(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


class WorkersTests(SynchronousTestCase):
    """A parent and its workers on a real Redis."""

    def start(self, *options: str) -> Server:
        """Start two workers."""
        server = Server(
            "--workers=2", f"--redis-prefix={new_prefix()}", *options, REDIS_URL=shared_redis().url
        ).start()
        self.addCleanup(server.stop, signal.SIGKILL)
        wait_until(lambda: len(self.nodes(server)) == 2, 30)
        self.token = server.login("admin", server.admin_password)["access_token"]
        return server

    def nodes(self, server: Server) -> list[dict[str, Any]]:
        """What `/info` says of the nodes."""
        nodes: list[dict[str, Any]] = server.request("GET", "/info")[2]["nodes"]
        return nodes

    def connect(self, server: Server, stack: ExitStack) -> ClientConnection:
        """Connect, and subscribe to a topic."""
        client = stack.enter_context(connect(server.token_url(self.token)))
        client.recv(30)
        client.send(json.dumps({"type": "Subscribe", "data": {"topics": ["t"]}}))
        self.assertEqual(json.loads(client.recv(30))["data"]["status"], "subscribed")
        return client

    def test_one_service(self) -> None:
        """Connections go to all workers, and a message published on one reaches all, once."""
        server = self.start()
        with ExitStack() as stack:
            clients = [self.connect(server, stack) for _ in range(24)]
            here = {str(json.loads(self.ask(client, "Ping"))["type"]) for client in clients}
            self.assertEqual(here, {"Pong"})
            status, _, found = server.request(
                "GET", "/connections", Authorization=f"Bearer {self.token}"
            )
            self.assertEqual((status, len(found["connections"])), (200, 24))
            used = {each["connection_id"].partition("-")[0] for each in found["connections"]}
            self.assertEqual(used, {node["node_id"] for node in self.nodes(server)})
            clients[0].send(
                json.dumps({"type": "Broadcast", "data": {"topic": "t", "payload": "x"}})
            )
            for client in clients:
                self.assertEqual(json.loads(client.recv(30))["data"]["payload"], "x")
            for client in clients:
                self.assertEqual(json.loads(self.ask(client, "Ping"))["type"], "Pong")

    def test_metrics(self) -> None:
        """On ports of their own workers tell each its metrics and health, and nothing else."""
        first = free_ports(2)
        server = self.start(f"--metrics-port={first}")
        with ExitStack() as stack:
            for _ in range(12):
                self.connect(server, stack)
            counts = []
            for port in (first, first + 1):
                status, text = get(port, "/metrics")
                (count,) = re.findall(r"^realtime_active_connections (\d+)", text, re.M)
                counts.append(int(count))
                health = json.loads(get(port, "/health/ready")[1])
                self.assertEqual((status, health["active_connections"]), (200, int(count)))
                for path in ("/info", "/", "/ws", "/metrics/", "*"):
                    status, text = get(port, path)
                    self.assertEqual(status, 404, path)
                    self.assertEqual(json.loads(text)["error"]["code"], "NOT_FOUND")
            self.assertEqual(sum(counts), 12)
            self.assertNotIn(0, counts)

    def ask(self, client: ClientConnection, type: str) -> str:
        """Send a command; answer what comes next."""
        client.send(json.dumps({"type": type}))
        return str(client.recv(30))

    def test_killed_worker(self) -> None:
        """A worker that dies is started again, and connections meanwhile wait for it."""
        server = self.start()
        before = children(server.pid)
        self.assertEqual(len(before), 2)
        os.kill(before[0], signal.SIGKILL)
        with ExitStack() as stack:
            for _ in range(12):
                self.connect(server, stack)
        wait_until(lambda: len(children(server.pid)) == 2, 30)
        self.assertIn("has ended by signal 9", server.output)

    def test_ends_in_good_order(self) -> None:
        """SIGTERM drains all workers, and ends all with status 0."""
        server = self.start("--drain-seconds=1")
        workers = children(server.pid)
        with ExitStack() as stack:
            clients = [self.connect(server, stack) for _ in range(8)]
            os.kill(server.pid, signal.SIGTERM)
            for client in clients:
                self.assertEqual(json.loads(client.recv(30))["data"], {"status": "draining"})
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv(30)
                assert caught.exception.rcvd is not None
                self.assertEqual(caught.exception.rcvd.code, 1012)
        self.assertEqual(server.stop(), 0)
        self.assertEqual([lives(pid) for pid in workers], [False, False])
        self.assertNotIn("Traceback", server.output)

    def test_killed_parent(self) -> None:
        """Workers do not outlive their parent."""
        server = self.start("--drain-seconds=0")
        workers = children(server.pid)
        server.stop(signal.SIGKILL)
        wait_until(lambda: not any(map(lives, workers)), 30)

    def test_started_twice(self) -> None:
        """A port that other workers listen on is taken."""
        server = self.start()
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")
        options = (f"--state={self.mktemp()}", "--host=127.0.0.1", f"--port={server.port}")
        redis = f"--redis={shared_redis().url}"
        done = run(*twistd, "realtime", *options, "--workers=2", redis)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on 127.0.0.1 port {server.port}", done.stderr)

    def test_mistakes(self) -> None:
        """Without Redis, or with one that is not there, it says so in a line, and ends."""
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")
        options = ("realtime", f"--state={self.mktemp()}", "--port=0", "--workers=2")
        done = run(*twistd, *options)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "realtime: --workers 2 needs --redis\n")
        done = run(*twistd, *options, "--redis=redis://:secret@127.0.0.1:1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("realtime: --redis: Redis at 127.0.0.1:1: ", done.stderr)
        self.assertNotIn("secret", done.stderr + done.stdout)
        self.assertNotIn("Traceback", done.stderr + done.stdout)


class PauseTests(SynchronousTestCase):
    """`pause`."""

    @given(st.integers(0, 1000), st.floats(0, 1))
    def test_grows_and_ends(self, failures: int, chance: float) -> None:
        """It grows with every failure, up to a limit, and is never nothing."""
        self.assertLessEqual(pause(failures, 0.0), pause(failures, chance))
        self.assertLessEqual(pause(failures, chance), LONGEST_PAUSE)
        self.assertGreaterEqual(pause(failures + 1, chance), pause(failures, chance))
        self.assertGreater(pause(failures, chance), 0.2)
