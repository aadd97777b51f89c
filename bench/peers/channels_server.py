"""Django Channels with its in-memory layer; served by Daphne as `channels_server:application`."""

from urllib.parse import parse_qs

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels.layers.InMemoryChannelLayer",
            "CONFIG": {"capacity": 100_000, "group_expiry": 86400},
        }
    },
)


class Peer(AsyncJsonWebsocketConsumer):
    """One connection."""

    async def connect(self):
        """Join the group of the user that the query names."""
        query = parse_qs(self.scope["query_string"].decode())
        self.user = query.get("user", [""])[0]
        self.joined = [f"user.{self.user}"]
        await self.channel_layer.group_add(self.joined[0], self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        """Leave everything."""
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive_json(self, message):
        """Obey one command."""
        op = message["op"]
        if op == "publish":
            event = {"type": "relay", "topic": message["topic"], "data": message["data"]}
            await self.channel_layer.group_send(f"topic.{message['topic']}", event)
        elif op == "subscribe":
            group = f"topic.{message['topic']}"
            self.joined.append(group)
            await self.channel_layer.group_add(group, self.channel_name)
            await self.send_json({"op": "subscribed"})
        elif op == "direct":
            event = {"type": "relay", "from": self.user, "data": message["data"]}
            await self.channel_layer.group_send(f"user.{message['user']}", event)
        elif op == "ping":
            await self.send_json({"op": "pong"})

    async def relay(self, event):
        """Pass on what the layer delivers."""
        await self.send_json({key: value for key, value in event.items() if key != "type"})


application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("", Peer.as_asgi())]),
    }
)
