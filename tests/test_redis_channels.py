"""What is heard of Redis, against a model of what Redis does with the commands."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import Unavailable
from realtime.redis_channels import Channels

NAMES = st.sampled_from([b"a", b"b", b"c"])


class ChannelsMachine(RuleBasedStateMachine):
    """Turns, links and answers come in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Callable[[], None]] = []
        self.channels = Channels(self.later.append)
        self.link = False
        # Commands that Redis has not obeyed yet; what it has; what it pushed and we have not read.
        self.sent: list[tuple[bytes, bytes]] = []
        self.subscribed: set[bytes] = set()
        self.pushed: list[list[bytes]] = []
        self.wanted: set[bytes] = set()
        self.seen: list[bytes] = []
        self.confirmed: set[bytes] = set()

    def send(self, verb: bytes, *names: bytes) -> None:
        self.sent += [(verb, name) for name in names]

    @rule(name=NAMES)
    def add(self, name: bytes) -> None:
        """Hear a channel."""
        self.wanted.add(name)
        waiting = self.channels.add(name, lambda channel, message: self.seen.append(channel))
        if waiting is None:
            # What is said to be heard already is subscribed to, or will be unless the link goes.
            assert self.channels.hears(name)
        else:
            waiting.addErrback(lambda failure: failure.trap(Unavailable))

    @rule(name=NAMES)
    def remove(self, name: bytes) -> None:
        """Hear it no more."""
        self.wanted.discard(name)
        self.channels.remove(name)
        assert not self.channels.hears(name)

    @rule()
    def end_turn(self) -> None:
        """The reactor's turn ends."""
        later, self.later[:] = list(self.later), []
        for each in later:
            each()

    @rule()
    def attach(self) -> None:
        """A link is made."""
        if not self.link:
            self.link = True
            self.channels.attach(self.send)

    @rule()
    def detach(self) -> None:
        """The link is lost, with all that was on it."""
        if self.link:
            self.link = False
            self.channels.detach()
            self.sent.clear()
            self.pushed.clear()
            self.subscribed.clear()

    @rule()
    def obey(self) -> None:
        """Redis obeys a command."""
        if self.sent:
            verb, name = self.sent.pop(0)
            if verb == b"SUBSCRIBE":
                self.subscribed.add(name)
            else:
                self.subscribed.discard(name)
            self.pushed.append([verb.lower(), name, b"0"])

    @rule(name=NAMES)
    def publish(self, name: bytes) -> None:
        """Somebody publishes."""
        if name in self.subscribed:
            self.pushed.append([b"message", name, b"1"])

    @rule()
    def read(self) -> None:
        """A push arrives: the message of a channel that is heard is handled once, no other."""
        if self.pushed:
            push = self.pushed.pop(0)
            self.seen.clear()
            assert self.channels.take(push)
            if push[0] == b"message":
                assert self.seen == ([push[1]] if self.channels.hears(push[1]) else [])

    @invariant()
    def what_is_heard_is_subscribed(self) -> None:
        """A channel that is heard comes until something is changed that is still to be told."""
        for name in (b"a", b"b", b"c"):
            if self.channels.hears(name):
                assert self.link
                told = [verb for verb, each in self.sent if each == name]
                assert name in self.subscribed or told

    def teardown(self) -> None:
        """In the end what is wanted, and nothing else, is subscribed to and heard."""
        self.attach()
        self.end_turn()
        while self.sent:
            self.obey()
        while self.pushed:
            self.read()
        assert self.subscribed == self.wanted
        assert {name for name in (b"a", b"b", b"c") if self.channels.hears(name)} == self.wanted


class ChannelsStateTests(SynchronousTestCase):
    """The machine."""

    def test_machine(self) -> None:
        """In any order of turns, links and answers, what is wanted is heard."""
        run_state_machine_as_test(
            ChannelsMachine,
            settings=settings(max_examples=150, stateful_step_count=40),
        )


