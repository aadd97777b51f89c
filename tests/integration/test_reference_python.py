"""The reference's Python client, unmodified, against a real server."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.reference import code, no_reference
from tests.support.server import Server, run

DRIVER = """
import asyncio, json, sys
import reference_client
from reference_client import RealtimeClient

url, alice_token, bob_token = sys.argv[1:]
seen = []

def collector(name):
    async def collect(data):
        seen.append([name, data])
    return collect

async def until(name, count=1):
    async with asyncio.timeout(20):
        while sum(1 for kind, _ in seen if kind == name) < count:
            await asyncio.sleep(0.01)

async def scenario():
    alice, bob = RealtimeClient(url, alice_token), RealtimeClient(url, bob_token)
    for kind in ("Broadcast", "DirectMessage", "Pong", "Status"):
        alice.on(kind, collector("alice." + kind))
    bob.on("DirectMessage", collector("bob.DirectMessage"))
    bob.on("Status", collector("bob.Status"))
    await alice.connect()
    await bob.connect()
    await alice.subscribe(["chat.general", "notifications"])
    await until("alice.Status", 2)
    await until("bob.Status")
    await bob.broadcast("chat.general", {"message": "Hello", "n": 1.10})
    await until("alice.Broadcast")
    await alice.send_direct_message("bob", {"secret": True})
    await until("bob.DirectMessage")
    await alice.send("Ping", {"timestamp": 17})
    await until("alice.Pong")
    await alice.disconnect()
    await bob.disconnect()

async def usage():
    # The example's own main(), which sleeps a minute and names a server and a token.
    real_sleep, real_connect = asyncio.sleep, reference_client.websockets.connect
    reference_client.asyncio.sleep = lambda seconds: real_sleep(1.0)
    reference_client.websockets.connect = lambda uri: real_connect(
        uri.replace("ws://localhost:8081/ws", url).replace("your-jwt-token", alice_token)
    )
    await reference_client.main()

asyncio.run(scenario())
asyncio.run(usage())
print("SEEN" + json.dumps(seen))
"""


class PythonClientTests(SynchronousTestCase):
    """The example's class and its usage."""

    skip = no_reference()

    def test_unmodified(self) -> None:
        """It connects, subscribes, broadcasts, messages directly and pings; its main() runs."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "reference_client.py").write_text(code("python", "Python Client Example"))
        (folder / "driver.py").write_text(textwrap.dedent(DRIVER))
        server = Server().start()
        self.addCleanup(server.stop)
        server.add_user("alice")
        server.add_user("bob")
        alice = server.login("alice")
        bob = server.login("bob")
        done = run(
            str(folder / "driver.py"), server.ws_url, alice["access_token"], bob["access_token"]
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        output, _, seen = done.stdout.partition("SEEN")
        got = dict(json.loads(seen))
        self.assertEqual(
            got["alice.Broadcast"],
            {
                "topic": "chat.general",
                "payload": {"message": "Hello", "n": 1.1},
                "from_user": bob["user"]["id"],
            },
        )
        self.assertEqual(
            got["bob.DirectMessage"],
            {"from_user": alice["user"]["id"], "payload": {"secret": True}},
        )
        self.assertEqual(got["alice.Pong"]["timestamp"], 17)
        # What the example's own lambdas print.
        self.assertIn("Status: {'status': 'connected'", output)
        self.assertIn("'message': 'Hello from Python!'", output)
