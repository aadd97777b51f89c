"""Tests for `realtime.bounds`: what the settings make of limits."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from realtime.bounds import client_policy, http_limits, websocket_options
from realtime.policy import ClientPolicy
from realtime.settings import read_settings


def policy(**flags: str) -> ClientPolicy:
    """The policy that options make."""
    settings = read_settings({name.replace("_", "-"): v for name, v in flags.items()}, {})

    def nobody(token: str) -> None:
        raise AssertionError(token)

    return client_policy(settings, nobody, None)  # type: ignore[arg-type]


class BoundsTests(SynchronousTestCase):
    """Options that do more than pass their value on."""

    def test_topics_of_a_command(self) -> None:
        """One command may name as many topics as one may subscribe to."""
        self.assertEqual(policy().max_topics, 2000)
        self.assertEqual(policy(max_topics="5", max_subscriptions="7").max_topics, 7)
        self.assertEqual(policy(max_topics="9", max_subscriptions="7").max_topics, 9)

    def test_no_byte_rate(self) -> None:
        """Zero is no limit."""
        self.assertEqual(policy(byte_rate="5").byte_rate, 5)
        self.assertEqual(policy(byte_rate="0").byte_rate, sys.maxsize)

    def test_handshakes_are_requests(self) -> None:
        """The limits of a request's head hold for WebSockets and for HTTP."""
        settings = read_settings({"head-timeout": "3", "max-head-size": "5000"}, {})
        http, websocket = http_limits(settings), websocket_options(settings)
        self.assertEqual((http.head, http.head_size), (3, 5000))
        self.assertEqual((websocket.head_timeout, websocket.max_head_size), (3, 5000))
