"""The assembled server, in this process and as twistd runs it."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from realtime.errors import ConfigurationError
from realtime.first_run import add_first_user, page_url
from realtime.service import RealtimeService
from realtime.settings import read_settings
from tests.support.identity import make_state_dir
from tests.support.server import Server, environment, run, wait_until

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
FOREGROUND = ("--nodaemon", "--pidfile=", "realtime", "--host=127.0.0.1")


class InProcessTests(TestCase):
    """A service on trial's reactor, which complains of whatever is left open."""

    def make(self, **options: str) -> RealtimeService:
        """A service on a free port, with a state directory of its own."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        flags = {"host": "127.0.0.1", "port": "0", "state": make_state_dir(self), **options}
        return RealtimeService(read_settings(flags, {}), reactor)

    async def test_start_serve_stop(self) -> None:
        """A service serves once started, and leaves nothing behind once stopped."""
        service = self.make()
        service.startService()
        url = f"http://127.0.0.1:{service.port}/health"
        answer = await treq.get(url, persistent=False, timeout=10)
        self.assertEqual(answer.code, 200)
        self.assertEqual((await answer.json())["status"], "healthy")
        await service.stopService()
        self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", service.port), 1)

    async def test_stop_while_starting(self) -> None:
        """A service stopped before it is ready stops all the same."""
        service = self.make()
        service.startService()
        await service.stopService()

    async def test_stop_without_start(self) -> None:
        """A service that was bound and never started gives its port back."""
        service = self.make()
        service.bind()
        await service.stopService()
        self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", service.port), 1)

    def test_taken_port(self) -> None:
        """A port in use is a mistake that names it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            error = self.assertRaises(ConfigurationError, self.make(port=str(port)).bind)
        self.assertEqual(
            str(error),
            f"cannot listen on 127.0.0.1 port {port}: Address already in use; --port takes another",
        )

    def test_unknown_host(self) -> None:
        """A host that is none is a mistake that names it."""
        error = self.assertRaises(ConfigurationError, self.make(host="256.1.1.1").bind)
        self.assertIn("cannot listen on 256.1.1.1 port 0", str(error))

    def test_impossible_host(self) -> None:
        """So is one that cannot be a name at all."""
        for host in ("a..b", "x" * 64 + ".example"):
            error = self.assertRaises(ConfigurationError, self.make(host=host).bind)
            self.assertEqual(str(error), f"--host {host}: is no host's name")

    async def test_two_first_starts(self) -> None:
        """Of two servers that start at once on an empty directory, one makes the admin."""
        state = make_state_dir(self)
        audit = Path(state, "audit.log")
        settings = read_settings({"state": state, "audit-log": str(audit)}, {})
        starts = [add_first_user(settings, reactor, f"password {n}") for n in range(2)]
        made = await gatherResults([Deferred.fromCoroutine(start) for start in starts])
        self.assertEqual(sorted(made), [False, True])
        self.check_audit(audit)

    def check_audit(self, path: Path) -> None:
        """The admin was made once, by who runs this."""
        (line,) = map(json.loads, path.read_text().splitlines())
        self.assertEqual((line["event"], line["username"]), ("user_add", "admin"))
        self.assertEqual(line["actor"], f"uid:{os.getuid()}")
        self.assertNotIn("password ", str(line))

    def test_page(self) -> None:
        """The page's address is that of the host, or of this machine for all its addresses."""
        for host, page in (
            ("0.0.0.0", "http://localhost:81/"),
            ("::", "http://localhost:81/"),
            ("::1", "http://[::1]:81/"),
            ("chat.example", "http://chat.example:81/"),
        ):
            settings = read_settings({"host": host}, {})
            self.assertEqual(page_url(settings, 81), page)
            secure = replace(settings, tls_cert="cert", tls_key="key")
            self.assertEqual(page_url(secure, 81), page.replace("http:", "https:"))
        self.assertEqual(page_url(read_settings({"unix": "/run/x"}, {}), 0), "unix:/run/x")

    async def test_silent_http_does_not_hold_up(self) -> None:
        """Connections that have said nothing, or half a request, do not hold up the end."""
        service = self.make()
        service.startService()
        with socket.create_connection(("127.0.0.1", service.port)) as half:
            half.sendall(b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Le")
            # An answer on another connection shows that the first is being served.
            await treq.get(f"http://127.0.0.1:{service.port}/info", persistent=False, timeout=10)
            started = time.monotonic()
            await service.stopService()
            self.assertLess(time.monotonic() - started, 8)
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)  # the loss of the connection is seen
        await done


