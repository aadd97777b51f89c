"""Clients that never read: what each costs, and what others notice of them.

    python -m bench.stuck [--readers N]

With each policy for slow consumers, N connections subscribe to a busy topic and read nothing more,
while one publishes on it until the queue of each is full, and then as much again. Two who read
exchange messages meanwhile: what the server's processor spends on each of these, with nobody stuck,
with one, and with all, is what a stuck reader costs others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from bench.report import table
from tests.support.server import Server
from tests.support.websocket import frame, request_head

POLICIES = ("close", "drop-oldest", "latest")
QUEUE = 256 * 1024
# What the kernel takes for one of them, at most about so much.
KERNEL = 3 * 1024 * 1024
PAYLOAD = "x" * 8000
MESSAGES = 2000
_TICK = os.sysconf("SC_CLK_TCK")


def _config(policy: str) -> str:
    return f'[[topic]]\npattern = "busy.*"\nslow_consumers = "{policy}"\n'


class Stuck:
    """One server with one policy."""

    def __init__(self, server: Server, token: str) -> None:
        self._server = server
        self._token = token
        self.readers: list[socket.socket] = []

    async def add(self, number: int) -> None:
        """Have so many readers subscribe, who never read again."""
        for _ in range(number):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", self._server.port))
            head = request_head("/ws", {"Authorization": f"Bearer {self._token}"})
            sock.sendall(head)
            self.readers.append(sock)
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(4096)
            sock.sendall(frame({"type": "Subscribe", "data": {"topics": ["busy.a"]}, "id": 1}))
            while b'"subscribed"' not in data:
                data += sock.recv(4096)

    async def cost(self) -> tuple[float, float]:
        """Microseconds of the server's for a message between two who read; p99 in milliseconds."""
        async with self._connect() as one, self._connect() as two:
            await _ask(two, "Subscribe", topics=["quiet"])
            await self._exchange(one, two, 200)
            before = self._processor()
            latencies = sorted(await self._exchange(one, two, MESSAGES))
            spent = self._processor() - before
            return 1e6 * spent / MESSAGES, 1000 * latencies[len(latencies) * 99 // 100]

    async def _exchange(
        self, one: ClientConnection, two: ClientConnection, number: int
    ) -> list[float]:
        clock = asyncio.get_running_loop().time
        latencies = []
        command = json.dumps({"type": "Broadcast", "data": {"topic": "quiet", "payload": 1}})
        for _ in range(number):
            started = clock()
            await one.send(command)
            await two.recv()
            latencies.append(clock() - started)
        return latencies

    async def fill(self) -> float:
        """Publish until every queue is full and as much again; answer the resident bytes then."""
        async with self._connect() as publisher:
            for _ in range((2 * QUEUE + KERNEL) // len(PAYLOAD)):
                await _ask(publisher, "Broadcast", topic="busy.a", payload=PAYLOAD)
        return self.memory()

    def memory(self) -> float:
        """The server's resident bytes."""
        pages = Path(f"/proc/{self._server.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def metric(self, name: str) -> int:
        """A number of the server's."""
        _, _, body = self._server.request("GET", "/metrics", Accept="text/plain")
        lines = [line.split(" ") for line in body.decode().splitlines()]
        return next(int(float(line[1])) for line in lines if line[0] == f"realtime_{name}")

    def _connect(self) -> connect:
        return connect(self._server.token_url(self._token), compression=None, ping_interval=None)

    def _processor(self) -> float:
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


async def _ask(client: ClientConnection, type: str, **data: Any) -> None:
    await client.send(json.dumps({"type": type, "data": data, "id": 1}))
    while json.loads(await client.recv()).get("id") != 1:
        pass


async def measure(policy: str, readers: int) -> Sequence[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="stuck-") as folder:
        config = Path(folder) / "config.toml"
        config.write_text(_config(policy))
        server = Server(
            *("--config", str(config), f"--max-queue-bytes={QUEUE}", "--max-connections=100000"),
            *("--client-timeout=3600", "--message-rate=1e9", "--message-burst=1e9"),
            "--byte-rate=0",
        ).start()
        try:
            token = server.login("admin", server.admin_password)["access_token"]
            stuck = Stuck(server, token)
            alone, alone_p99 = await stuck.cost()
            await stuck.add(1)
            await stuck.fill()
            one, one_p99 = await stuck.cost()
            await stuck.add(readers - 1)
            before = stuck.memory()
            each = (await stuck.fill() - before) / readers
            many, many_p99 = await stuck.cost()
            closed = stuck.metric("closed_slow_consumers_total")
            dropped = stuck.metric("dropped_publications_total")
            for sock in stuck.readers:
                sock.close()
        finally:
            server.stop()
    return (
        policy,
        f"{alone:.0f} ({alone_p99:.1f})",
        f"{one:.0f} ({one_p99:.1f})",
        f"{many:.0f} ({many_p99:.1f})",
        f"{each / 1024:.0f}",
        f"{closed:,}",
        f"{dropped:,}",
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=10_000)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    head = ("policy", "us alone (p99 ms)", "one stuck", f"{given.readers:,} stuck")
    rows = [asyncio.run(measure(policy, given.readers)) for policy in POLICIES]
    print(table((*head, "KB each", "closed", "dropped"), rows))


if __name__ == "__main__":
    main()
