"""Tests of realtime.presence_memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from realtime.interfaces import Deadline, IPresence
from realtime.presence_memory import MemoryPresence
from realtime.wheel import TimerWheel
from tests.support.peers import START, identity_of
from tests.support.presence import GRACE, NOISY, PresenceContract, decoded


class MemoryPresenceTests(PresenceContract, TestCase):
    """Presence in memory, on a clock of its own."""

    async def make(self, grace: int = GRACE) -> IPresence:
        """See `PresenceContract`."""
        self.now = START
        self.wheel: TimerWheel[Deadline] = TimerWheel(int(START))
        self.messages: list[tuple[str, bytes]] = []
        presence = MemoryPresence(self.wheel, lambda: self.now, grace=grace)
        presence.start(lambda topic, message: self.messages.append((topic, message)))
        return presence

    async def announced(self) -> list[dict[str, Any]]:
        """See `PresenceContract`."""
        messages, self.messages[:] = self.messages[:], []
        return decoded(messages)

    async def pass_seconds(self, seconds: int) -> None:
        """See `PresenceContract`."""
        for _ in range(seconds):
            self.now += 1
            for item in self.wheel.advance(int(self.now)):
                item.on_deadline(int(self.now))

    async def test_nothing_is_left(self) -> None:
        """When all have left there is no trace, and no deadline."""
        presence: Any = await self.make()
        for number in range(3):
            presence.join("t", NOISY, f"c{number}", identity_of(f"u{number % 2}"))
        for number in range(3):
            presence.leave_all(f"c{number}")
        await self.pass_seconds(GRACE)
        self.assertEqual((presence._topics, presence._connections, len(self.wheel)), ({}, {}, 0))

    def test_before_start(self) -> None:
        """It has to be started."""
        presence = MemoryPresence(TimerWheel(0), lambda: START, grace=0)
        self.assertRaises(RuntimeError, presence.join, "t", NOISY, "c", identity_of())