class ProcessTests(SynchronousTestCase):
    """`twistd -n realtime`, where `tests/integration/test_restart.py` does not look."""

    def setUp(self) -> None:
        """Make a state directory that outlives a server."""
        self.state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, self.state, True)

    def serve(self, *options: str) -> Server:
        """Start a server on the state directory; it is stopped after the test at the latest."""
        server = Server(*options, state=self.state)
        self.addCleanup(server.stop)
        return server.start()

    def connect(self, server: Server, token: str, **options: Any) -> ClientConnection:
        """Connect, and read the welcome."""
        client = connect(
            server.ws_url, additional_headers={"Authorization": f"Bearer {token}"}, **options
        )
        self.addCleanup(client.close)
        self.assertEqual(json.loads(client.recv(30))["data"]["status"], "connected")
        return client

    def token(self, name: str, *options: str) -> str:
        """An access token made by the command line."""
        done = run("-m", "realtime", "--state", self.state, "token", "--user", name, *options)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def user(self, *arguments: str, input: str = "") -> None:
        """Run `python -m realtime user`."""
        done = run("-m", "realtime", "--state", self.state, "user", *arguments, input=input)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def closed_with(self, client: ClientConnection) -> int | None:
        """Read to the end; answer the code in the server's Close frame."""
        try:
            while True:
                client.recv(15)
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code

    # -- starting ----------------------------------------------------------------------------

    def test_state_directory_is_closed(self) -> None:
        """A state directory that has to be made is for its owner only."""
        state = os.path.join(self.state, "deep", "er")
        bad = run(*TWISTD, *FOREGROUND, f"--state={state}", "--secret-file=/nonexistent")
        self.assertEqual(bad.returncode, 1)
        self.assertEqual(stat.S_IMODE(os.stat(state).st_mode), 0o700)

    def test_first_words(self) -> None:
        """The first start says where to look and how to change the password, in full."""
        server = self.serve()
        self.assertIn(f"the page is at {server.http_url}/", server.output)
        self.assertNotIn("Main loop", server.output)
        (command,) = re.findall(r"Change it: python (.*)", server.output)
        folder = make_state_dir(self)
        done = subprocess.run(
            [sys.executable, *shlex.split(command)],
            cwd=folder,
            env=environment(),
            input="another horse\n",
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        server.login("admin", "another horse")

    # -- mistakes ----------------------------------------------------------------------------

    def refused(self, *options: str, names: str, **environ: str) -> None:
        """The server does not start: one line that has `names`, status 1, no password printed."""
        for mode in (FOREGROUND, (f"--pidfile={self.state}/pid", "realtime", "--host=127.0.0.1")):
            done = run(*TWISTD, *mode, f"--state={self.state}", *options, **environ)
            self.assertEqual(done.returncode, 1, done)
            self.assertEqual(done.stdout, "")
            self.assertRegex(done.stderr, r"\Arealtime: [^\n]+\n\Z")
            self.assertIn(names, done.stderr)

    def test_bad_options(self) -> None:
        """A mistake in flag, environment or file is one line on standard error, status 1."""
        config = Path(self.state, "realtime.toml")
        config.write_text("max-conections = 5\n")
        self.refused("--port=http", names="--port")
        self.refused(names="REALTIME_MAX_CONNECTIONS", REALTIME_MAX_CONNECTIONS="many")
        self.refused(f"--config={config}", names="max-conections")

    def test_taken_port(self) -> None:
        """A port in use is told in one line, also where twistd would leave the terminal."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refused(f"--port={port}", names=f"port {port}: Address already in use")

    def test_bad_keys(self) -> None:
        """A secret that is missing or short, or a public key that is none, is refused unseen."""
        self.refused("--port=0", "--secret-file=/nonexistent", names="/nonexistent")
        secret = Path(self.state, "mine.key")
        secret.write_text("short-secret")
        secret.chmod(0o600)
        self.refused("--port=0", f"--secret-file={secret}", names="holds 12 bytes")
        public = ("--jwt-algorithm=RS256", f"--jwt-public-key={secret}")
        self.refused("--port=0", *public, names="not a public key in PEM")

    # -- running -----------------------------------------------------------------------------

    def test_options_reach_the_parts(self) -> None:
        """What options say shows in what the server does."""
        server = self.serve(
            *("--max-connections=1", "--connect-role=chat", "--origin=https://a.example"),
            *("--access-token-ttl=120", "--heartbeat-interval=7", "--client-timeout=9"),
            *("--max-frame-size=2048", "--message-rate=0.01", "--message-burst=1"),
            *("--login-burst=1", "--login-rate=0.001", "--max-subscriptions=1"),
        )
        self.user("add", "alice", "--role=chat", input="correct horse\n")
        login = server.login("alice", "correct horse")
        self.assertEqual(login["expires_in"], 120)
        body = {"username": "ALICE", "password": "wrong"}
        statuses = [server.request("POST", "/sessions", body)[0] for _ in range(2)]
        self.assertEqual(statuses, [401, 429])
        config = server.request("GET", "/info")[2]["server"]["config"]
        self.assertEqual(
            config,
            {
                "host": "127.0.0.1",
                "port": server.port,
                "max_connections": 1,
                "heartbeat_interval_secs": 7,
                "client_timeout_secs": 9,
                "max_frame_size": 2048,
            },
        )

        def status(token: str, **options: Any) -> int:
            with self.assertRaises(InvalidStatus) as refused:
                self.connect(server, token, **options)
            code: int = refused.exception.response.status_code
            return code

        self.assertEqual(status(self.token("admin")), 403)
        self.assertEqual(status(login["access_token"], origin="https://b.example"), 403)
        client = self.connect(server, login["access_token"], origin="https://a.example")
        self.assertEqual(status(login["access_token"]), 503)
        client.send(json.dumps({"type": "Subscribe", "id": 1, "data": {"topics": ["a", "b"]}}))
        first = json.loads(client.recv(30))
        self.assertEqual(first["type"], "Error")
        broadcast = {"type": "Broadcast", "id": 2, "data": {"topic": "a", "payload": "x" * 3000}}
        client.send(json.dumps(broadcast))
        self.assertEqual(self.closed_with(client), 1009)

    def test_users_managed_beside_the_server(self) -> None:
        """Removing or disabling a user, or a new password, closes open connections (4500)."""
        server = self.serve("--fast-path=false")
        for name in ("alice", "bob", "carol"):
            self.user("add", name, input="correct horse\n")
        clients = {
            name: self.connect(server, server.login(name, "correct horse")["access_token"])
            for name in ("alice", "bob", "carol")
        }
        stays = self.connect(server, server.login("admin", server.admin_password)["access_token"])
        self.user("remove", "alice")
        self.user("disable", "bob")
        self.user("passwd", "carol", input="another horse\n")
        for client in clients.values():
            self.assertEqual(self.closed_with(client), 4500)
        server.login("carol", "another horse")
        self.user("enable", "bob")
        server.login("bob", "correct horse")
        stays.send('{"type": "Ping", "id": 1, "data": {}}')
        self.assertEqual(json.loads(stays.recv(30))["type"], "Pong")

    # -- stopping ----------------------------------------------------------------------------

    def stop(self, server: Server) -> None:
        """Send SIGTERM; the server ends with status 0, in the time that `Server.stop` has."""
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.output)
        self.assertNotIn("Unhandled", server.output)

    def test_stop_with_deaf_clients(self) -> None:
        """Clients that never answer, or have not said what they want, do not hold up the end."""
        server = self.serve("--shutdown-timeout=2")
        request = (
            f"GET /ws?token={self.token('admin')} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        address = ("127.0.0.1", server.port)
        with (
            socket.create_connection(address) as deaf,
            socket.create_connection(address) as slow,
            socket.create_connection(address),
        ):
            deaf.sendall(request.encode())
            slow.sendall(b"GET /info HTTP/1.1\r\nHos")
            wait_until(lambda: server.request("GET", "/health")[2]["active_connections"] == 1)
            self.stop(server)

    def test_stop_twice(self) -> None:
        """A second SIGTERM while the server stops changes nothing, and is no failure."""
        server = self.serve("--shutdown-timeout=2")
        request = (
            f"GET /ws?token={self.token('admin')} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as deaf:
            deaf.sendall(request.encode())
            wait_until(lambda: server.request("GET", "/health")[2]["active_connections"] == 1)
            os.kill(server.pid, signal.SIGTERM)
            deaf.settimeout(30)
            while b"\x03\xf4" not in deaf.recv(65536):  # 1012: it is stopping now.
                pass
            self.stop(server)
        self.assertNotIn("ReactorNotRunning", server.output)

    def test_nothing_secret_in_the_log(self) -> None:
        """Neither tokens, nor passwords, nor query strings are logged."""
        server = self.serve()
        token = self.token("admin")
        with connect(server.token_url(token)) as client:
            client.recv(30)
        server.request("GET", f"/health?token={token}")
        body = {"username": "admin", "password": "correct horse battery"}
        server.request("POST", "/sessions", body)
        self.stop(server)
        self.assertNotIn(token.rpartition(".")[2], server.output)
        self.assertNotIn("correct horse", server.output)
        self.assertEqual(server.output.count(server.admin_password), 1)


class DaemonTests(SynchronousTestCase):
    """`twistd realtime`, which leaves the terminal."""

    def test_background(self) -> None:
        """The process in the background serves on the port that was bound in the foreground."""
        state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, state, True)
        pidfile, log = Path(state, "pid"), Path(state, "log")
        try:
            done = run(
                *(*TWISTD, f"--pidfile={pidfile}", f"--logfile={log}", f"--rundir={state}"),
                *("realtime", "--host=127.0.0.1", "--port=0", f"--state={state}"),
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            wait_until(lambda: "Listening on" in log.read_text())
            port = log.read_text().partition("Listening on 127.0.0.1 port ")[2].split(":")[0]
            self.assertIn(f"http://127.0.0.1:{port}/", done.stdout)
            with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
                client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                self.assertIn(b" 200 ", client.recv(100))
        finally:
            if pidfile.exists():
                subprocess.run(["kill", pidfile.read_text()], check=True)
                wait_until(lambda: not pidfile.exists())
