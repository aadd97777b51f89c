"""The websockets library on asyncio, with its own `broadcast`."""

import asyncio
import json
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

TOPICS = defaultdict(set)
USERS = defaultdict(set)


async def peer(socket):
    """Serve one connection."""
    user = parse_qs(urlsplit(socket.request.path).query).get("user", [""])[0]
    topics = set()
    USERS[user].add(socket)
    try:
        async for text in socket:
            message = json.loads(text)
            op = message["op"]
            if op == "publish":
                topic = message["topic"]
                text = json.dumps({"topic": topic, "data": message["data"]})
                broadcast(TOPICS[topic], text)
            elif op == "subscribe":
                topics.add(message["topic"])
                TOPICS[message["topic"]].add(socket)
                await socket.send('{"op":"subscribed"}')
            elif op == "direct":
                text = json.dumps({"from": user, "data": message["data"]})
                broadcast(USERS[message["user"]], text)
            elif op == "ping":
                await socket.send('{"op":"pong"}')
    except ConnectionClosed:
        pass
    finally:
        for topic in topics:
            TOPICS[topic].discard(socket)
        USERS[user].discard(socket)


async def main():
    """Serve for ever."""
    port = int(sys.argv[1])
    async with serve(peer, "127.0.0.1", port, compression=None, backlog=1024):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