class ChannelsTests(SynchronousTestCase):
    """`Channels`, where the order is given."""

    def setUp(self) -> None:
        """Make what is attached to a link that keeps what is sent."""
        self.later: list[Callable[[], None]] = []
        self.sent: list[tuple[bytes, ...]] = []
        self.channels = Channels(self.later.append)

    def send(self, *command: bytes) -> None:
        self.sent.append(command)

    def end_turn(self) -> None:
        later, self.later[:] = list(self.later), []
        for each in later:
            each()

    def add(self, name: bytes, *, pattern: bool = False) -> Deferred[None]:
        waiting = self.channels.add(name, lambda channel, message: None, pattern=pattern)
        assert waiting is not None
        return waiting

    def test_many_in_one_command(self) -> None:
        """What a turn adds goes in few commands, and each waits for its own confirmation."""
        self.channels.attach(self.send)
        waiting = [self.add(b"%d" % number) for number in range(2500)]
        self.end_turn()
        self.assertEqual([len(command) for command in self.sent], [1001, 1001, 501])
        self.channels.take([b"subscribe", b"7", 1])
        self.assertEqual([n for n, each in enumerate(waiting) if each.called], [7])

    def test_nothing_waits_without_a_link(self) -> None:
        """Without a link a subscription fails at once, and holds when there is one."""
        failure = self.failureResultOf(self.add(b"a"), Unavailable)
        self.assertIsInstance(failure, Failure)
        self.channels.attach(self.send)
        self.assertEqual(self.sent, [(b"SUBSCRIBE", b"a")])
        self.channels.take([b"subscribe", b"a", 1])
        self.assertTrue(self.channels.hears(b"a"))

    def test_lost_while_waiting(self) -> None:
        """Who waits for a confirmation is told when the link goes, and when it is off."""
        self.channels.attach(self.send)
        first, second = self.add(b"a"), self.add(b"b")
        self.channels.remove(b"a")
        self.failureResultOf(first, Unavailable)
        self.end_turn()
        self.channels.detach()
        self.failureResultOf(second, Unavailable)

    def test_patterns(self) -> None:
        """A pattern's messages come with the channel they were published on."""
        seen: list[tuple[bytes, bytes]] = []
        self.channels.attach(self.send)
        self.channels.add(b"a*", lambda *message: seen.append(message), pattern=True)
        self.end_turn()
        self.assertEqual(self.sent, [(b"PSUBSCRIBE", b"a*")])
        self.assertTrue(self.channels.take([b"psubscribe", b"a*", 1]))
        self.assertTrue(self.channels.take([b"pmessage", b"a*", b"ab", b"1"]))
        self.assertEqual(seen, [(b"ab", b"1")])
        self.assertFalse(self.channels.hears(b"ab"))

    def test_refused(self) -> None:
        """What Redis refuses fails who waits for it, and may be asked for once more."""
        self.channels.attach(self.send)
        first = self.add(b"a")
        self.end_turn()
        second, pattern = self.add(b"b"), self.add(b"*", pattern=True)
        self.end_turn()
        self.assertTrue(self.channels.take([b"subscribe", b"a", 1]))
        self.successResultOf(first)
        self.assertTrue(self.channels.take([b"subscribe", b"b", 2]))
        self.successResultOf(second)
        self.assertTrue(self.channels.refused())
        self.failureResultOf(pattern, Unavailable)
        self.channels.remove(b"*", pattern=True)
        again = self.add(b"*", pattern=True)
        self.end_turn()
        self.assertEqual(self.sent[-1], (b"PSUBSCRIBE", b"*"))
        self.assertTrue(self.channels.take([b"psubscribe", b"*", 3]))
        self.successResultOf(again)
        self.assertFalse(self.channels.is_asking)

    def test_refused_what_was_heard(self) -> None:
        """A link on which Redis refuses what somebody hears already is of no use."""
        self.channels.attach(self.send)
        self.add(b"a")
        self.end_turn()
        self.channels.take([b"subscribe", b"a", 1])
        self.channels.detach()
        self.channels.attach(self.send)
        self.assertFalse(self.channels.refused())
        self.assertFalse(self.channels.hears(b"a"))

    def test_a_handler_that_raises(self) -> None:
        """A message that cannot be handled is logged; others are handled."""

        def handle(channel: bytes, message: bytes) -> None:
            raise ZeroDivisionError

        self.channels.attach(self.send)
        self.channels.add(b"a", handle)
        self.end_turn()
        self.channels.take([b"subscribe", b"a", 1])
        self.assertTrue(self.channels.take([b"message", b"a", b"1"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_replies_are_left(self) -> None:
        """What is no push is somebody's reply."""
        self.assertFalse(self.channels.take([b"pong", b""]))
