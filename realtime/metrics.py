"""Counters of the hot path, and what is reported of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from realtime import __version__

JSON = "application/json"
_OPENMETRICS = "application/openmetrics-text"
_TEXT = "text/plain"

_GAUGES = {
    "active_connections": "WebSockets open now",
    "subscriptions": "Subscriptions of the open connections",
    "event_loop_lag_seconds": "How late the last of the beats came that are due once a second",
    "broker_lag_seconds": "Time that the last of the node's beats took through Redis to itself",
    "webhook_queue": "Events that wait to be posted to the webhook",
    "jwks_keys": "Public keys of another issuer that the server has",
}
_COUNTERS = {
    "total_connections": "WebSockets opened",
    "messages_received": "Broadcast and DirectMessage commands accepted",
    "messages_sent": "Deliveries of messages, one a recipient",
    "errors": "Refused messages and requests, and internal failures",
    "refused_connections": "WebSocket handshakes refused",
    "limited_connections": "Connections refused because their user or address had too many",
    "closed_slow_consumers": "Connections closed because the client read too slowly",
    "dropped_publications": "Publications not sent to clients that read slowly, as rules have it",
    "dropped_http_connections": "HTTP connections closed or refused because there were too many",
    "dropped_silent_connections": "Connections closed before they said anything, as too many did",
    "broker_publications": "Publications that Redis has taken",
    "broker_seconds": "Time that Redis took to take them",
    "broker_failures": "Publications that Redis has not taken, or not answered about",
    "broker_reconnects": "How often Redis has come back",
    "broker_repairs": "Topics in which publications were missing and read from the history",
    "broker_losses": "Topics in which publications were lost: the history did not have them",
    "webhook_events": "Events that the webhook has taken",
    "webhook_dropped": "Events that the webhook will not get: the queue was full, or it failed",
    "webhook_failures": "Posts to the webhook that failed; they are tried again",
    "hook_questions": "Questions put to the hook",
    "hook_denials": "Questions that the hook answered by denying all or some of it",
    "hook_failures": "Questions that the hook did not answer as it should",
    "hook_seconds": "Time for which questions were under way",
    "jwks_refreshes": "How often another issuer's keys were read",
    "jwks_failures": "Readings of another issuer's keys that failed; the keys there are stay",
    "audit_failures": "Lines that could not be written to the audit log",
}
# What may be reached: the options whose names these are.
LIMITS = (
    *("max-connections", "max-connections-per-user", "max-connections-per-address"),
    *("head-timeout", "body-timeout", "max-head-size", "max-body-size", "max-frame-size"),
    *("max-queue-bytes", "max-subscriptions", "max-topics", "message-rate", "byte-rate"),
    *("client-timeout", "login-rate", "history-bytes", "webhook-queue-size"),
)
# What would otherwise end in _total twice over, or read badly with it.
_NAMES = {"total_connections": "connections"}


class Counters:
    """Plain numbers that the hot path increments; read when somebody asks.

    `active_connections` counts open WebSockets. `messages_received` counts Broadcast and
    DirectMessage commands accepted, `messages_sent` their deliveries, one a recipient.
    `errors` counts refused messages and internal failures.
    """

    __slots__ = (
        "active_connections",
        "audit_failures",
        "broker_failures",
        "broker_lag_seconds",
        "broker_losses",
        "broker_publications",
        "broker_reconnects",
        "broker_repairs",
        "broker_seconds",
        "closed_slow_consumers",
        "dropped_http_connections",
        "dropped_publications",
        "dropped_silent_connections",
        "errors",
        "event_loop_lag_seconds",
        "hook_denials",
        "hook_failures",
        "hook_questions",
        "hook_seconds",
        "jwks_failures",
        "jwks_keys",
        "jwks_refreshes",
        "limited",
        "limited_connections",
        "messages_received",
        "messages_sent",
        "refused_connections",
        "subscriptions",
        "total_connections",
        "webhook_dropped",
        "webhook_events",
        "webhook_failures",
        "webhook_queue",
    )

    def __init__(self) -> None:
        self.active_connections = 0
        self.total_connections = 0
        self.messages_sent = 0
        self.messages_received = 0
        self.errors = 0
        self.refused_connections = 0
        self.limited_connections = 0
        self.limited = dict.fromkeys(LIMITS, 0)
        self.closed_slow_consumers = 0
        self.dropped_publications = 0
        self.dropped_http_connections = 0
        self.dropped_silent_connections = 0
        self.subscriptions = 0
        self.event_loop_lag_seconds = 0.0
        self.broker_publications = 0
        self.broker_seconds = 0.0
        self.broker_failures = 0
        self.broker_reconnects = 0
        self.broker_repairs = 0
        self.broker_losses = 0
        self.broker_lag_seconds = 0.0
        self.webhook_queue = 0
        self.webhook_events = 0
        self.webhook_dropped = 0
        self.webhook_failures = 0
        self.hook_questions = 0
        self.hook_denials = 0
        self.hook_failures = 0
        self.hook_seconds = 0.0
        self.jwks_keys = 0
        self.jwks_refreshes = 0
        self.jwks_failures = 0
        self.audit_failures = 0

    def limit(self, name: str) -> None:
        """The limit that the option of this name sets has been reached."""
        self.limited[name] += 1

    def as_reference(self) -> dict[str, int]:
        """The five numbers of the reference's `/metrics` and `/info`."""
        return {
            "active_connections": self.active_connections,
            "total_connections": self.total_connections,
            "messages_sent": self.messages_sent,
            "messages_received": self.messages_received,
            "errors": self.errors,
        }

    def collect(self) -> Iterator[Metric]:
        """The counters as Prometheus has them: `realtime_*` (a registry's collector)."""
        yield InfoMetricFamily("realtime_server", "The server", {"version": __version__})
        for name, meaning in _GAUGES.items():
            yield GaugeMetricFamily(f"realtime_{name}", meaning, getattr(self, name))
        for name, meaning in _COUNTERS.items():
            shown = _NAMES.get(name, name)
            yield CounterMetricFamily(f"realtime_{shown}", meaning, getattr(self, name))
        limited = CounterMetricFamily(
            "realtime_limited", "How often limits were reached, by their options", labels=("limit",)
        )
        for name, times in self.limited.items():
            limited.add_metric((name,), times)
        yield limited


class Metrics:
    """The registry behind `/metrics`: the counters, the process and the garbage collector."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.registry = CollectorRegistry()
        self.registry.register(counters)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def exposition(self, media_type: str) -> tuple[str, bytes]:
        """The Content-Type and body of one of the two Prometheus formats."""
        if media_type == _OPENMETRICS:
            body: bytes = openmetrics.generate_latest(self.registry)
            return openmetrics.CONTENT_TYPE_LATEST, body
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)


def negotiate(accept: str | None) -> str:
    """The media type of `/metrics` that an `Accept` header likes best; JSON when in doubt."""
    # Versions and escapings are the scraper's to name and the answer's Content-Type to tell.
    try:
        ranges = parse_accept_header(accept or "*/*", MIMEAccept)
    except IndexError:  # of a parameter named `*`, before Werkzeug 3.1.9
        return JSON
    wanted = MIMEAccept(
        (media_range.partition(";")[0].strip(), quality) for media_range, quality in ranges
    )
    return wanted.best_match((JSON, _OPENMETRICS, _TEXT), JSON)
