"""Nodes and Redis are killed under load, and nothing may be lost, doubled or reordered.

Run by hand: `python -m tests.integration.chaos --seconds 60 --clients 300 --seed 1`. A seed gives
the same acts in the same order. Prints what was found as JSON; exit status 1 where something is
wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.support.redis import RedisServer
from tests.support.server import Server, free_port

CONFIG = """
[[topic]]
pattern = "t.>"
history_size = 20000
"""
TOPICS = 10
# Seconds that a publisher waits for an Ack, between publications, and all have to catch up.
ACK_SECONDS = 8.0
PUBLISH_EVERY = 0.2
CATCH_UP_SECONDS = 60.0
ACTS = (
    *("kill node", "drain node", "kill redis"),
    *("pause redis", "cut subscriptions", "cut commands"),
)
CUT_LINK = "cut link"
PAUSE_SECONDS = 10.0


class Network:
    """A network namespace for each node, with a link for its clients and one for Redis.

    The process that makes it goes into one, too, where Redis and the clients are.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        ip("netns", "add", self.name())
        with open(f"/var/run/netns/{self.name()}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        ip("link", "set", "lo", "up")
        for index in range(nodes):
            ip("netns", "add", self.name(index))
            for kind in "cr":
                here = f"{kind}{index}"
                ip("link", "add", here, "type", "veth", "peer", "name", kind)
                ip("link", "set", kind, "netns", self.name(index))
                ip("address", "add", f"{host(index, kind, 1)}/24", "dev", here)
                ip("link", "set", here, "up")
                there = ("-n", self.name(index))
                ip(*there, "address", "add", f"{host(index, kind, 2)}/24", "dev", kind)
                ip(*there, "link", "set", kind, "up")

    def name(self, index: int | None = None) -> str:
        """The name of a node's namespace, or of the one in the middle."""
        return f"realtime{os.getpid()}{'' if index is None else f'-{index}'}"

    def switch(self, index: int, state: str) -> None:
        """Cut or mend a node's link to Redis."""
        ip("link", "set", f"r{index}", state)

    def remove(self) -> None:
        """Take all away."""
        for index in range(self._nodes):
            ip("netns", "delete", self.name(index))
        ip("netns", "delete", self.name())


def ip(*arguments: str) -> None:
    """Have the network changed by iproute2."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def host(index: int, kind: str, side: int) -> str:
    """The address on a node's link for clients or for Redis; side 2 is the node's."""
    return f"10.{97 if kind == 'c' else 96}.{index}.{side}"


class World:
    """The nodes, their Redis, and what came of it all."""

    def __init__(self, nodes: int, seed: int, namespaces: bool = False) -> None:
        # For the acts; what clients draw depends on time, and must not change those.
        self.random = random.Random(seed)
        self.clients_random = random.Random(seed)
        self.network = Network(nodes) if namespaces else None
        everywhere = ("--bind", "0.0.0.0", "--protected-mode", "no")
        self.redis = RedisServer(*(everywhere if namespaces else ()))
        self.folder = tempfile.TemporaryDirectory(prefix="realtime-chaos-")
        folder = Path(self.folder.name)
        self.key = secrets.token_hex(32)
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(self.key)
        (folder / "config.toml").write_text(CONFIG)
        self.ports = [free_port() for _ in range(nodes)]
        self.nodes: list[Server] = []
        self.options = [
            f"--config={folder / 'config.toml'}",
            f"--secret-file={folder / 'key'}",
            "--max-queue-bytes=16777216",
            "--drain-seconds=1",
            "--message-rate=100000",
            "--message-burst=100000",
        ]
        self.acts: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stopping = False
        self.next_to_drain = 0

    def node(self, index: int) -> Server:
        """Make a node; it keeps its port and its state."""
        state = Path(self.folder.name) / f"state{index}"
        state.mkdir(exist_ok=True)
        if self.network is None:
            redis = f"--redis={self.redis.url}"
            return Server(*self.options, redis, state=str(state), port=self.ports[index])
        command = (
            *("ip", "netns", "exec", self.network.name(index)),
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
            *("--nodaemon", "--pidfile=", "realtime", f"--state={state}"),
            *(f"--host={host(index, 'c', 2)}", f"--port={self.ports[index]}", *self.options),
            f"--redis=redis://{host(index, 'r', 1)}:{self.redis.port}",
        )
        return Server(state=str(state), command=command)

    def url(self, index: int) -> str:
        """Where a node's WebSockets are."""
        address = "127.0.0.1" if self.network is None else host(index, "c", 2)
        return f"ws://{address}:{self.ports[index]}/ws"

    def start(self) -> None:
        """Start all."""
        self.redis.start()
        self.nodes = [self.node(index).start() for index in range(len(self.ports))]

    def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            node.stop(signal.SIGKILL)
        self.redis.remove()
        self.folder.cleanup()
        if self.network is not None:
            self.network.remove()

    def token(self, user: str) -> str:
        """A token for a user."""
        return jwt.encode({"sub": user, "exp": time.time() + 3600}, self.key, algorithm="HS256")

    def wrong(self, problem: str) -> None:
        """Note what may not be."""
        self.facts["problems"] += 1
        if len(self.problems) < 20:
            self.problems.append(problem)

    async def act(self, act: str) -> None:
        """Do something bad, and mend it."""
        self.acts[act] += 1
        if act == "kill node":
            index = self.random.randrange(len(self.nodes))
            self.nodes[index].stop(signal.SIGKILL)
            self.nodes[index] = self.node(index)
            await asyncio.to_thread(self.nodes[index].start)
        elif act == "drain node":
            # A rolling restart, one node at a time.
            self.next_to_drain = (self.next_to_drain + 1) % len(self.nodes)
            old = self.nodes[self.next_to_drain]
            status = await asyncio.to_thread(old.stop)
            if status or "Traceback" in old.output:
                self.wrong(f"a drained node ended with status {status}: {old.output[-2000:]}")
            self.nodes[self.next_to_drain] = self.node(self.next_to_drain)
            await asyncio.to_thread(self.nodes[self.next_to_drain].start)
        elif act == CUT_LINK:
            assert self.network is not None
            index = self.random.randrange(len(self.nodes))
            self.network.switch(index, "down")
            await asyncio.sleep(self.random.random() * PAUSE_SECONDS)
            self.network.switch(index, "up")
        elif act == "kill redis":
            self.redis.kill()
            await asyncio.sleep(self.random.random())
            await asyncio.to_thread(self.redis.start)
        elif act == "pause redis":
            self.redis.pause()
            await asyncio.sleep(PAUSE_SECONDS)
            self.redis.resume()
        else:
            kind = "pubsub" if act == "cut subscriptions" else "normal"
            await asyncio.to_thread(self.redis.tell, "CLIENT", "KILL", "TYPE", kind)


class Person:
    """A client that subscribes to one topic, and comes back with what it has."""

    def __init__(self, world: World, number: int, publishes: bool) -> None:
        self.world = world
        self.name = f"person{number}"
        self.topic = f"t.{number % TOPICS}"
        self.publishes = publishes
        self.position: dict[str, Any] | None = None
        self.subscribed = asyncio.Event()
        self.seen: list[str] = []
        self.published: list[str] = []
        self.waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.socket: ClientConnection | None = None

    async def live(self) -> None:
        """Connect again and again."""
        world = self.world
        while not world.stopping:
            url = world.url(world.clients_random.randrange(len(world.ports)))
            headers = {"Authorization": f"Bearer {world.token(self.name)}"}
            try:
                async with connect(
                    url, additional_headers=headers, compression=None, open_timeout=20
                ) as socket:
                    self.socket = socket
                    await self.subscribe()
                    async for message in socket:
                        await self.take(json.loads(message))
            except (OSError, WebSocketException, TimeoutError):
                pass
            world.facts["connections lost"] += 1
            self.socket = None
            self.subscribed.clear()
            for waiting in self.waiting.values():
                if not waiting.done():
                    waiting.cancel()
            await asyncio.sleep(0.1 + world.clients_random.random() * 0.4)

    async def say(self, type: str, id: str, **data: Any) -> None:
        """Send a command, if there is a connection."""
        if self.socket is not None:
            try:
                await self.socket.send(json.dumps({"type": type, "id": id, "data": data}))
            except WebSocketException:
                pass

    async def subscribe(self) -> None:
        """Subscribe, from the last position where there is one."""
        recover = {} if self.position is None else {"recover": {self.topic: self.position}}
        await self.say("Subscribe", "s", topics=[self.topic], **recover)

    async def take(self, message: dict[str, Any]) -> None:
        """Look at what has come."""
        kind, data, id = message["type"], message["data"], message.get("id")
        if kind == "Broadcast":
            self.take_publication(data)
        elif kind == "Ack" or (kind == "Error" and id != "s"):
            waiting = self.waiting.get(str(id))
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif kind == "Error":
            self.world.facts["subscriptions refused"] += 1
            await asyncio.sleep(0.2)
            await self.subscribe()
        elif data.get("status") == "subscribed":
            (entry,) = data["topics"]
            if self.position is None:
                self.position = {"offset": entry["offset"], "epoch": entry["epoch"]}
            elif entry.get("recovered") is not True:
                self.world.wrong(f"{self.name} was not recovered: {entry} at {self.position}")
            self.world.facts["subscribed"] += 1
            self.subscribed.set()
        elif data.get("status") == "gap":
            self.world.wrong(f"{self.name} was told of a gap: {data}")

    def take_publication(self, data: dict[str, Any]) -> None:
        self.world.facts["delivered"] += 1
        last = self.position
        if last is None:
            self.world.wrong(f"{self.name} got {data} before it had subscribed")
        elif data["epoch"] != last["epoch"] or data["offset"] != last["offset"] + 1:
            self.world.wrong(f"{self.name} got {data['offset']} after {last['offset']}")
        self.position = {"offset": data["offset"], "epoch": data["epoch"]}
        self.seen.append(data["payload"])

    async def publish(self, until: float) -> None:
        """Publish, each until it is acknowledged, with a key."""
        number = 0
        while time.monotonic() < until:
            number += 1
            text = f"{self.name}-{number}"
            while not await self.publish_once(text):
                self.world.facts["publications repeated"] += 1
                await asyncio.sleep(0.2)
            self.published.append(text)
            await asyncio.sleep(PUBLISH_EVERY * (0.5 + self.world.clients_random.random()))

    async def publish_once(self, text: str) -> bool:
        """Publish; answer whether it was acknowledged."""
        waiting = self.waiting[text] = asyncio.get_running_loop().create_future()
        try:
            await self.say("Broadcast", text, topic=self.topic, payload=text, key=text)
            answer = await asyncio.wait_for(waiting, ACK_SECONDS)
            return bool(answer["type"] == "Ack")
        except (TimeoutError, asyncio.CancelledError):
            return False
        finally:
            del self.waiting[text]


async def play(world: World, clients: int, seconds: float, acts: tuple[str, ...]) -> None:
    """Let people talk while bad things happen; then see what they have."""
    people = [Person(world, number, number < 2 * TOPICS) for number in range(clients)]
    lives = [asyncio.create_task(person.live()) for person in people]
    await asyncio.gather(*(person.subscribed.wait() for person in people))
    until = time.monotonic() + seconds
    publishing = [
        asyncio.create_task(person.publish(until)) for person in people if person.publishes
    ]
    order: list[str] = []
    while time.monotonic() < until:
        if not order:
            order = world.random.sample(acts, len(acts))
        await asyncio.sleep(0.5 + world.random.random())
        await world.act(order.pop())
    await asyncio.gather(*publishing)
    sent = dict.fromkeys({person.topic for person in people}, 0)
    for person in people:
        sent[person.topic] += len(person.published)
    end = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < end:
        if all(len(person.seen) >= sent[person.topic] for person in people):
            break
        await asyncio.sleep(0.2)
    world.stopping = True
    for life in lives:
        life.cancel()
    await asyncio.gather(*lives, return_exceptions=True)
    judge(world, people)


def judge(world: World, people: list[Person]) -> None:
    """Every acknowledged publication is at everybody's, once, in one order."""
    orders: dict[str, list[str]] = {}
    for person in people:
        first = orders.setdefault(person.topic, person.seen)
        if person.seen != first:
            world.wrong(f"{person.name} saw {len(person.seen)}, another {len(first)}")
    for topic, seen in orders.items():
        times = Counter(seen)
        here = [person for person in people if person.topic == topic]
        for person in here:
            mine = [text for text in seen if text.startswith(f"{person.name}-")]
            if mine != person.published:
                world.wrong(f"{person.name} published {len(person.published)}, seen {len(mine)}")
        doubled = [text for text, number in times.items() if number > 1]
        if doubled:
            world.wrong(f"doubled on {topic}: {doubled[:5]}")
    world.facts["published"] = sum(len(person.published) for person in people)


def main() -> int:
    """Play, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--namespaces", action="store_true", help="nodes as hosts of their own")
    parser.add_argument("--act", action="append", choices=(*ACTS, CUT_LINK))
    given = parser.parse_args()
    world = World(given.nodes, given.seed, given.namespaces)
    try:
        world.start()
        acts = tuple(given.act or ((CUT_LINK,) if given.namespaces else ACTS))
        asyncio.run(play(world, given.clients, given.seconds, acts))
        logs = "".join(node.output for node in world.nodes)
        if "Traceback" in logs or "Unhandled" in logs:
            world.wrong("a node logged a traceback")
            print(logs[-5000:], file=sys.stderr)
    finally:
        world.stop()
    print(json.dumps({"acts": world.acts, "facts": world.facts, "problems": world.problems}))
    return 1 if world.problems else 0


if __name__ == "__main__":
    sys.exit(main())
