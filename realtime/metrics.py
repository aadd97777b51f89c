"""Counters of the hot path, and what is reported of them. Pure."""

from __future__ import annotations


class Counters:
    """Plain integers that the hot path increments; read when somebody asks.

    `active_connections` counts open WebSockets. `messages_received` counts Broadcast and
    DirectMessage commands accepted, `messages_sent` their deliveries, one a recipient.
    `errors` counts refused messages and internal failures.
    """

    __slots__ = (
        "active_connections",
        "closed_slow_consumers",
        "errors",
        "messages_received",
        "messages_sent",
        "refused_connections",
        "subscriptions",
        "total_connections",
    )

    def __init__(self) -> None:
        self.active_connections = 0
        self.total_connections = 0
        self.messages_sent = 0
        self.messages_received = 0
        self.errors = 0
        self.refused_connections = 0
        self.closed_slow_consumers = 0
        self.subscriptions = 0

    def as_reference(self) -> dict[str, int]:
        """The five numbers of the reference's `/metrics` and `/info`."""
        return {
            "active_connections": self.active_connections,
            "total_connections": self.total_connections,
            "messages_sent": self.messages_sent,
            "messages_received": self.messages_received,
            "errors": self.errors,
        }
