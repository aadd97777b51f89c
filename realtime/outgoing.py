"""The webhooks and hooks that the settings ask for, put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from realtime.hooks import MAX_UNDER_WAY, Hooks
from realtime.metrics import Counters
from realtime.settings import Settings
from realtime.signed_post import Connections, SignedPost
from realtime.signing_keys import load_secret
from realtime.webhook_delivery import MEMORY_BYTES, TIMEOUT, Delivery, MemoryQueue, Queue
from realtime.webhook_queue_sqlite import DISK_BYTES, DiskQueue
from realtime.webhooks import Webhooks

QUEUE: Final = "webhooks.sqlite3"
# Bytes that are read of what a webhook answers, which does not matter, and a hook.
_WEBHOOK_ANSWER: Final = 4096
_HOOK_ANSWER: Final = 65536


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes out to the operator's backend; None where nothing does."""

    events: Webhooks | None = None
    hooks: Hooks | None = None
    connections: Connections | None = None

    async def open(self) -> None:
        """Begin; raises `ConfigurationError`."""
        if self.events is not None:
            await self.events.open()

    async def stop(self, seconds: float) -> None:
        """Deliver what is left, for so many seconds, and close all."""
        if self.events is not None:
            await self.events.stop(seconds)
        if self.connections is not None:
            await self.connections.close()


def make_outgoing(settings: Settings, state: Path, counters: Counters, reactor: Any) -> Outgoing:
    """Put together what the settings ask for; raises `ConfigurationError`."""
    if settings.webhook_secret_file is None:
        return Outgoing()
    secret = load_secret(settings.webhook_secret_file, "--webhook-secret-file")
    connections = Connections(reactor, kept=MAX_UNDER_WAY)
    events = hooks = None
    if settings.webhook_url is not None:
        on_disk = settings.webhook_queue == "disk"
        queue: Queue = DiskQueue(str(state / QUEUE), reactor) if on_disk else MemoryQueue()
        delivery = Delivery(
            queue,
            SignedPost(
                settings.webhook_url,
                secret,
                connections.agent,
                reactor,
                timeout=TIMEOUT,
                max_answer=_WEBHOOK_ANSWER,
            ),
            counters,
            reactor,
            max_events=settings.webhook_queue_size,
            max_bytes=DISK_BYTES if on_disk else MEMORY_BYTES,
        )
        events = Webhooks(
            delivery, reactor, events=settings.webhook_event, debounce=settings.webhook_debounce
        )
    if settings.hook_url is not None:
        post = SignedPost(
            settings.hook_url,
            secret,
            connections.agent,
            reactor,
            timeout=settings.hook_timeout,
            # A payload may be rewritten to twice its size, as escapes do.
            max_answer=_HOOK_ANSWER + 2 * settings.max_frame_size,
        )
        hooks = Hooks(post, counters, reactor, kinds=settings.hook, failure=settings.hook_failure)
    return Outgoing(events, hooks, connections)
