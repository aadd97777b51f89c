"""The reference's curl and wscat lines against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import spawn
from tests.support.reference import code_blocks, no_node, no_reference, node_modules
from tests.support.server import Server

ADDRESS, TOKEN = "localhost:8081", r"eyJ[\w-]+\.\.\."


def lines(program: str) -> list[str]:
    """The lines of the reference that call a program."""
    return [
        line
        for block in code_blocks("bash", "Request")
        for line in block.splitlines()
        if line.startswith(program)
    ]


class CommandTests(SynchronousTestCase):
    """The lines are run by a shell, with our address and token in them and nothing else of ours."""

    skip = no_reference()

    def setUp(self) -> None:
        self.server = Server().start()
        self.addCleanup(self.server.stop)

    def run_line(self, line: str, token: str = "") -> subprocess.Popen[str]:
        """Start a line with our server's address and token put in."""
        self.assertIn(ADDRESS, line)
        line = line.replace(ADDRESS, f"127.0.0.1:{self.server.port}")
        line, tokens = re.subn(TOKEN, token, line)
        self.assertEqual(tokens, bool(token))
        path = f"{node_modules()}/.bin:{os.environ['PATH']}"
        return spawn(self, ["bash", "-c", f"exec {line}"], PATH=path)

    def test_curl(self) -> None:
        """Every curl line succeeds and prints a JSON object with the members shown."""
        if shutil.which("curl") is None:
            self.skipTest("there is no curl")
        found = lines("curl")
        self.assertEqual([line.rpartition("/")[2] for line in found], ["health", "metrics", "info"])
        for line in found:
            process = self.run_line(line)
            output, complaints = process.communicate()
            self.assertEqual(process.returncode, 0, complaints)
            shown = code_blocks("json", "Response", f"GET /{line.rpartition('/')[2]}")[0]
            self.assertEqual(list(json.loads(output)), list(json.loads(shown)))

    def test_wscat(self) -> None:
        """Every wscat line connects; what is typed then subscribes, broadcasts and all else."""
        problem = no_node("wscat")
        if problem:
            self.skipTest(problem)
        self.server.add_user("alice")
        login = self.server.login("alice")
        found = lines("wscat")
        self.assertEqual(len(found), 3)
        for line in found:
            process = self.run_line(line, login["access_token"])
            assert process.stdin is not None
            self.assertEqual(self.next(process, "Status")["status"], "connected")
            for command, data in (
                ("Subscribe", {"topics": ["chat.general"]}),
                ("Broadcast", {"topic": "chat.general", "payload": {"text": "Hello"}}),
                ("DirectMessage", {"target_user": "alice", "payload": [1, None]}),
                ("Ping", {"timestamp": 5}),
            ):
                process.stdin.write(json.dumps({"type": command, "data": data}) + "\n")
            process.stdin.flush()
            self.assertEqual(self.next(process, "Status")["status"], "subscribed")
            self.assertEqual(
                self.next(process, "Broadcast"),
                {
                    "topic": "chat.general",
                    "payload": {"text": "Hello"},
                    "from_user": login["user"]["id"],
                },
            )
            self.assertEqual(
                self.next(process, "DirectMessage"),
                {"from_user": login["user"]["id"], "payload": [1, None]},
            )
            self.assertEqual(self.next(process, "Pong")["timestamp"], 5)
            process.stdin.close()
            self.assertEqual(process.wait(), 0)

    def next(self, process: subprocess.Popen[str], type: str) -> Any:
        """The data of the next message that wscat prints; it has to have that type."""
        assert process.stdout is not None
        line = process.stdout.readline()
        # Before a message there may be prompts.
        found = re.fullmatch(r"[> ]*(\{.*\})\n", line)
        assert found, f"no message: {line!r}"
        message = json.loads(found[1])
        self.assertEqual(message["type"], type, line)
        self.assertIsInstance(message["timestamp"], int)
        return message["data"]

    def test_wscat_without_a_good_token(self) -> None:
        """The same lines with a token that is none are refused with 401."""
        problem = no_node("wscat")
        if problem:
            self.skipTest(problem)
        for line in lines("wscat"):
            process = self.run_line(line, "eyJhbGciOiJIUzI1NiJ9.e30.x")
            # Its input stays open meanwhile: wscat leaves when that ends.
            assert process.stderr is not None
            self.assertIn("401", process.stderr.readline())
            self.assertNotEqual(process.wait(), 0)
