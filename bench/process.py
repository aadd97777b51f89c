"""Starting and stopping servers, and asking wsload to load them."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import ROOT, BenchError, Processors
from bench.servers import Place, Server

# Seconds.
START = 30
STOP = 10
LOAD = 180


class NotStarted(BenchError):
    """A server did not come up."""


@contextmanager
def running(server: Server, peers: Path, processors: Processors) -> Iterator[Running]:
    """Start a server on its processor; stop it and clear up in the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx changes its user
        place = Place(_free_port(), _free_port(), directory, peers)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                server.command(place),
                cwd=ROOT if server.kind == "ours" else directory,
                env=os.environ | {"PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prepare(processors.server),
            )
        try:
            _wait_for_port(server, process, place)
            yield Running(server, process, place, processors)
        finally:
            _stop(process)


def _prepare(processor: int) -> None:
    """In the child: stay on one processor, open as many files as we may."""
    os.sched_setaffinity(0, {processor})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(server: Server, process: subprocess.Popen[bytes], place: Place) -> None:
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", place.port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            time.sleep(0.2)
            return
    log = (place.directory / "log").read_text(errors="replace").strip().splitlines()
    raise NotStarted(f"{server.name} did not start: {' / '.join(log[-3:]) or 'it says nothing'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


class Running:
    """A server that runs."""

    def __init__(
        self,
        server: Server,
        process: subprocess.Popen[bytes],
        place: Place,
        processors: Processors,
    ) -> None:
        self.server = server
        self.place = place
        self.pid = process.pid
        self._process = process
        self._processors = processors

    def load_command(self, wsload: Path, arguments: Sequence[str]) -> list[str]:
        """How wsload is started on this server, on the generator's processor."""
        command = [
            *("taskset", "--cpu-list", str(self._processors.generator)),
            *(str(wsload), "--port", str(self.place.port), "--pid", str(self.pid)),
            *arguments,
        ]
        if self.server.kind == "ours":
            command += ["--each", str(self.place.tokens)]
        return command

    def load(self, wsload: Path, arguments: Sequence[str]) -> dict[str, Any]:
        """Run wsload; answer what it prints, or a dictionary with `error`."""
        try:
            done = subprocess.run(
                self.load_command(wsload, arguments),
                capture_output=True,
                text=True,
                timeout=LOAD,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done within {LOAD} s"}
        if self._process.poll() is not None:
            return {"error": "the server has died"}
        return read_result(done.stdout, done.stderr)

    def rss(self) -> int:
        """Resident memory of the server's main process in KB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() // 1024

    def cpu(self) -> float:
        """Seconds of processor time that the main process has used, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """What the server has written."""
        return (self.place.directory / "log").read_text(errors="replace")


def read_result(out: str, err: str) -> dict[str, Any]:
    """Take the last line of wsload, which is its result."""
    lines = out.strip().splitlines()
    if not lines:
        return {"error": " / ".join(err.strip().splitlines()[-2:]) or "wsload says nothing"}
    result: dict[str, Any] = json.loads(lines[-1])
    if "error" in result and err:
        result["error"] += ": " + err.strip().splitlines()[-1]
    return result
