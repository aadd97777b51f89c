"""The reference's curl and wscat lines against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.reference import code_blocks, no_node, no_reference, node_modules
from tests.support.server import Server, environment

PING = '{"type":"Ping","id":1,"data":{"timestamp":5}}'


def lines(program: str) -> list[str]:
    """The lines of the reference that call a program."""
    return [
        line
        for block in code_blocks("bash", "Request")
        for line in block.splitlines()
        if line.startswith(program)
    ]


class CommandTests(SynchronousTestCase):
    """The lines are run by a shell, with our address and token in them."""

    skip = no_reference()

    def setUp(self) -> None:
        self.server = Server().start()
        self.addCleanup(self.server.stop)

    def run_line(self, line: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line with our server's address and token put in."""
        line = line.replace("localhost:8081", f"127.0.0.1:{self.server.port}")
        line = re.sub(r"eyJ[\w-]+\.\.\.", token, line)
        binaries = str(Path(node_modules()) / ".bin")
        # wscat leaves when its standard input ends.
        silent, writer = os.pipe()
        try:
            return subprocess.run(
                ["bash", "-c", line],
                env=environment(PATH=f"{binaries}:{os.environ['PATH']}"),
                stdin=silent,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            os.close(silent)
            os.close(writer)

    def test_curl(self) -> None:
        """Every curl line gets the JSON object that the reference shows."""
        if shutil.which("curl") is None:
            self.skipTest("there is no curl")
        found = lines("curl")
        self.assertEqual(len(found), 3)
        keys = {
            "/health": {"status", "active_connections", "max_connections", "uptime_seconds"},
            "/metrics": {
                *("active_connections", "total_connections"),
                *("messages_sent", "messages_received", "errors"),
            },
            "/info": {"server", "stats", "features"},
        }
        for line in found:
            done = self.run_line(line)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(set(json.loads(done.stdout)), keys[f"/{line.rpartition('/')[2]}"])

    def test_wscat(self) -> None:
        """Every wscat line connects; its token is found in each of the three places."""
        problem = no_node("wscat")
        if problem:
            self.skipTest(problem)
        self.server.add_user("alice")
        token = self.server.login("alice")["access_token"]
        found = lines("wscat")
        self.assertEqual(len(found), 3)
        for line in found:
            done = self.run_line(f"{line} --wait 2 --execute '{PING}'", token)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn('"type":"Pong"', done.stdout)

    def test_wscat_without_a_good_token(self) -> None:
        """The same lines with a token that is none are refused with 401."""
        problem = no_node("wscat")
        if problem:
            self.skipTest(problem)
        for line in lines("wscat"):
            done = self.run_line(
                f"{line} --wait 1 --execute '{PING}'", "eyJhbGciOiJIUzI1NiJ9.e30.x"
            )
            self.assertIn("401", done.stdout + done.stderr)
