"""What every client is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from realtime.errors import RealtimeError
from realtime.interfaces import Gatekeeper
from realtime.model import Identity


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """What every connection is held to. Rates are a second, times seconds, sizes bytes.

    `max_topics` bounds what one command names, `max_reply` what of a history one answer has, or one
    recovery. `refused` is told of renewed tokens that were refused, and of the connection's id.
    """

    message_rate: float
    message_burst: float
    byte_rate: int
    max_subscriptions: int
    max_topics: int
    heartbeat_interval: int
    client_timeout: int
    max_frame_size: int
    max_reply: int
    on_token_expiry: Literal["close", "keep"]
    authenticate: Callable[[str], Identity]
    hooks: Gatekeeper | None = None
    refused: Callable[[RealtimeError, str], object] = lambda error, connection: None


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What WebSockets are held to beside that. Times are seconds, sizes bytes."""

    max_frame_size: int
    max_queue_bytes: int
    compression: bool = False
    head_timeout: int = 10
    max_head_size: int = 16 * 1024
    close_timeout: int = 2
