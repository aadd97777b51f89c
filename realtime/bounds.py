"""What clients are held to, as the settings say."""

from __future__ import annotations

import sys
from collections.abc import Callable

from realtime.http_request import HttpLimits
from realtime.interfaces import Gatekeeper
from realtime.model import Identity
from realtime.policy import ClientPolicy, WebSocketOptions
from realtime.settings import Settings


def client_policy(
    settings: Settings, authenticate: Callable[[str], Identity], hooks: Gatekeeper | None
) -> ClientPolicy:
    """What connections of any kind are held to."""
    return ClientPolicy(
        message_rate=settings.message_rate,
        message_burst=settings.message_burst,
        byte_rate=settings.byte_rate or sys.maxsize,
        max_subscriptions=settings.max_subscriptions,
        max_topics=max(settings.max_topics, settings.max_subscriptions),
        heartbeat_interval=settings.heartbeat_interval,
        client_timeout=settings.client_timeout,
        max_frame_size=settings.max_frame_size,
        max_reply=settings.max_queue_bytes // 2,
        on_token_expiry=settings.on_token_expiry,
        authenticate=authenticate,
        hooks=hooks,
    )


def websocket_options(settings: Settings) -> WebSocketOptions:
    """What WebSockets are held to beside that."""
    return WebSocketOptions(
        settings.max_frame_size,
        settings.max_queue_bytes,
        settings.compression,
        head_timeout=settings.head_timeout,
        max_head_size=settings.max_head_size,
    )


def http_limits(settings: Settings) -> HttpLimits:
    """What HTTP requests are held to."""
    return HttpLimits(
        head=settings.head_timeout,
        body=settings.body_timeout,
        head_size=settings.max_head_size,
        body_size=settings.max_body_size,
    )
