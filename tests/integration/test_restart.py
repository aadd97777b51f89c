"""Starting, stopping and starting again."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from pathlib import Path
from signal import SIGTERM
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.asyncio.client import connect
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
        self.assertIn("http://localhost:", server.output)
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
        self.assertEqual(server.stop(), -SIGTERM)

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
        async with connect(server.token_url(token)) as client:
            self.assertIn('"connected"', await client.recv())

    def test_sigterm(self) -> None:
        """SIGTERM tells clients, closes them with 1012, and ends the process."""
        server = self.start()
        server.add_user("alice")
        token = server.login("alice")["access_token"]

        async def scenario() -> tuple[list[Any], Any, int, float]:
            messages = []
            async with connect(server.token_url(token)) as client:
                await client.recv()
                began = time.monotonic()
                stopping = asyncio.get_running_loop().run_in_executor(None, server.stop)
                try:
                    while True:
                        messages.append(await client.recv())
                except ConnectionClosed as closed:
                    return messages, closed.rcvd, await stopping, time.monotonic() - began

        messages, close, status, seconds = asyncio.run(scenario())
        self.assertIn('"draining"', messages[-1])
        # twistd ends by the signal that it was sent, once all is closed.
        self.assertEqual((close.code, status), (1012, -SIGTERM))
        self.assertLess(seconds, 10)
        self.assertNotIn("Traceback", server.output)
        self.assertNotIn(token, server.output)

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

        self.assertEqual(asyncio.run(scenario()), 4500)

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
                async with asyncio.timeout(15):
                    await client.wait_closed()
                return client.close_code

        self.assertEqual(asyncio.run(scenario()), 4500)
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
            self.assertIn(str(path), self.refused())
            self.assertEqual(path.read_bytes(), content)

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
