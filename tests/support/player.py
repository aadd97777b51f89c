"""Plays the examples of a page, from the first to the last, in an empty folder.

They are run as they stand but for addresses: the server listens on a free port, a web server that
the page starts on another, and Redis is a test's own. `KEY` and `TOKEN`, an API key and an access
token of the user alice, are in the environment unless the page makes its accounts itself.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer

from twisted.trial.unittest import SynchronousTestCase

from tests.support.pages import Step, steps
from tests.support.process import spawn
from tests.support.redis import shared_redis
from tests.support.reference import node_modules
from tests.support.server import Server, environment, free_port, wait_until

PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
_END = "-- the end of a block --"
# What a browser has, and Node.js 20 has not.
_BROWSER = """import { createRequire } from 'node:module';
globalThis.WebSocket ??= createRequire(import.meta.url)('ws');
"""


class Player:
    """A page that is played; `checks` are called where it says so."""

    def __init__(
        self,
        case: SynchronousTestCase,
        page: str,
        checks: dict[str, Callable[..., None]] | None = None,
        config: str = "",
        accounts: bool = True,
        start: bool = False,
    ) -> None:
        self._case = case
        self._steps = steps(page)
        self._checks = checks or {}
        self._config = config
        self._accounts = accounts
        self.root = Path(tempfile.mkdtemp(prefix="realtime-page-"))
        case.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.server: Server | None = None
        self.web_port = free_port()
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=self.root,
            env=environment(PATH=PATH, NODE_PATH=node_modules()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        case.addCleanup(self._shell.__exit__, None, None, None)
        case.addCleanup(self._end)
        # A command that does not end is ended, with all that it has begun.
        self._killer = Timer(240, self._end)
        self._killer.daemon = True
        self._killer.start()

        if start:
            self._need_server()

    def _end(self) -> None:
        self._killer.cancel()
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)

    # -- the page ----------------------------------------------------------------------------

    def play(self) -> int:
        """Play it; answer how many blocks it has."""
        for step in self._steps:
            try:
                if step.language:
                    self._play(step)
                else:
                    self._checks[step.text]()
            except Exception as error:
                error.add_note(str(step))
                raise
        return sum(bool(step.language) for step in self._steps)

    def _play(self, step: Step) -> None:
        if step.other:
            check_syntax(self._case, step)
            return
        check = step.note("by")
        if check is not None:
            self._need_server()
            self._checks[check](step)
            return
        for name, mode in (("file", "w"), ("append", "a")):
            file = step.note(name)
            if file is not None:
                with open(self.folder / file, mode, encoding="utf-8") as opened:
                    opened.write(self._ours(step.text))
                if file.endswith(".toml"):
                    self.shell(f"python -m realtime check-config {file}")
                return
        if step.note("server") is not None:
            self.start(step.text)
            if self._accounts:
                self._add_accounts()
        elif step.note("service") is not None:
            self._serve(step.text)
        elif step.note("key") is not None:
            self.shell(step.text)
            self._await_key()
        else:
            self.run(step)

    def run(self, step: Step) -> None:
        """Run a block as its language wants it."""
        _KINDS[step.language](self, step)

    # -- the places --------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the page has gone."""
        return Path(self.shell("pwd").strip())

    def _ours(self, text: str) -> str:
        """A text with our addresses in it."""
        if "localhost:8081" in text:
            self._need_server()
            assert self.server is not None
            text = text.replace("localhost:8081", f"localhost:{self.server.port}")
        if "redis://localhost" in text:
            text = text.replace("redis://localhost", shared_redis().url)
        return re.sub(r"(localhost:|http\.server )8000", rf"\g<1>{self.web_port}", text)

    def start(self, command: str, port: int = 0) -> None:
        """Start the server by a command of the page."""
        self.server = Server(
            state=str(self.folder / "realtime-state"),
            command=shlex.split(self._ours(command)),
            PATH=PATH,
            REALTIME_PORT=str(port),
            REALTIME_HOST="127.0.0.1",
        ).start()
        self._case.addCleanup(self.server.stop)
        # For commands, which would look for it where it listens by default.
        self.shell(f"export REALTIME_URL=http://localhost:{self.server.port}")

    def restart(self) -> None:
        """Start the server again, on its port."""
        assert self.server is not None
        port, command = self.server.port, shlex.join(self.server._command)
        self.server.stop()
        self.start(command, port)

    def _need_server(self) -> None:
        if self.server is not None:
            return
        command = "twistd -n --pidfile= realtime"
        if self._config:
            (self.folder / "server.toml").write_text(self._config, encoding="utf-8")
            command += " --config server.toml"
        self.start(command)
        self._add_accounts()

    def _add_accounts(self) -> None:
        """Make what a page takes for granted: two users, a token and a key."""
        assert self.server is not None
        self.server.add_user("alice")
        self.server.add_user("bob")
        token = self.server.login("alice")["access_token"]
        self.shell(f"export TOKEN={token} KEY=$(python -m realtime key add backend)")
        self._await_key()

    def _await_key(self) -> None:
        """Wait until the server has taken in a key that another process has made."""
        assert self.server is not None
        server, headers = (
            self.server,
            {"Authorization": f"Bearer {self.shell('echo $KEY').strip()}"},
        )
        wait_until(lambda: server.request("GET", "/topics", **headers)[0] == 200)

    # -- the kinds ---------------------------------------------------------------------------

    def shell(self, command: str, status: int | None = 0) -> str:
        """Have the page's shell do something; answer what it said."""
        stdin, stdout = self._shell.stdin, self._shell.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\nprintf '%s %s\\n' '{_END}' $?\n")
        stdin.flush()
        said = ""
        for line in stdout:
            before, end, number = line.partition(_END)
            said += before if end else line
            if end:
                if status is not None:
                    self._case.assertEqual(int(number), status, f"{command}: {said}")
                return said
        raise AssertionError(f"the shell has ended: {said}")

    def _serve(self, command: str) -> None:
        spawn(
            self._case, ["bash", "-c", f"exec {self._ours(command)}"], cwd=self.folder, PATH=PATH,
            seconds=300,
        )  # fmt: skip

        def is_there() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.web_port)) == 0

        wait_until(is_there)

    def _sh(self, step: Step) -> None:
        """All of its commands succeed, or the one prints what it is to print and goes on."""
        if step.note("until") is not None:
            self._program(step, ["bash"], "example.sh", "exec ")
        else:
            self.shell(f"set -e\n{self._ours(step.text)}set +e")

    def _console(self, step: Step) -> None:
        """Each command after a `$` prints what follows; `...` stands for anything."""
        for command in re.split(r"^\$ ", step.text, flags=re.MULTILINE)[1:]:
            line, _, expected = command.partition("\n")
            said = self.shell(self._ours(line), status=None)
            pattern = re.escape(self._ours(expected).strip()).replace(r"\.\.\.", ".+?")
            self._case.assertRegex(said.strip(), rf"\A{pattern}\Z", line)

    def _program(self, step: Step, command: list[str], file: str, prelude: str = "") -> None:
        """It ends well, or prints what it is to print and goes on."""
        # Above what the page makes, and without the shell's help.
        text = prelude + self._ours(step.text)
        (self.folder / file).write_text(text, encoding="utf-8")
        wanted = step.note("until")
        if wanted is None:
            self.shell(shlex.join([*command, file]))
            return
        environ = dict(
            line.split("=", 1)
            for line in self.shell("env").splitlines()
            if re.match(r"(KEY|TOKEN|PATH|NODE_PATH)=", line)
        )
        process = spawn(
            self._case, ["bash", "-c", f"exec {shlex.join([*command, file])} 2>&1"],
            cwd=self.folder, **environ,
        )  # fmt: skip
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if wanted in line:
                process.kill()
                return
        raise AssertionError(f"it has ended without {wanted!r}: {said}")

    def _python(self, step: Step) -> None:
        self._program(step, ["python", "-u"], "example.py")

    def _javascript(self, step: Step) -> None:
        prelude = _BROWSER if "WebSocket" in step.text else ""
        if "token" in step.text and "const token" not in step.text:
            prelude += "const token = process.env.TOKEN;\n"
        self._program(step, ["node"], "example.mjs", prelude)

    def _toml(self, step: Step) -> None:
        """It is a configuration that the server takes, which warns of nothing."""
        (self.folder / "block.toml").write_text(step.text, encoding="utf-8")
        self.shell("python -m realtime check-config block.toml")

    def _json(self, step: Step) -> None:
        json.loads(step.text)


_KINDS: dict[str, Callable[[Player, Step], None]] = {
    "sh": Player._sh,
    "console": Player._console,
    "python": Player._python,
    "javascript": Player._javascript,
    "toml": Player._toml,
    "json": Player._json,
}


def check_syntax(case: SynchronousTestCase, step: Step) -> None:
    """Check the syntax of another product's code."""
    if step.language == "python":
        compile(step.text, str(step), "exec")
    elif step.language == "json":
        json.loads(step.text)
    elif step.language == "javascript":
        done = subprocess.run(
            ["node", "--check", "--input-type=module", "-"],
            input=step.text, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        case.assertEqual(done.returncode, 0, f"{step}: {done.stderr}")
    elif step.language == "sh":
        done = subprocess.run(
            ["bash", "-n"], input=step.text, capture_output=True, text=True, timeout=30, check=False
        )
        case.assertEqual(done.returncode, 0, f"{step}: {done.stderr}")
    else:
        raise AssertionError(f"{step}: nobody knows how to check that")
