"""Picows on uvloop, as its README recommends."""

import json
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

TOPICS = defaultdict(set)
USERS = defaultdict(set)
TEXT = WSMsgType.TEXT


class Peer(WSListener):
    """One connection."""

    def __init__(self, user):
        self.user = user
        self.topics = set()

    def on_ws_connected(self, transport):
        """Note the connection of the user."""
        self.transport = transport
        USERS[self.user].add(transport)

    def on_ws_frame(self, transport, frame):
        """Obey one command."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        message = json.loads(frame.get_payload_as_bytes())
        op = message["op"]
        if op == "publish":
            topic = message["topic"]
            text = json.dumps({"topic": topic, "data": message["data"]}).encode()
            for peer in TOPICS[topic]:
                peer.send(TEXT, text)
        elif op == "subscribe":
            self.topics.add(message["topic"])
            TOPICS[message["topic"]].add(transport)
            transport.send(TEXT, b'{"op":"subscribed"}')
        elif op == "direct":
            text = json.dumps({"from": self.user, "data": message["data"]}).encode()
            for peer in USERS[message["user"]]:
                peer.send(TEXT, text)
        elif op == "ping":
            transport.send(TEXT, b'{"op":"pong"}')

    def on_ws_disconnected(self, transport):
        """Leave everything."""
        for topic in self.topics:
            TOPICS[topic].discard(transport)
        USERS[self.user].discard(transport)


def accept(request):
    """Make a connection of the user that the query names."""
    query = urlsplit(request.path.decode()).query
    return Peer(parse_qs(query).get("user", [""])[0])


async def main():
    """Serve for ever."""
    server = await ws_create_server(accept, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


uvloop.run(main())
