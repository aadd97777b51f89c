"""Killing a process that publishes on durable topics."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.journal import journal_path
from tests.support.publisher import recover, run_and_kill
from tests.support.server import Server


class KillTests(TestCase):
    """kill -9 in the middle of acknowledged publications."""

    timeout = 120

    async def test_nothing_acknowledged_is_lost(self) -> None:
        """After each of several kills all that was ever acknowledged is there, once, in order."""
        path = journal_path(self)
        acknowledged: list[tuple[str, int, int]] = []
        first = 0
        for count in (20_000, 3_000, 3_000):
            after = random.randrange(1, count * 3 // 4)
            killed = await deferToThread(run_and_kill, path, first, count, after)
            self.assertGreaterEqual(len(killed.acknowledged), after)
            self.assertLess(len(killed.acknowledged), count)
            acknowledged += killed.acknowledged
            found = await recover(path, acknowledged)
            self.assertEqual(found.problems, [])
            self.assertGreaterEqual(found.publications, len(acknowledged))
            first += count


class ServerKillTests(SynchronousTestCase):
    """kill -9 of a whole server."""

    COUNT = 3000

    def setUp(self) -> None:
        self.state = tempfile.mkdtemp(prefix="realtime-test-")
        self.addCleanup(shutil.rmtree, self.state)
        config = Path(self.state, "realtime.toml")
        config.write_text(
            '[[topic]]\npattern = "orders.*"\nhistory_size = 10000\ndurable = true\n',
            encoding="utf-8",
        )
        self.options = (f"--config={config}", "--message-rate=1000000", "--message-burst=1000000")

    def start(self) -> Server:
        """Start a server on this test's state."""
        server = Server(*self.options, state=self.state).start()
        self.addCleanup(server.stop)
        return server

    def test_clients_recover(self) -> None:
        """What was acknowledged before the kill is recovered after it, and the log says so."""
        server = self.start()
        server.add_user("alice")
        token = server.login("alice")["access_token"]
        position, acknowledged = asyncio.run(self.publish_until_killed(server, token))
        server = self.start()
        token = server.login("alice")["access_token"]
        missed, status = asyncio.run(self.recover(server, token, position))
        self.assertTrue(status["recovered"])
        offsets = [each["offset"] for each in missed]
        self.assertEqual(offsets, list(range(1, status["offset"] + 1)))
        self.assertEqual([each["payload"] for each in missed], list(range(len(missed))))
        self.assertGreaterEqual(len(missed), len(acknowledged))
        self.assertEqual(acknowledged, {n: n + 1 for n in range(len(acknowledged))})
        self.assertRegex(
            server.output, rf"Recovered {len(missed)} publications of 1 durable topics in [0-9.]+ s"
        )

    async def publish_until_killed(
        self, server: Server, token: str
    ) -> tuple[dict[str, Any], dict[int, int]]:
        """Publish numbers; answer the position before, and the offset acknowledged of each."""
        acknowledged: dict[int, int] = {}
        async with connect(server.token_url(token)) as client:
            await client.recv()
            await client.send(command("Subscribe", 0, topics=["orders.new"]))
            (status,) = json.loads(await client.recv())["data"]["topics"]
            await client.send(command("Unsubscribe", 0, topics=["orders.new"]))
            await client.recv()

            async def publish() -> None:
                for n in range(self.COUNT):
                    await client.send(command("Broadcast", n, topic="orders.new", payload=n))

            publishing = asyncio.ensure_future(publish())
            try:
                while True:
                    ack = json.loads(await client.recv())
                    acknowledged[ack["id"]] = ack["data"]["offset"]
                    if len(acknowledged) == self.COUNT // 3:
                        server.stop(SIGKILL)
            except ConnectionClosed:
                pass
            await asyncio.gather(publishing, return_exceptions=True)
        return {"offset": status["offset"], "epoch": status["epoch"]}, acknowledged

    async def recover(
        self, server: Server, token: str, position: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Subscribe from a position; answer what was missed, and the topic's status."""
        missed: list[dict[str, Any]] = []
        async with connect(server.token_url(token)) as client:
            await client.recv()
            recover = {"orders.new": position}
            await client.send(command("Subscribe", 1, topics=["orders.new"], recover=recover))
            while True:
                message = json.loads(await client.recv())
                if message["type"] == "Status":
                    return missed, message["data"]["topics"][0]
                missed.append(message["data"])


def command(type: str, id: int, **data: Any) -> str:
    """Make a command."""
    return json.dumps({"type": type, "id": id, "data": data})
