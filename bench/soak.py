"""The long soak: clients that come and go for half an hour, and nothing that stays behind.

    python -m bench.soak [--minutes M] [--clients N] [--untraced]

Clients log in, subscribe to topics with history and presence that nobody else will use again,
publish, message one another, set presence states, stream by SSE, and leave in every way there is:
by a Close frame, by cutting the connection, by ending the session. A bystander measures how long
its own publications take. Every half minute the server's memory, file descriptors, Python objects
and traced memory are noted; in the end connections, subscriptions, topics and presence have to be
back at zero. Tracing doubles resident memory, and slows the server: `--untraced` goes without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from bench.report import table
from realtime.client import RealtimeClient, RealtimeError
from tests.support.server import Server

CONFIG = """
login-rate = 100000.0
login-burst = 100000.0

[[topic]]
pattern = "soak.>"
history_size = 20
history_ttl = 60
presence = true
join_leave = true
"""
# Runs twistd, with memory traced if asked for, and tells of it on SIGUSR2.
_WATCHED = """
import gc, json, signal, sys, tracemalloc
if sys.argv.pop(1) == "traced":
    tracemalloc.start()
def tell(number, frame):
    gc.collect()
    traced, peak = tracemalloc.get_traced_memory()
    with open(sys.argv[1] + ".new", "w") as file:
        json.dump({"traced": traced, "objects": len(gc.get_objects())}, file)
    import os
    os.replace(sys.argv[1] + ".new", sys.argv[1])
