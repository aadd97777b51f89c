"""What a node tells Redis while nothing happens."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from contextlib import AsyncExitStack, closing
from socket import create_connection
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.asyncio.client import connect

from realtime.broker_redis import CHECKED_AT_ONCE
from tests.support.redis import RedisServer
from tests.support.server import Server

CONFIG = """
[[topic]]
pattern = ">"
history_size = 10
presence = true
join_leave = true
"""
CLIENTS = 1000
# Signs of life that are waited for: with three seconds between them, more than one check of all
# positions, which comes every twenty.
BEATS = 7


class Monitor:
    """Hears all that Redis is told."""

    def __init__(self, redis: RedisServer) -> None:
        self._link = create_connection(("127.0.0.1", redis.port), 30)
        self._lines = self._link.makefile("rb")
        self._link.sendall(b"MONITOR\r\n")
        self._lines.readline()

    def between_beats(self, number: int = BEATS) -> list[bytes]:
        """The commands of clients, scripts' own left out, during some signs of life."""
        beats, heard = -1, []
        while beats < number:
            line = self._lines.readline()
            if b" lua] " in line:
                beats += b'"ZADD"' in line and b':nodes"' in line
            elif beats >= 0:
                heard.append(line)
        return heard

    def close(self) -> None:
        """Hear no more."""
        self._lines.close()
        self._link.close()


class IdleTests(SynchronousTestCase):
    """A node with very many idle clients."""

    def test_traffic_is_of_nodes(self) -> None:
        """A node with 1,000 idle clients tells Redis no more than one with none, but for checks."""
        redis = RedisServer()
        self.addCleanup(redis.remove)
        redis.start()
        config = tempfile.NamedTemporaryFile("w", suffix=".toml")  # noqa: SIM115
        self.addCleanup(config.close)
        config.write(CONFIG)
        config.flush()
        server = Server(f"--config={config.name}", f"--redis={redis.url}").start()
        self.addCleanup(server.stop, signal.SIGKILL)
        token = server.login("admin", server.admin_password)["access_token"]
        with closing(Monitor(redis)) as monitor:
            alone = len(monitor.between_beats())

        async def with_clients() -> list[bytes]:
            async with AsyncExitStack() as stack:
                for number in range(CLIENTS):
                    client: Any = await stack.enter_async_context(connect(server.token_url(token)))
                    await client.recv()
                    topics = {"topics": [f"t.{number}"]}
                    await client.send(json.dumps({"type": "Subscribe", "data": topics}))
                    await client.recv()
                # It hears nothing of their coming, but for what is told with the next beat.
                with closing(Monitor(redis)) as monitor:
                    await asyncio.to_thread(monitor.between_beats, 1)
                    return await asyncio.to_thread(monitor.between_beats)

        heard = asyncio.run(with_clients())
        checks = 2 * CLIENTS // CHECKED_AT_ONCE
        # On a busy machine a check more may fall between these beats.
        self.assertLessEqual(len(heard), alone + 2 * checks, b"".join(heard)[:2000])
        self.assertNotIn("Traceback", server.output)
