"""Tests of realtime.outgoing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from realtime.errors import ConfigurationError
from realtime.metrics import Counters
from realtime.outgoing import QUEUE, Outgoing, make_outgoing
from realtime.settings import read_settings
from tests.support.identity import make_state_dir
from tests.support.receiver import SECRET, RealReceiver


class OutgoingTests(TestCase):
    """What the settings make of webhooks and hooks."""

    def make(self, secret: bytes = SECRET, **flags: Any) -> Outgoing:
        """Put together what some flags ask for."""
        self.state = Path(make_state_dir(self))
        key = self.state / "webhook.key"
        key.write_bytes(secret)
        key.chmod(0o600)
        flags = {name.replace("_", "-"): value for name, value in flags.items()}
        settings = read_settings({"webhook-secret-file": str(key), **flags}, {})
        self.counters = Counters()
        outgoing = make_outgoing(settings, self.state, self.counters, reactor)
        self.addCleanup(outgoing.stop, 1.0)
        return outgoing

    async def test_nothing(self) -> None:
        """Without options there is nothing, which opens and stops nevertheless."""
        outgoing = make_outgoing(read_settings({}, {}), Path("."), Counters(), reactor)
        self.assertEqual(outgoing, Outgoing())
        await outgoing.open()
        await outgoing.stop(1.0)

    def test_the_secret(self) -> None:
        """What is wrong with the secret's file is told with the option that names it."""
        self.make(webhook_url="https://a.example/")
        key = self.state / "webhook.key"
        key.chmod(0o644)
        settings = read_settings(
            {"webhook-secret-file": str(key), "webhook-url": "https://a.example/"}, {}
        )
        error = self.assertRaises(
            ConfigurationError, make_outgoing, settings, self.state, Counters(), reactor
        )
        self.assertTrue(str(error).startswith(f"--webhook-secret-file {key}: others can"))
        key.unlink()
        error = self.assertRaises(
            ConfigurationError, make_outgoing, settings, self.state, Counters(), reactor
        )
        self.assertTrue(str(error).startswith(f"--webhook-secret-file {key}: No such"))

    async def test_events(self) -> None:
        """Events reach --webhook-url; the disk is used where it is asked for."""
        receiver = RealReceiver(self)
        for queue in ("memory", "disk"):
            outgoing = self.make(webhook_url=receiver.url, webhook_queue=queue)
            await outgoing.open()
            assert outgoing.events is not None
            self.assertIsNone(outgoing.hooks)
            self.assertNotIn("publish", outgoing.events.wants)
            outgoing.events.occupied("a")
            self.assertEqual((self.state / QUEUE).exists(), queue == "disk")
            await outgoing.stop(10.0)
            self.assertEqual([e["event"] for e in receiver.posted[-1].events], ["occupied"])
            self.assertTrue(receiver.posted[-1].is_signed())

    async def test_hooks(self) -> None:
        """--hook-url is asked about what --hook names."""
        receiver = RealReceiver(self)
        receiver.always = (200, b'{"allow": true}')
        outgoing = self.make(hook_url=receiver.url, hook=["connect"], hook_failure="allow")
        await outgoing.open()
        assert outgoing.hooks is not None
        self.assertIsNone(outgoing.events)
        self.assertEqual(outgoing.hooks.wants, {"connect"})

    def test_bad_secret(self) -> None:
        """A secret that is too short is refused in one line."""
        url = "http://localhost/"
        error = self.assertRaises(ConfigurationError, self.make, b"short", webhook_url=url)
        self.assertIn("webhook.key", str(error))