signal.signal(signal.SIGUSR2, tell)
report = sys.argv[1]
sys.argv = ["twistd", *sys.argv[2:]]
tell.__globals__["sys"] = type("S", (), {"argv": [None, report]})
from twisted.scripts.twistd import run
run()
"""
SAMPLE_SECONDS = 30
USERS = 8


class Soak:
    """One soak of a running server."""

    def __init__(self, server: Server, report: Path, clients: int) -> None:
        self._server = server
        self._report = report
        self._clients = clients
        self._random = random.Random(1)
        self._numbers = iter(range(10**9))
        self._logins: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.latencies: list[float] = []
        self.counts = dict.fromkeys(
            ("connections", "messages", "logins", "cut", "refused", "streams"), 0
        )

    async def run(self, seconds: float) -> None:
        """Keep clients coming and going for so long."""
        end = time.monotonic() + seconds
        for number in range(USERS):
            await asyncio.to_thread(self._server.add_user, f"user{number}")
        await self._log_in()
        workers = [
            asyncio.create_task(work)
            for work in (
                *(self._live(end) for _ in range(self._clients)),
                self._bystand(end),
                self._sample(end),
            )
        ]
        done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        await asyncio.wait(workers)

    async def _log_in(self) -> None:
        for number in range(USERS):
            login = await asyncio.to_thread(self._server.login, f"user{number}")
            self.counts["logins"] += 1
            self._logins.append(login)

    async def _live(self, end: float) -> None:
        """Be one client after another."""
        while time.monotonic() < end:
            try:
                await self._one_life(self._random.choice(self._logins))
            except (OSError, RealtimeError, TimeoutError):
                self.counts["refused"] += 1

    async def _one_life(self, login: dict[str, Any]) -> None:
        number = next(self._numbers)
        self.counts["connections"] += 1
        kind = number % 10
        token = login["access_token"]
        if kind == 0:
            await self._stream(token, number)
            return
        if kind == 1:
            await self._cut(token, number)
            return
        if kind == 2 and number % 200 == 2:
            await self._end_session()
            return
        async with RealtimeClient(self._server.ws_url, token) as client:
            topics = [f"soak.{number}.{each}" for each in range(5)]
            await client.subscribe([*topics, "soak.common", f"soak.{number}.*"])
            await client.presence(topics[0], state={"n": number})
            for each in range(self._random.randrange(10)):
                await client.broadcast(topics[each % 5], {"n": each, "text": "x" * 200})
                await client.broadcast("soak.common", each)
                self.counts["messages"] += 2
            await client.send_direct_message(self._random.choice(self._logins)["user"]["id"], 1)
            await client.history(topics[0])
            if kind == 3:
                await client.unsubscribe(topics)
            await asyncio.sleep(self._random.random() * 3)

    async def _cut(self, token: str, number: int) -> None:
        """Go without a word."""
        headers = {"Authorization": f"Bearer {token}"}
        socket = await connect(self._server.ws_url, additional_headers=headers)
        data = {"topics": [f"soak.{number}.cut", "soak.common"]}
        await socket.send(json.dumps({"type": "Subscribe", "data": data}))
        await asyncio.sleep(self._random.random())
        socket.transport.abort()
        self.counts["cut"] += 1

    async def _stream(self, token: str, number: int) -> None:
        """Read a stream for a while."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(
            f"GET /sse?topics=soak.common,soak.{number}.s HTTP/1.1\r\nHost: h\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(self._random.random() * 3):
                while await reader.read(65536):
                    pass
        writer.transport.abort()
        self.counts["streams"] += 1

    async def _end_session(self) -> None:
        """End a session with all its connections, and begin another."""
        place = self._random.randrange(USERS)
        login = self._logins[place]
        self._logins[place] = await asyncio.to_thread(self._server.login, f"user{place}")
        self.counts["logins"] += 1
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        path = f"/sessions/{login['session_id']}"
        await asyncio.to_thread(lambda: self._server.request("DELETE", path, **headers))

    async def _bystand(self, end: float) -> None:
        """Publish to oneself, and note how long it takes."""
        login = await asyncio.to_thread(self._server.login, "admin", self._server.admin_password)
        token = login["access_token"]
        async with RealtimeClient(self._server.ws_url, token) as client:
            client.on(
                "Broadcast",
                lambda data: self.latencies.append(time.monotonic() - data["payload"]),
            )
            await client.subscribe("bystander")
            while time.monotonic() < end:
                await client.broadcast("bystander", time.monotonic())
                await asyncio.sleep(0.1)

    # -- looking -------------------------------------------------------------------------------

    async def _sample(self, end: float) -> None:
        while time.monotonic() < end:
            self.samples.append(await self.look())
            await asyncio.sleep(min(SAMPLE_SECONDS, max(0.0, end - time.monotonic())))

    async def look(self) -> dict[str, Any]:
        """What the server holds now."""
        pid = self._server.pid
        self._report.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        while not self._report.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        traced = json.loads(_text(self._report))
        fields = _text(Path(f"/proc/{pid}/statm")).split()
        metrics = await asyncio.to_thread(self._metrics)
        return {
            "rss_mb": round(int(fields[1]) * os.sysconf("SC_PAGESIZE") / 1e6, 1),
            "traced_mb": round(traced["traced"] / 1e6, 2),
            "objects": traced["objects"],
            "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "connections": metrics["realtime_active_connections"],
            "subscriptions": metrics["realtime_subscriptions"],
        }

    def _metrics(self) -> dict[str, int]:
        request = urllib.request.Request(
            f"{self._server.http_url}/metrics", headers={"Accept": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
        return {name: int(float(value)) for name, value in pairs}

    def left_over(self) -> dict[str, Any]:
        """What should be nothing once all have gone."""
        login = self._server.login("admin", self._server.admin_password)
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        ask = self._server.request
        present = ask("GET", "/topics/soak.common/presence", **headers)[2]
        return {
            "topics": len(ask("GET", "/topics", **headers)[2]["topics"]),
            "connections": len(ask("GET", "/connections", **headers)[2]["connections"]),
            "present": present["users"],
        }


def _text(path: Path) -> str:
    return path.read_text()


async def soak(minutes: float, clients: int, *, traced: bool) -> int:
    """Soak a server; answer the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "state").mkdir(mode=0o700)
    (folder / "config.toml").write_text(CONFIG)
    report = folder / "traced.json"
    arguments = ["-n", "--pidfile=", "realtime", "--port=0", "--host=127.0.0.1"]
    arguments += [f"--state={folder}/state", f"--config={folder}/config.toml"]
    how = "traced" if traced else "untraced"
    command = [sys.executable, "-c", _WATCHED, how, str(report), *arguments]
    server = Server(state=f"{folder}/state", command=command).start()
    try:
        work = Soak(server, report, clients)
        began = time.monotonic()
        await work.run(minutes * 60)
        spent = time.monotonic() - began
        # Presence has its grace, histories their 60 seconds, the collector its turn.
        await asyncio.sleep(75)
        last = await work.look()
        left = work.left_over()
        tracebacks = server.output.count("Traceback")
    finally:
        server.stop()
    rows = [[str(value) for value in sample.values()] for sample in [*work.samples[::4], last]]
    print(table(list(last), rows))
    work.latencies.sort()
    of = work.latencies
    print(f"{spent:.0f} s, {work.counts}")
    print(
        f"bystander: {len(of)} publications, p50 {1000 * of[len(of) // 2]:.1f} ms, "
        f"p99 {1000 * of[int(0.99 * len(of))]:.1f} ms, max {1000 * of[-1]:.1f} ms"
    )
    print(f"left over: {left}, tracebacks in the log: {tracebacks}")
    nothing = not any(left.values()) and not last["connections"] and not last["subscriptions"]
    return 0 if nothing and not tracebacks else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=100, help="at a time")
    parser.add_argument("--untraced", action="store_true", help="do not trace memory")
    given = parser.parse_args()
    return asyncio.run(soak(given.minutes, given.clients, traced=not given.untraced))


if __name__ == "__main__":
    raise SystemExit(main())
