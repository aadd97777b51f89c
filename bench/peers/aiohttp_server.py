"""WebSockets of aiohttp on uvloop."""

import json
import sys
from collections import defaultdict

import uvloop
from aiohttp import WSMsgType, web

TOPICS = defaultdict(set)
USERS = defaultdict(set)


async def send_all(sockets, text):
    """Send to each; one that is closing meanwhile is passed over."""
    for socket in list(sockets):
        try:
            await socket.send_str(text)
        except ConnectionError:
            pass


async def peer(request):
    """Serve one connection."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    user = request.query.get("user", "")
    topics = set()
    USERS[user].add(socket)
    try:
        async for received in socket:
            if received.type != WSMsgType.TEXT:
                continue
            message = json.loads(received.data)
            op = message["op"]
            if op == "publish":
                topic = message["topic"]
                text = json.dumps({"topic": topic, "data": message["data"]})
                await send_all(TOPICS[topic], text)
            elif op == "subscribe":
                topics.add(message["topic"])
                TOPICS[message["topic"]].add(socket)
                await socket.send_str('{"op":"subscribed"}')
            elif op == "direct":
                text = json.dumps({"from": user, "data": message["data"]})
                await send_all(USERS[message["user"]], text)
            elif op == "ping":
                await socket.send_str('{"op":"pong"}')
    finally:
        for topic in topics:
            TOPICS[topic].discard(socket)
        USERS[user].discard(socket)
    return socket


application = web.Application()
application.router.add_get("/", peer)
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    backlog=1024,
    access_log=None,
    print=None,
    loop=uvloop.new_event_loop(),
)
