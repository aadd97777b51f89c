"""Webhooks and hooks of a whole server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.identity import make_state_dir
from tests.support.receiver import SECRET, Posted, RealReceiver
from tests.support.server import Server


def judge(posted: Posted) -> Any:
    """Answer a question: no staff topics, no shouting, and nothing for mallory."""
    question = posted.json
    answer: dict[str, Any] = {"allow": question["username"] != "mallory"}
    if question["hook"] == "subscribe":
        answer["deny"] = [topic for topic in question["topics"] if topic.startswith("staff.")]
    elif question["hook"] == "publish":
        if question["payload"] == "spam":
            answer = {"allow": False, "reason": "No spam"}
        elif question["payload"] == "LOUD":
            answer["payload"] = "loud"
    return 200, json.dumps(answer).encode()


class ServerTests(TestCase):
    """One backend, one server, some clients."""

    timeout = 120

    async def start(self, *options: str) -> Server:
        """Start a server that asks and tells a new backend."""
        directory = Path(make_state_dir(self))
        secret = directory / "webhook.key"
        secret.write_bytes(SECRET)
        secret.chmod(0o600)
        self.events = RealReceiver(self)
        self.questions = RealReceiver(self)
        self.questions.always = judge
        server = Server(
            f"--webhook-url={self.events.url}/events?key=hidden",
            f"--hook-url={self.questions.url}/ask?key=hidden",
            f"--webhook-secret-file={secret}",
            *("--hook=connect", "--hook=subscribe", "--hook=publish", "--webhook-debounce=0"),
            *options,
            state=str(directory),
        )
        self.addCleanup(server.stop)
        await deferToThread(server.start)
        await deferToThread(server.add_user, "alice")
        await deferToThread(server.add_user, "mallory")
        return server

    async def test_questions_and_events(self) -> None:
        """Clients do what the backend allows, and it is told of all that has happened."""
        events = ("connect", "disconnect", "subscribe", "unsubscribe", "publish")
        server = await self.start(
            *(f"--webhook-event={event}" for event in (*events, "occupied", "vacated"))
        )
        login = await deferToThread(server.login, "alice")
        answers = await deferToThread(asyncio.run, self.converse(server, login["access_token"]))
        self.assertEqual(
            answers,
            [
                ("Status", 1, ["chat.a"]),
                ("Error", 2, "No spam"),
                ("Broadcast", None, "loud"),
                ("Error", None, "FORBIDDEN"),
                ("Ack", 3, "chat.a"),
            ],
        )
        token = (await deferToThread(server.login, "mallory"))["access_token"]
        await deferToThread(asyncio.run, self.refused(server, token))
        await deferToThread(server.stop)
        self.assertTrue(all(posted.is_signed() for posted in self.events.posted))
        told = [(event["event"], event.get("username")) for event in self.events.events]
        self.assertCountEqual(
            told,
            [
                *((event, "alice") for event in ("connect", "subscribe", "disconnect")),
                *((event, None) for event in ("occupied", "publish", "vacated")),
            ],
        )
        self.assertEqual((told[0], told[-1]), (("connect", "alice"), ("disconnect", "alice")))
        by_name = {event["event"]: event for event in self.events.events}
        self.assertEqual(by_name["subscribe"]["topics"], ["chat.a"])
        self.assertEqual(by_name["publish"]["payload"], "loud")
        self.assertEqual(by_name["disconnect"]["code"], 1000)
        self.assertNotIn("hidden", server.output)

    async def converse(self, server: Server, token: str) -> list[tuple[str, Any, Any]]:
        """Subscribe, be denied, publish; answer what was said."""
        said = []
        async with asyncio.timeout(30), connect(server.token_url(token)) as client:
            await client.recv()
            for command in (
                {"type": "Subscribe", "data": {"topics": ["chat.a", "staff.a"]}, "id": 1},
                {"type": "Broadcast", "data": {"topic": "chat.a", "payload": "spam"}, "id": 2},
                {"type": "Broadcast", "data": {"topic": "chat.a", "payload": "LOUD"}, "id": 3},
            ):
                await client.send(json.dumps(command))
            while len(said) < 5:
                message = json.loads(await client.recv())
                data = message["data"]
                what = {
                    "Error": lambda data=data: (
                        data["message"] if data["message"] == "No spam" else data["code"]
                    ),
                    "Status": lambda data=data: [topic["topic"] for topic in data["topics"]],
                    "Broadcast": lambda data=data: data["payload"],
                    "Ack": lambda data=data: data["topic"],
                }[message["type"]]()
                said.append((message["type"], message.get("id"), what))
        return sorted(said, key=lambda one: (one[1] or 3, one[0] == "Ack", one[0]))

    async def refused(self, server: Server, token: str) -> None:
        """Try to connect, in vain."""
        with self.assertRaises(InvalidStatus) as caught:
            async with asyncio.timeout(30), connect(server.token_url(token)):
                pass
        self.assertEqual(caught.exception.response.status_code, 403)

    async def test_restart(self) -> None:
        """With the queue on disk, what a server could not deliver comes after the next start."""
        server = await self.start("--webhook-queue=disk", "--webhook-event=connect")
        self.events.always = 503
        login = await deferToThread(server.login, "alice")
        await deferToThread(asyncio.run, self.converse(server, login["access_token"]))
        await self.events.arrivals.get()
        await deferToThread(server.stop)
        self.events.always = 204
        self.events.posted.clear()
        await deferToThread(server.start)
        while not self.events.posted:
            await self.events.arrivals.get()
        self.assertEqual([event["event"] for event in self.events.events], ["connect"])
        self.assertIn("1 events wait for the webhook", server.output)
