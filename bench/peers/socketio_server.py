"""python-socketio on uvicorn: rooms are topics and users."""

import sys

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


@server.event
async def connect(sid, environ, auth):
    """Join the room of the user that the query names."""
    query = environ.get("QUERY_STRING", "")
    user = dict(part.partition("=")[::2] for part in query.split("&")).get("user", "")
    await server.enter_room(sid, f"user.{user}")


@server.event
async def subscribe(sid, topic):
    """Join a topic's room."""
    await server.enter_room(sid, f"topic.{topic}")
    return "subscribed"


@server.event
async def publish(sid, topic, data):
    """Relay to a topic."""
    await server.emit("message", {"topic": topic, "data": data}, room=f"topic.{topic}")


@server.event
async def direct(sid, user, data):
    """Relay to a user."""
    await server.emit("direct", {"data": data}, room=f"user.{user}")


@server.event
async def ping_(sid):
    """Answer a ping."""
    await server.emit("pong_", room=sid)


uvicorn.run(
    socketio.ASGIApp(server),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    log_level="error",
    ws_per_message_deflate=False,
    backlog=1024,
)
