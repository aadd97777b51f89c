"""Autobahn on Twisted as its examples write it: one `sendMessage` per subscriber."""

import json
import sys
from collections import defaultdict

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor

TOPICS = defaultdict(set)
USERS = defaultdict(set)


class Peer(WebSocketServerProtocol):
    """One connection."""

    def onConnect(self, request):
        """Note the user that the query names."""
        self.user = request.params.get("user", [""])[0]
        self.topics = set()
        USERS[self.user].add(self)

    def onMessage(self, payload, isBinary):
        """Obey one command."""
        message = json.loads(payload)
        op = message["op"]
        if op == "publish":
            topic = message["topic"]
            text = json.dumps({"topic": topic, "data": message["data"]}).encode()
            for peer in TOPICS[topic]:
                peer.sendMessage(text)
        elif op == "subscribe":
            self.topics.add(message["topic"])
            TOPICS[message["topic"]].add(self)
            self.sendMessage(b'{"op":"subscribed"}')
        elif op == "direct":
            text = json.dumps({"from": self.user, "data": message["data"]}).encode()
            for peer in USERS[message["user"]]:
                peer.sendMessage(text)
        elif op == "ping":
            self.sendMessage(b'{"op":"pong"}')

    def onClose(self, wasClean, code, reason):
        """Leave everything."""
        for topic in self.topics:
            TOPICS[topic].discard(self)
        USERS[self.user].discard(self)


factory = WebSocketServerFactory()
factory.protocol = Peer
reactor.listenTCP(int(sys.argv[1]), factory, backlog=1024, interface="127.0.0.1")
reactor.run()
