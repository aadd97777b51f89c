"""The reference's Python client, unmodified, against a real server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import spawn
from tests.support.reference import code, no_reference
from tests.support.server import Server

DRIVER = """
import asyncio, json, sys
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

asyncio.run(scenario())
print("SEEN" + json.dumps(seen))
"""

# The example as a program: it names a server and a token, and stays for a minute.
USAGE = """
import asyncio, builtins, runpy, sys
import websockets

url, token = sys.argv[1:]
connect, sleep, say = websockets.connect, asyncio.sleep, print
heard = asyncio.Event()

def hear(text):
    say(text)
    if text.startswith("Broadcast"):
        heard.set()

builtins.print = hear
asyncio.sleep = lambda seconds: (
    asyncio.wait_for(heard.wait(), 20) if seconds == 60 else sleep(seconds)
)
websockets.connect = lambda uri: connect(
    uri.replace("ws://localhost:8081/ws", url).replace("your-jwt-token", token)
)
runpy.run_path("reference_client.py", run_name="__main__")
"""


class PythonClientTests(SynchronousTestCase):
    """The example's class and its usage."""

    skip = no_reference()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        source = code("python", "Python Client Example")
        (self.folder / "reference_client.py").write_text(source, encoding="utf-8")
        self.server = Server().start()
        self.addCleanup(self.server.stop)

    def drive(self, driver: str, *tokens: str) -> str:
        """Run a driver beside the example; answer what it prints."""
        (self.folder / "driver.py").write_text(driver, encoding="utf-8")
        process = spawn(
            self, [sys.executable, "driver.py", self.server.ws_url, *tokens], cwd=self.folder
        )
        output, complaints = process.communicate()
        self.assertEqual(process.returncode, 0, output + complaints)
        return output

    def test_unmodified(self) -> None:
        """It connects, subscribes, broadcasts, messages directly, pings and leaves."""
        self.server.add_user("alice")
        self.server.add_user("bob")
        alice, bob = self.server.login("alice"), self.server.login("bob")
        output = self.drive(DRIVER, alice["access_token"], bob["access_token"])
        complaints, _, seen = output.partition("SEEN")
        self.assertEqual(complaints, "")
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

    def test_usage(self) -> None:
        """The example as a program hears its welcome, its subscription and its own broadcast."""
        login = self.server.login("admin", self.server.admin_password)
        lines = self.drive(USAGE, login["access_token"]).splitlines()
        # It also complains of its own handlers, which are no coroutines.
        told = [line for line in lines if line.startswith(("Status", "Broadcast", "DM"))]
        self.assertEqual(len(told), 3, lines)
        self.assertIn("Status: {'status': 'connected'", told[0])
        self.assertIn("Status: {'status': 'subscribed'", told[1])
        self.assertIn("Broadcast: {'topic': 'chat.general'", told[2])
        self.assertIn(f"'from_user': '{login['user']['id']}'", told[2])
