"""A client of the server for asyncio programs: `async with RealtimeClient(url, token)`.

It connects again by itself and goes on where it was: each publication comes once and in order,
as far as the topics' histories reach. It needs `websockets` alone (the extra `client`).
"""

from realtime.client.client import RealtimeClient
from realtime.client.errors import RealtimeError
from realtime.client.subscription import Message, Subscription

__all__ = ["Message", "RealtimeClient", "RealtimeError", "Subscription"]
