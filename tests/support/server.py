"""A real server process, as an operator starts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.parse import urlencode

from realtime.credentials import make_tokens
from realtime.names import DEFAULT_ROLES
from realtime.settings import read_settings
from realtime.stores import Stores, make_stores, run_alone

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 60.0


def environment(**more: str) -> dict[str, str]:
    """An environment that finds this checkout, without what might configure the server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("REALTIME_") and name not in ("PORT", "REDIS_URL")
    }
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | more


def run(*arguments: str, input: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS`, give back what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=input,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class Server:
    """`twistd -n realtime` on a free port and a state directory of its own."""

    def __init__(
        self,
        *options: str,
        state: str | None = None,
        port: int = 0,
        command: Sequence[str] = (),
        **environ: str,
    ) -> None:
        """With a `command` of its own, that is run beside the state directory, with `environ`."""
        self._temporary = state is None
        self.state = state or tempfile.mkdtemp(prefix="realtime-test-")
        self._command = command or (
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
            *("--nodaemon", "--pidfile=", "realtime"),
            *(f"--port={port}", "--host=127.0.0.1", f"--state={self.state}"),
            *options,
        )
        self._folder = Path(self.state).parent if command else Path(self.state)
        # The suite runs on both paths: TEST_FAST_PATH=false chooses the public one.
        fast_path = os.environ.get("TEST_FAST_PATH", "true")
        self._environ = {"REALTIME_FAST_PATH": fast_path, **environ}
        self.port = 0
        self.listens = False
        self.output = ""
        self.admin_password = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None

    def start(self) -> Server:
        """Start it; returns when it listens. Raises with its output when it does not."""
        self._process = process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=environment(**self._environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listening = Event()
        self._reader = Thread(target=self._read, args=(process.stdout, listening), daemon=True)
        self._reader.start()
        in_time = listening.wait(DEADLINE)
        if not self.listens:
            self.stop(signal.SIGKILL)
            problem = "did not start" if in_time else "did not start in time"
            raise AssertionError(f"the server {problem}: {self.output}")
        return self

    def _read(self, lines: Iterable[str], listening: Event) -> None:
        """Take what it says as it says it, so that a full pipe never holds it up."""
        for line in lines:
            self.output += line
            if found := re.search(r"Password:\s+(\S+)", line):
                self.admin_password = found[1]
            if found := re.search(r"Listening on (?:\S+ port (\d+)|the unix socket)", line):
                self.port = int(found[1] or 0)
                self.listens = True
                listening.set()
        listening.set()

    @property
    def http_url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where WebSockets connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Stop it and answer its exit status; its temporary state is removed."""
        if self._process is not None:
            self._process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, and answer its exit status; its temporary state is removed."""
        process, self._process = self._process, None
        status = 0
        if process is not None:
            try:
                status = process.wait(timeout=30)
            finally:
                process.kill()
                process.wait()
                self._close(process)
        if self._temporary:
            shutil.rmtree(self.state, ignore_errors=True)
        return status

    def _close(self, process: subprocess.Popen[str]) -> None:
        assert self._reader is not None
        self._reader.join(timeout=15)
        assert process.stdout is not None
        process.stdout.close()

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Send one HTTP request; answer status, headers and the body, decoded if JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = None
        if body is not None:
            content = json.dumps(body)
            headers["Content-Type"] = "application/json"
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        raw = response.read()
        connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        if found.get("content-type", "").startswith("application/json") and raw:
            return response.status, found, json.loads(raw)
        return response.status, found, raw

    def add_user(self, name: str, password: str = "correct horse battery", *roles: str) -> None:
        """Add an account beside the server, as `user add` does in a process of its own."""
        self._beside(
            lambda stores, _: stores.accounts.create(name, password, roles or DEFAULT_ROLES)
        )

    def make_token(self, name: str, seconds: int) -> str:
        """Make an access token beside the server, as `token` does in a process of its own."""

        async def make(stores: Stores, reactor: Any) -> str:
            user = await stores.accounts.find(name)
            assert user is not None
            settings = read_settings({"state": self.state}, {})
            return make_tokens(settings, Path(self.state), reactor).issue_access(
                user, None, seconds
            )

        return self._beside(make)

    def _beside(self, do: Callable[[Stores, Any], Awaitable[T]]) -> T:
        async def run(reactor: Any) -> T:
            stores = make_stores(Path(self.state), reactor)
            await stores.database.open()
            try:
                return await do(stores, reactor)
            finally:
                await stores.close()

        return run_alone(run)

    def login(self, name: str, password: str = "correct horse battery") -> dict[str, Any]:
        """Log in; answer what `POST /sessions` says."""
        status, _, body = self.request(
            "POST", "/sessions", {"username": name, "password": password}
        )
        assert status == 200, body
        login: dict[str, Any] = body
        return login

    def token_url(self, token: str) -> str:
        """The WebSocket URL with the token in its query."""
        return f"{self.ws_url}?{urlencode({'token': token})}"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    """Return when `condition()` is true; fail when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.02)
