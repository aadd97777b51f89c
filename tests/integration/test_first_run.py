"""The README's first five minutes, command by command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.browser import drive, no_browser
from tests.support.process import spawn
from tests.support.server import ROOT, Server

ADDRESS = "localhost:8081"
# Where an installation has put twistd and python.
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def examples(language: str) -> list[str]:
    """The README's code blocks in a language."""
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", readme, flags=re.M)
    return [re.sub("^   ", "", block, flags=re.M).strip() for block in found]


class FirstRunTests(SynchronousTestCase):
    """A newcomer in an empty folder, where only the port is not the README's."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="realtime-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        start, _, self.add_user, self.log_in = examples("sh")
        install, _, command = start.partition(" && ")
        self.assertEqual(install, "pip install .")  # which tests/test_packaging.py covers
        self.server = Server(
            state=str(self.folder / "realtime-state"),
            command=shlex.split(command),
            PATH=PATH,
            REALTIME_PORT="0",
            REALTIME_HOST="127.0.0.1",
        ).start()
        self.addCleanup(self.server.stop)

    def ours(self, example: str) -> str:
        """An example with this server's address in it."""
        self.assertIn(ADDRESS, example)
        return example.replace(ADDRESS, f"localhost:{self.server.port}")

    def shell(self, command: str) -> str:
        """Run a command in the folder; answer its output."""
        process = spawn(self, ["bash", "-c", command], cwd=self.folder, PATH=PATH)
        output, complaints = process.communicate()
        self.assertEqual(process.returncode, 0, complaints)
        return output

    def test_first_start(self) -> None:
        """The server says how to log in, once, and makes what only its owner may read."""
        self.assertEqual(self.server.output.count(self.server.admin_password), 1)
        self.assertGreaterEqual(len(self.server.admin_password), 16)
        (page,) = re.findall(r"Open: +(http://\S+)", self.server.output)
        self.assertEqual(page, f"http://127.0.0.1:{self.server.port}/")
        status, headers, content = self.server.request("GET", "/")
        self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"</html>", content)
        state = Path(self.server.state)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
        self.assertEqual(modes.pop("secret.key"), 0o600)
        self.assertEqual(set(modes.values()), {0o600})
        self.assertEqual(stat.S_IMODE(state.stat().st_mode), 0o700)
        self.assertIn(
            "admin", self.server.login("admin", self.server.admin_password)["user"]["roles"]
        )

    def test_examples_talk(self) -> None:
        """The user added logs in by curl; the Python example hears the browser's example."""
        problem = "there is no curl" if shutil.which("curl") is None else no_browser()
        if problem:
            self.skipTest(problem)
        self.assertIn("alice", self.shell(self.add_user))
        login = json.loads(self.shell(f"{self.ours(self.log_in)} --silent"))
        self.assertEqual(login["user"]["username"], "alice")

        (source,), (script,) = examples("python"), examples("javascript")
        (self.folder / "listen.py").write_text(self.ours(source), encoding="utf-8")
        listener = spawn(
            self, [sys.executable, "-u", "listen.py", login["access_token"]], cwd=self.folder
        )
        assert listener.stdout is not None
        for status in ("connected", "subscribed"):
            message = json.loads(listener.stdout.readline())
            self.assertEqual((message["type"], message["data"]["status"]), ("Status", status))
        received, _ = drive(
            self.folder,
            """
            const page = await open();
            await page.addScriptTag({content: input.example});
            await until(() => frames.length === 3);
            const result = frames.map((frame) => JSON.parse(frame));
            """,
            example=f"const token = {json.dumps(login['access_token'])};\n{self.ours(script)}",
        )
        self.assertEqual([each["type"] for each in received], ["Status", "Status", "Broadcast"])
        heard = json.loads(listener.stdout.readline())
        self.assertEqual(heard["data"], received[2]["data"])
        self.assertEqual(heard["data"]["payload"], {"text": "Hello"})
        self.assertEqual(heard["data"]["from_user"], login["user"]["id"])
