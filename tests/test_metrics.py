"""Tests for `realtime.metrics`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.trial.unittest import SynchronousTestCase

from realtime import __version__
from realtime.metrics import LIMITS, Counters, Metrics, negotiate
from realtime.option_table import OPTIONS

OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain"
JSON = "application/json"


class CountersTests(SynchronousTestCase):
    """What is counted, in the reference's words."""

    def test_reference(self) -> None:
        """The reference's five numbers, in its order."""
        counters = Counters()
        counters.messages_sent = 7
        self.assertEqual(
            list(counters.as_reference().items()),
            [
                ("active_connections", 0),
                ("total_connections", 0),
                ("messages_sent", 7),
                ("messages_received", 0),
                ("errors", 0),
            ],
        )


GAUGES = (
    *("active_connections", "subscriptions", "event_loop_lag_seconds", "broker_lag_seconds"),
    *("jwks_keys", "webhook_queue"),
)


NUMBERS = [name for name in Counters.__slots__ if name != "limited"]


class MetricsTests(SynchronousTestCase):
    """The registry and its two text formats."""

    def setUp(self) -> None:
        """Give each counter a number of its own."""
        self.counters = Counters()
        for number, name in enumerate(NUMBERS, 10):
            setattr(self.counters, name, number)
        self.metrics = Metrics(self.counters)

    def samples(self, media_type: str) -> dict[str, float]:
        """The samples without labels that an exposition has."""
        content_type, body = self.metrics.exposition(media_type)
        self.assertTrue(content_type.startswith(media_type + ";"), content_type)
        parse = parse_openmetrics if media_type == OPENMETRICS else parse_text
        return {
            sample.name: sample.value
            for family in parse(body.decode())
            for sample in family.samples
            if not sample.labels
        }

    def test_every_counter_is_exposed(self) -> None:
        """Both formats have every counter under its realtime_ name."""
        for media_type in (TEXT, OPENMETRICS):
            samples = self.samples(media_type)
            for name in NUMBERS:
                shown = f"realtime_{name}"
                if name == "total_connections":
                    shown = "realtime_connections_total"
                elif name not in GAUGES:
                    shown += "_total"
                self.assertEqual(samples[shown], getattr(self.counters, name), shown)

    def test_limits(self) -> None:
        """Each limit is an option and a label; it counts by itself."""
        options = {option.name for option in OPTIONS}
        self.assertLessEqual(set(LIMITS), options)
        self.counters.limit("max-topics")
        _, body = self.metrics.exposition(TEXT)
        for name in LIMITS:
            times = float(name == "max-topics")
            self.assertIn(f'realtime_limited_total{{limit="{name}"}} {times}\n'.encode(), body)

    def test_numbers_are_live(self) -> None:
        """An exposition has the numbers of the moment it is asked for."""
        self.counters.active_connections = 4321
        self.assertEqual(self.samples(TEXT)["realtime_active_connections"], 4321)

    def test_version_and_process(self) -> None:
        """The server's version and the process's figures are there too."""
        _, body = self.metrics.exposition(TEXT)
        self.assertIn(f'realtime_server_info{{version="{__version__}"}} 1.0'.encode(), body)
        self.assertIn("process_resident_memory_bytes", self.samples(TEXT))
        self.assertIn(b"python_gc_collections_total", body)

    def test_registries_are_apart(self) -> None:
        """Two servers in one process do not share their numbers."""
        other = Metrics(Counters())
        _, body = other.exposition(TEXT)
        self.assertIn(b"realtime_active_connections 0.0", body)


class NegotiationTests(SynchronousTestCase):
    """Which format an Accept header asks for."""

    def test_choices(self) -> None:
        """JSON for curl and browsers, Prometheus formats for those who name them."""
        cases = {
            None: JSON,
            "": JSON,
            "*/*": JSON,
            "application/json": JSON,
            "application/json, text/plain, */*": JSON,
            "application/*": JSON,
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": JSON,
            "image/png": JSON,
            "text/plain": TEXT,
            "TEXT/Plain": TEXT,
            "text/*": TEXT,
            "text/plain;version=0.0.4;q=1,*/*;q=0.1": TEXT,
            "text/plain; charset=utf-8": TEXT,
            "text/plain;q=0.5, application/json;q=0.4": TEXT,
            "text/plain;q=0.4, application/json;q=0.5": JSON,
            "text/plain;q=0, */*": JSON,
            "application/json;q=0, */*": OPENMETRICS,
            "text/plain;q=0": JSON,
            "application/openmetrics-text": OPENMETRICS,
            "application/openmetrics-text;version=1.0.0;q=0.4,text/plain;q=0.8": TEXT,
            # What Prometheus 2 and 3 send.
            "application/openmetrics-text;version=1.0.0,"
            "application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1": OPENMETRICS,
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2": OPENMETRICS,
        }
        for accept, expected in cases.items():
            self.assertEqual(negotiate(accept), expected, accept)

    @given(st.text() | st.text(alphabet='tex/plain*;,q=01. "'))
    def test_any_header(self, accept: str) -> None:
        """Any text chooses one of the three."""
        self.assertIn(negotiate(accept), (JSON, TEXT, OPENMETRICS))
