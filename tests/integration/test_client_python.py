"""The Python client passes the scenarios of all clients."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from realtime.client import RealtimeClient, RealtimeError
from tests.clients import cases
from tests.support.server import Server


class PythonClientTests(cases.ClientCases):
    """`realtime.client`."""

    def command(self) -> list[str]:
        """Run the driver by this Python."""
        return [sys.executable, "-m", "tests.clients.driver"]

    def test_iterations_end(self) -> None:
        """What iterates over a topic that is taken away is told, not left to wait for ever."""
        server = self.serve()
        token = self.token(server)

        async def iterate() -> list[Any]:
            found = []
            async with RealtimeClient(server.ws_url, token, min_delay=0.05) as client:
                await client.subscribe("open.b")
                messages = aiter(client.subscribe("open.a"))
                publishing = asyncio.ensure_future(client.broadcast("open.a", 1))
                found.append((await anext(messages)).payload)
                await publishing
                await asyncio.to_thread(self.restart_closed, server)
                try:
                    await anext(messages)
                except RealtimeError as error:
                    found.append(error.code)
                found.append(client.connected)
            return found

        found = asyncio.run(asyncio.wait_for(iterate(), 60))
        self.assertEqual(found, [1, "FORBIDDEN", True])

    def restart_closed(self, server: Server) -> None:
        """Restart a server with a rule that closes a topic."""
        server.stop()
        config = Path(server.state).parent / "config.toml"
        rule = '[[topic]]\npattern = "open.a"\nsubscribe = ["nobody"]\n'
        config.write_text(rule + config.read_text())
        server.start()
