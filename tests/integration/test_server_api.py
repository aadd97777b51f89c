"""The examples of docs/server-api.rst, run against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.server import Server, environment, wait_until

PAGE = Path(__file__).parent.parent.parent / "docs" / "server-api.rst"
CONFIG = """
[[topic]]
pattern = "kept.>"
history_size = 10
presence = true
"""


def examples() -> list[tuple[str, str]]:
    """The commands of the page, and what they print; `...` stands for anything."""
    found = []
    for block in re.findall(r"\.\. code-block:: console\n\n((?:   .*\n)+)", PAGE.read_text()):
        command, _, output = block.replace("\n   ", "\n").strip().partition("\n")
        found.append((command.removeprefix("$ "), output.strip()))
    return found


class ServerApiTests(SynchronousTestCase):
    """A backend with an API key."""

    def setUp(self) -> None:
        """Start a server."""
        config = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)  # noqa: SIM115
        self.addCleanup(Path(config.name).unlink)
        with config:
            config.write(CONFIG)
        self.server = Server("--config", config.name).start()
        self.addCleanup(self.server.stop)

    def run_example(self, command: str, key: str) -> str:
        """Run a command of the page as it stands, but for the port and the state directory."""
        command = command.replace("localhost:8081", f"127.0.0.1:{self.server.port}")
        done = subprocess.run(
            ["bash", "-c", command.replace("python -m", f"{sys.executable} -m", 1)],
            env=environment(KEY=key, REALTIME_STATE=self.server.state),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_page(self) -> None:
        """Every example prints what the page says."""
        (make_key, _), *rest = examples()
        self.assertGreater(len(rest), 8)
        key = self.run_example(make_key, "")
        self.assertTrue(key.startswith("rk_"))
        self.await_key(key)
        for command, output in rest:
            pattern = re.escape(output).replace(r"\.\.\.", ".+?")
            self.assertRegex(self.run_example(command, key), rf"\A{pattern}\Z", command)

    def await_key(self, key: str) -> None:
        """Wait until the running server has taken in a key made by another process."""
        headers = {"Authorization": f"Bearer {key}"}
        wait_until(lambda: self.server.request("GET", "/topics", **headers)[0] == 200)

    def test_reaches_clients(self) -> None:
        """What a backend publishes reaches a client, and it can end that client's connection."""
        token = self.server.login("admin", self.server.admin_password)["access_token"]
        with connect(self.server.token_url(token)) as socket:
            welcome = json.loads(socket.recv(timeout=10))
            socket.send('{"type":"Subscribe","data":{"topics":["kept.*"]}}')
            socket.recv(timeout=10)
            headers = {"Authorization": f"Bearer {token}"}
            body = {"topic": "kept.a", "payload": [1]}
            status, _, answer = self.server.request("POST", "/publish", body, **headers)
            self.assertEqual((status, answer["offset"]), (200, 1))
            heard = json.loads(socket.recv(timeout=10))["data"]
            self.assertEqual((heard["payload"], heard["offset"]), ([1], 1))
            id = welcome["data"]["connection_id"]
            status, _, _ = self.server.request("DELETE", f"/connections/{id}", **headers)
            self.assertEqual(status, 204)
            with self.assertRaises(ConnectionClosed) as caught:
                socket.recv(timeout=10)
            assert caught.exception.rcvd is not None
            self.assertEqual(caught.exception.rcvd.code, 4501)
