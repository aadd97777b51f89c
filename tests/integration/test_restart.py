"""Starting, stopping and starting again."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.server import Server, run

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")


class RestartTests(SynchronousTestCase):
    """One state directory, several starts."""

    def setUp(self) -> None:
        self.state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, self.state)

    def start(self, *options: str) -> Server:
        """Start a server on this test's state."""
        server = Server(*options, state=self.state).start()
        self.addCleanup(server.stop)
        return server

    def test_first_start(self) -> None:
        """The first start prints one admin password, and closes what it makes to others."""
        server = self.start()
        self.assertEqual(server.output.count("Password:"), 1)
        self.assertEqual(server.output.count(f"{server.http_url}/"), 2)
        login = server.login("admin", server.admin_password)
        self.assertIn("admin", login["user"]["roles"])
        for path in Path(self.state).iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path.name)
        server.stop()
        again = self.start()
        self.assertNotIn("Password:", again.output)
        again.login("admin", server.admin_password)

    def test_users_and_sessions_stay(self) -> None:
        """A restart keeps users, live sessions and ended ones; access tokens stay good."""
        server = self.start()
        server.add_user("alice")
        kept = server.login("alice")
        ended = server.login("alice")
        bearer = {"Authorization": f"Bearer {ended['access_token']}"}
        path = f"/sessions/{ended['session_id']}"
        self.assertEqual(server.request("DELETE", path, **bearer)[0], 204)
        self.assertEqual(server.stop(), 0)

        server = self.start()
        refresh = {"refresh_token": kept["refresh_token"]}
        status, _, body = server.request("POST", "/sessions/refresh", refresh)
        self.assertEqual((status, body["token_type"]), (200, "Bearer"))
        asyncio.run(self.welcome(server, kept["access_token"]))
        refresh = {"refresh_token": ended["refresh_token"]}
        status, _, body = server.request("POST", "/sessions/refresh", refresh)
        self.assertEqual((status, body["error"]["code"]), (401, "INVALID_TOKEN"))
        server.login("alice")

    async def welcome(self, server: Server, token: str) -> None:
        """Connect, and expect the welcome."""
        async with asyncio.timeout(30), connect(server.token_url(token)) as client:
            self.assertIn('"connected"', await client.recv())

    def test_killed(self) -> None:
        """What was answered is kept even when the process is killed the moment after."""
        server = self.start()
        server.add_user("alice")
        kept, ended = server.login("alice"), server.login("alice")
        bearer = {"Authorization": f"Bearer {ended['access_token']}"}
        path = f"/sessions/{ended['session_id']}"
        self.assertEqual(server.request("DELETE", path, **bearer)[0], 204)
        self.assertEqual(server.stop(SIGKILL), -SIGKILL)

        server = self.start()
        asyncio.run(self.welcome(server, kept["access_token"]))
        refresh = {"refresh_token": ended["refresh_token"]}
        self.assertEqual(server.request("POST", "/sessions/refresh", refresh)[0], 401)
        server.login("alice")

    def test_sigterm(self) -> None:
        """SIGTERM tells all clients, closes them with 1012, and leaves nothing open."""
        server = self.start()
        server.add_user("alice")
        token = server.login("alice")["access_token"]

        async def last_words(client: ClientConnection) -> tuple[Any, Any]:
            message: Any = None
            try:
                while True:
                    message = json.loads(await client.recv())
            except ConnectionClosed as closed:
                return message["data"], closed.rcvd

        async def scenario() -> tuple[list[Any], int]:
            async with asyncio.timeout(30), AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(connect(server.token_url(token)))
                    for _ in range(5)
                ]
                for client in clients:
                    await client.recv()
                stopping = asyncio.to_thread(server.stop)
                listening = asyncio.gather(*map(last_words, clients))
                ends, status = await asyncio.gather(listening, stopping)
                return ends, status

        # Kept alive by HTTP, and idle.
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        self.addCleanup(idle.close)
        idle.request("GET", "/health")
        idle.getresponse().read()
        ends, status = asyncio.run(scenario())
        self.assertEqual([data["status"] for data, _ in ends], ["draining"] * 5)
        self.assertEqual([close.code for _, close in ends], [1012] * 5)
        self.assertEqual(status, 0)
        self.assertEqual(idle.sock.recv(1), b"")
        self.assertRaises(ConnectionRefusedError, server.request, "GET", "/health")
        # Neither a pid file nor the database's own unfinished work.
        self.assertEqual(sorted(os.listdir(self.state)), ["realtime.sqlite3", "secret.key"])
        for word in ("Traceback", "Unhandled", token):
            self.assertNotIn(word, server.output)

    def test_session_end_closes_sockets(self) -> None:
        """DELETE /sessions/{id} closes the session's WebSockets with 4500, and no others."""
        server = self.start()
        server.add_user("alice")
        one, two = server.login("alice"), server.login("alice")

        async def scenario() -> Any:
            first = await connect(server.token_url(one["access_token"]))
            second = await connect(server.token_url(two["access_token"]))
            await first.recv()
            await second.recv()
            bearer = {"Authorization": f"Bearer {two['access_token']}"}
            status, _, _ = await asyncio.to_thread(
                server.request, "DELETE", f"/sessions/{two['session_id']}", **bearer
            )
            self.assertEqual(status, 204)
            await second.wait_closed()
            await first.send('{"type":"Ping","data":{}}')
            self.assertIn("Pong", await first.recv())
            await first.close()
            return second.close_code

        self.assertEqual(asyncio.run(asyncio.wait_for(scenario(), 30)), 4500)

    def test_user_removed_by_the_command_line(self) -> None:
        """Removing a user ends their connections and tokens while the server runs."""
        server = self.start()
        server.add_user("alice")
        login = server.login("alice")

        async def scenario() -> int | None:
            async with connect(server.token_url(login["access_token"])) as client:
                await client.recv()
                done = await asyncio.to_thread(
                    run, "-m", "realtime", "--state", self.state, "user", "remove", "alice"
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                await client.wait_closed()
                return client.close_code

        self.assertEqual(asyncio.run(asyncio.wait_for(scenario(), 60)), 4500)
        status, _, body = server.request(
            "POST", "/sessions/refresh", {"refresh_token": login["refresh_token"]}
        )
        self.assertEqual((status, body["error"]["code"]), (401, "INVALID_TOKEN"))

    def refused(self, *options: str) -> str:
        """Start a server that must not start; answer its one line."""
        done = run(*TWISTD, "realtime", f"--state={self.state}", "--port=0", *options)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        (line,) = [line for line in done.stderr.splitlines() if line.strip()]
        return line

    def test_bad_databases(self) -> None:
        """A corrupt or future database is one line and status 1, and is left as it was."""
        path = Path(self.state, "realtime.sqlite3")
        self.start().stop()
        good = path.read_bytes()
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 999")
        database.close()
        future = path.read_bytes()
        for content in (future, b"not a database" * 100, good[:2000] + b"\xff" * 3000):
            path.write_bytes(content)
            before = sorted(os.listdir(self.state))
            line = self.refused()
            self.assertIn(str(path), line)
            command = run("-m", "realtime", "--state", self.state, "user", "list")
            self.assertEqual((command.returncode, command.stdout), (1, ""))
            self.assertEqual(command.stderr.splitlines(), [line])
            self.assertEqual(path.read_bytes(), content)
            self.assertEqual(sorted(os.listdir(self.state)), before)

    def test_mistakes(self) -> None:
        """A bad option, a port in use and an unreadable key are one line and status 1."""
        self.assertIn("--max-connections", self.refused("--max-connections=many"))
        self.assertIn("--nonsense", self.refused("--nonsense=1"))
        server = self.start("--port=0")
        done = run(*TWISTD, "realtime", f"--state={self.state}", f"--port={server.port}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot listen", done.stderr)
        server.stop()
        os.chmod(Path(self.state, "secret.key"), 0o644)
        self.assertIn("secret.key", self.refused())
