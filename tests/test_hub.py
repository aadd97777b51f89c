"""Tests of realtime.hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import ECONNRESET

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from realtime import fanout
from realtime import hub as hub_module
from realtime.envelope import encode_broadcast
from realtime.frames import text_frame
from realtime.hub import Hub
from realtime.metrics import Counters
from realtime.model import Identity, Piece, Publication
from realtime.topics import matches
from tests.support import strategies  # noqa: F401
from tests.support.peers import identity_of, read_frames

TOPICS = ["a", "b", "a.b"]
NAMES = [*TOPICS, "*", "a.>"]


class Turn:
    """The end of a reactor's turn: `call_soon` for a hub."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        """See `Hub`."""
        self.soon.append(function)

    def end(self) -> None:
        """Run what was asked for in this turn."""
        soon, self.soon = self.soon, []
        for function in soon:
            function()

    def settle(self) -> int:
        """Run turns until nothing is asked for; answer how many."""
        turns = 0
        while self.soon:
            self.end()
            turns += 1
        return turns


class Socket:
    """A subscriber whose socket takes so many bytes, with a transport that holds back the rest.

    It behaves as a TCP transport does: while something is held back all is queued behind it,
    and when more than `limit` bytes are, the connection is ended.
    """

    def __init__(self, hub: Hub[Socket], number: int, identity: Identity) -> None:
        self.hub = hub
        self.number = number
        self.identity = identity
        self.topics: dict[str, None] = {}
        self.send: Callable[[bytes], int] = self._send
        self.writes: list[bytes] = []
        self.held = b""
        self.room = 1 << 30
        self.limit = 1 << 30
        self.dead = False
        self.ended = False

    @property
    def connection_id(self) -> str:
        """See `Subscriber`."""
        return f"node-{self.number:x}"

    @property
    def read(self) -> bytes:
        """All that the other side has got."""
        return b"".join(self.writes)

    def _send(self, data: bytes) -> int:
        assert data, "an empty write"
        if self.dead:
            raise ConnectionResetError(ECONNRESET, "reset")
        if self.held:
            if len(self.held) + len(data) > self.limit:
                return -1
            self.held += data
            return len(data)
        if self.room == 0:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.writes.append(taken)
        return len(taken)

    def unsent(self, data: bytes, sent: int, pieces: Sequence[Piece] = ()) -> None:
        """Hold back the rest, or end."""
        assert sent < len(data)
        assert not self.ended, "written to after the end"
        if self.dead or sent < 0:
            self.end()
        else:
            self.held += data[sent:]

    def drain(self, room: int) -> None:
        """The other side reads: `room` bytes more have a place."""
        self.room += room
        taken, self.held = self.held[: self.room], self.held[self.room :]
        if taken:
            self.room -= len(taken)
            self.writes.append(taken)

    def end(self) -> list[str]:
        """End the connection: nothing more is taken, and nothing refused."""
        self.ended = True
        self.send = len
        return self.hub.remove(self)


class Producer:
    """A publisher's transport."""

    def __init__(self) -> None:
        self.paused = False
        self.pauses = 0

    def hold(self) -> None:
        """See `Holdable`."""
        assert not self.paused, "paused twice"
        self.paused = True
        self.pauses += 1

    def release(self) -> None:
        """See `Holdable`."""
        assert self.paused
        self.paused = False


class Model:
    """What a subscriber is owed: messages in order, replies in order."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.replies: list[bytes] = []


def publication(topic: str, number: int, size: int = 0, exclude: str | None = None) -> Publication:
    """Make a publication that no other equals."""
    return Publication(topic, b'"%d%b"' % (number, b"x" * size), "u", number, None, exclude)


class HubMachine(RuleBasedStateMachine):
    """A hub with sockets of every kind, beside what each is owed."""

    subscribers = Bundle("subscribers")

    def __init__(self) -> None:
        super().__init__()
        self.counters = Counters()
        self.turn = Turn()
        self.hub: Hub[Socket] = Hub(self.counters, self.turn.call_soon)
        self.owed: dict[Socket, Model] = {}
        self.members: dict[str, list[Socket]] = {name: [] for name in NAMES}
        self.producer = Producer()
        self.number = 0
        self.delivered = 0

    @initialize(
        slice=st.sampled_from([1, 2, 3, 1000]),
        merge=st.sampled_from([1, 150, 64 * 1024]),
        high=st.sampled_from([1, 10, 1 << 20]),
        routed=st.sampled_from([0, 2, 1000]),
    )
    def constants(self, slice: int, merge: int, high: int, routed: int) -> None:
        """Draw the hub's constants; the test puts them back."""
        fanout.SLICE = slice
        fanout.MERGE = merge
        fanout.Fanout.high_water = high
        hub_module.MAX_ROUTED = routed

    def next(self) -> int:
        """A number not used before."""
        self.number += 1
        return self.number

    def forget_ended(self) -> None:
        """Drop from the model what has ended in the hub's writing."""
        for members in self.members.values():
            members[:] = [socket for socket in members if not socket.ended]

    @rule(
        target=subscribers,
        user=st.sampled_from(["u1", "u2", "u3"]),
        named=st.booleans(),
        room=st.sampled_from([0, 7, 90, 1 << 30]),
        limit=st.sampled_from([100, 1 << 30]),
    )
    def add(self, user: str, named: bool, room: int, limit: int) -> Socket:
        """Connect somebody."""
        identity = identity_of(user, username=f"name of {user}" if named else None)
        socket = Socket(self.hub, self.next(), identity)
        socket.room = room
        socket.limit = limit
        self.hub.add(socket)
        self.owed[socket] = Model()
        return socket

    @rule(socket=subscribers, topic=st.sampled_from(NAMES))
    def subscribe(self, socket: Socket, topic: str) -> None:
        """Subscribe, perhaps again."""
        if socket.ended:
            return
        members = self.members[topic]
        assert self.hub.subscribe(socket, topic) == (not members)
        if socket not in members:
            members.append(socket)

    @rule(socket=subscribers, topic=st.sampled_from(NAMES))
    def unsubscribe(self, socket: Socket, topic: str) -> None:
        """Unsubscribe, perhaps from what is not subscribed."""
        if socket.ended:
            return
        members = self.members[topic]
        assert self.hub.unsubscribe(socket, topic) == (members == [socket])
        if socket in members:
            members.remove(socket)

    def owed_of(self, topic: str) -> dict[Socket, Model]:
        """What each is owed who has subscribed to a topic, by name or patterns."""
        names = [name for name in NAMES if matches(name, topic)]
        return {socket: self.owed[socket] for name in names for socket in self.members[name]}

    @rule(
        topic=st.sampled_from(TOPICS),
        size=st.integers(0, 80),
        times=st.integers(1, 4),
        excluded=st.none() | subscribers,
    )
    def deliver(self, topic: str, size: int, times: int, excluded: Socket | None) -> None:
        """Publish, some messages in a row, to all or to all but one."""
        exclude = None if excluded is None else excluded.connection_id
        for _ in range(times):
            message = publication(topic, self.next(), size, exclude)
            self.hub.deliver(message)
            for socket, owed in self.owed_of(topic).items():
                if socket is not excluded:
                    owed.messages.append(encode_broadcast(message))
                    self.delivered += 1
        self.hold()

    @rule(topic=st.sampled_from(TOPICS))
    def announce(self, topic: str) -> None:
        """Tell a topic's subscribers something."""
        message = b'"announced: %d"' % self.next()
        self.hub.announce(topic, message)
        for owed in self.owed_of(topic).values():
            owed.messages.append(message)
        self.hold()

    @rule(sockets=st.lists(subscribers, max_size=3))
    def deliver_to(self, sockets: list[Socket]) -> None:
        """Send messages to some connections, each once."""
        messages = [b'"to some: %d"' % self.next() for _ in sockets]
        live = [socket for socket in sockets if not socket.ended]
        self.hub.deliver_to(live, *messages)
        for socket in set(live):
            self.owed[socket].messages += messages
        self.hold()

    @rule(socket=subscribers)
    def reply(self, socket: Socket) -> None:
        """Answer a connection."""
        message = b'"reply %d"' % self.next()
        if not socket.ended:
            self.owed[socket].replies.append(message)
        self.hub.reply(socket, message)
        self.forget_ended()

    def hold(self) -> None:
        """Hold the publisher where the hub asks for it, as the edges do."""
        if self.hub.congested:
            self.hub.hold(self.producer)

    @rule(socket=consumes(subscribers))
    def remove(self, socket: Socket) -> None:
        """Disconnect somebody, perhaps one who has ended already."""
        vacated = {name for name in NAMES if self.members[name] == [socket]}
        assert set(socket.end()) == vacated
        self.forget_ended()

    @rule(socket=subscribers)
    def die(self, socket: Socket) -> None:
        """Break a connection: the next write tells."""
        socket.dead = True
        socket.held = b""

    @rule(socket=subscribers, room=st.sampled_from([1, 50, 1 << 30]))
    def drain(self, socket: Socket, room: int) -> None:
        """Read a little, or all."""
        socket.drain(room)

    @rule()
    def end_turn(self) -> None:
        """End the turn."""
        self.turn.end()
        self.forget_ended()

    @rule()
    def flush(self) -> None:
        """Write all at once."""
        self.hub.flush()
        self.forget_ended()
        assert self.hub._queued == 0

    @invariant()
    def counts(self) -> None:
        """Subscriptions, deliveries and connections are counted as they are."""
        assert self.counters.subscriptions == sum(map(len, self.members.values()))
        assert self.counters.messages_sent == self.delivered
        assert self.hub.topics() == [topic for topic in self.hub.topics() if topic in TOPICS]
        for topic in TOPICS:
            assert self.hub.subscribers(topic) == len(self.members[topic])
            assert (topic in self.hub.topics()) == (self.members[topic] != [])
            assert self.hub.has(topic) == (self.members[topic] != [])
        live = [socket for socket in self.owed if not socket.ended]
        assert self.hub.connections() == live
        assert len(self.hub) == len(live)

    @invariant()
    def users(self) -> None:
        """Users are found by id and by name while they are connected."""
        for user in ("u1", "u2", "u3"):
            live = [
                socket
                for socket in self.owed
                if not socket.ended and socket.identity.user_id == user
            ]
            assert self.hub.connections_of(user) == live
            named = any(socket.identity.username for socket in live)
            assert self.hub.connections_of(f"name of {user}") == (live if named else [])

    @invariant()
    def work_is_in_hand(self) -> None:
        """Whatever is queued or held has a turn to come."""
        if self.hub._queue or self.hub._replies or self.hub.congested or self.producer.paused:
            assert self.turn.soon
        assert not self.producer.paused or self.hub.congested

    @invariant()
    def nothing_else_is_sent(self) -> None:
        """At any time a subscriber has got a beginning of what it is owed."""
        for socket, owed in self.owed.items():
            got = read_frames(socket.read)[0]
            replies = [message for message in got if message.startswith(b'"reply')]
            messages = [message for message in got if not message.startswith(b'"reply')]
            assert messages == owed.messages[: len(messages)]
            assert replies == owed.replies[: len(replies)]

    def teardown(self) -> None:
        """At the end, each that is connected has got all, and nothing is left behind."""
        self.turn.settle()
        self.forget_ended()
        assert not self.hub.congested
        assert not self.producer.paused
        assert self.hub._queued == 0
        for socket, owed in self.owed.items():
            if socket.ended or socket.dead:
                continue
            socket.drain(1 << 30)
            got, rest = read_frames(socket.read)
            assert rest == b""
            assert len(got) == len(owed.messages) + len(owed.replies)
        self.nothing_else_is_sent()
        for socket in self.owed:
            socket.end()
        self.forget_ended()
        self.counts()
        for index in ("_topics", "_users", "_usernames", "_connections", "_replies", "_held"):
            assert not getattr(self.hub, index), index


class HubStateTests(SynchronousTestCase):
    """Everything at once."""

    def test_everyone_gets_what_they_are_owed(self) -> None:
        """Whatever happens in whatever order: each gets its messages once, in order, no others."""
        for name in ("SLICE", "MERGE"):
            self.patch(fanout, name, getattr(fanout, name))
        self.patch(fanout.Fanout, "high_water", fanout.Fanout.high_water)
        self.patch(hub_module, "MAX_ROUTED", hub_module.MAX_ROUTED)
        run_state_machine_as_test(
            HubMachine, settings=settings(max_examples=200, stateful_step_count=40)
        )


class HubTestCase(SynchronousTestCase):
    """A hub with a turn of its own."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.turn = Turn()
        self.hub: Hub[Socket] = Hub(self.counters, self.turn.call_soon)

    def socket(self, user: str = "u", *topics: str, username: str | None = None) -> Socket:
        """Connect a user and subscribe."""
        number = len(self.hub) + 1
        socket = Socket(self.hub, number, identity_of(user, username=username))
        self.hub.add(socket)
        for topic in topics:
            self.hub.subscribe(socket, topic)
        return socket

    def frames(self, *publications: Publication) -> bytes:
        """What a subscriber gets for publications."""
        return b"".join(text_frame(encode_broadcast(each)) for each in publications)


class WritingTests(HubTestCase):
    """How writes are merged, sliced and ordered."""

    def test_one_write_a_turn(self) -> None:
        """What a turn publishes on a topic goes to each subscriber in one write, at its end."""
        sockets = [self.socket("u", "a") for _ in range(3)]
        sent = [publication("a", number) for number in range(5)]
        for each in sent:
            self.hub.deliver(each)
        self.assertEqual([socket.writes for socket in sockets], [[], [], []])
        self.assertEqual(len(self.turn.soon), 1)
        self.turn.end()
        self.assertEqual([socket.writes for socket in sockets], [[self.frames(*sent)]] * 3)
        self.assertEqual(self.turn.soon, [])

    def test_without_subscribers_nothing_is_done(self) -> None:
        """A publication that nobody wants costs no turn, nor does a message to nobody."""
        self.hub.deliver(publication("a", 1))
        self.hub.deliver_to([], b"1")
        self.assertEqual(self.turn.soon, [])
        self.assertEqual(self.counters.messages_sent, 0)

    def test_topics_in_turns_keep_their_order(self) -> None:
        """Only neighbours are merged: the order of acceptance holds across topics."""
        socket = self.socket("u", "a", "b")
        sent = [publication(topic, number) for number, topic in enumerate("aabab")]
        for each in sent:
            self.hub.deliver(each)
        self.turn.end()
        self.assertEqual(socket.read, self.frames(*sent))
        self.assertEqual(len(socket.writes), 4)

    def test_merge_is_bounded(self) -> None:
        """A write holds no more than MERGE bytes and the frame that exceeds them."""
        self.patch(fanout, "MERGE", 1000)
        socket = self.socket("u", "a")
        sent = [publication("a", number, 300) for number in range(21)]
        for each in sent:
            self.hub.deliver(each)
        self.turn.settle()
        self.assertEqual(socket.read, self.frames(*sent))
        self.assertTrue(all(1000 <= len(write) < 1400 for write in socket.writes))

    def test_slices(self) -> None:
        """A turn makes at most SLICE writes; the next goes on where it stopped."""
        self.patch(fanout, "SLICE", 10)
        sockets = [self.socket("u", "a") for _ in range(25)]
        self.hub.deliver(publication("a", 1))
        written = []
        while self.turn.soon:
            self.turn.end()
            written.append(sum(len(socket.writes) for socket in sockets))
        self.assertEqual(written, [10, 20, 25])

    def test_slices_of_large_messages(self) -> None:
        """A large message counts as several writes, so that its turn takes no longer."""
        self.patch(fanout, "SLICE", 10)
        sockets = [self.socket("u", "a") for _ in range(8)]
        self.hub.deliver(publication("a", 1, size=3 * fanout.PIECE))
        written = []
        while self.turn.soon:
            self.turn.end()
            written.append(sum(len(socket.writes) for socket in sockets))
        self.assertEqual(written, [3, 6, 8])

    def test_slices_count_small_topics_together(self) -> None:
        """Many topics of few subscribers are bounded as one topic of many is."""
        self.patch(fanout, "SLICE", 10)
        sockets = [self.socket("u", f"t{number}") for number in range(30)]
        for number in range(30):
            self.hub.deliver(publication(f"t{number}", number))
        self.turn.end()
        self.assertEqual(sum(len(socket.writes) for socket in sockets), 10)
        self.turn.settle()
        self.assertEqual([len(socket.writes) for socket in sockets], [1] * 30)

    def test_change_between_slices(self) -> None:
        """Who leaves or comes while a write is under way changes nothing of that write."""
        self.patch(fanout, "SLICE", 2)
        sockets = [self.socket("u", "a") for _ in range(6)]
        first, second = publication("a", 1), publication("a", 2)
        self.hub.deliver(first)
        self.turn.end()
        self.hub.unsubscribe(sockets[5], "a")
        late = self.socket("u", "a")
        self.hub.deliver(second)
        self.turn.settle()
        self.assertEqual(sockets[5].read, self.frames(first))
        self.assertEqual(late.read, self.frames(second))
        self.assertEqual([socket.read for socket in sockets[:5]], [self.frames(first, second)] * 5)

    def test_subscribing_takes_effect_at_once(self) -> None:
        """In one turn, what is accepted before a subscription is not delivered, what after is."""
        steady = self.socket("u", "a")
        socket = self.socket()
        sent = [publication("a", number) for number in range(4)]
        self.hub.deliver(sent[0])
        self.hub.subscribe(socket, "a")
        self.hub.deliver(sent[1])
        self.hub.unsubscribe(socket, "a")
        self.hub.deliver(sent[2])
        self.hub.subscribe(socket, "a")
        self.hub.deliver(sent[3])
        self.turn.end()
        self.assertEqual(socket.read, self.frames(sent[1], sent[3]))
        self.assertEqual(steady.read, self.frames(*sent))

    def test_reply_at_once(self) -> None:
        """With nothing under way, a reply is written before `reply` returns."""
        socket = self.socket()
        self.hub.reply(socket, b"1")
        self.assertEqual(socket.writes, [text_frame(b"1")])
        self.assertEqual(self.turn.soon, [])

    def test_greeting(self) -> None:
        """A greeting is written at once, before what the turn has for the connection already."""
        socket = self.socket()
        self.hub.deliver_to([socket], b"1")
        self.hub.reply(socket, b"2")
        self.hub.greet(socket, b"0")
        self.turn.settle()
        self.assertEqual(read_frames(socket.read)[0], [b"0", b"1", b"2"])

    def test_replies_follow_the_turns_messages(self) -> None:
        """With messages queued, all replies of the turn follow them in one write."""
        socket = self.socket("u", "a")
        sent = publication("a", 1)
        self.hub.deliver(sent)
        self.hub.reply(socket, b"1")
        self.hub.reply(socket, b"2")
        self.assertEqual(socket.writes, [])
        self.turn.end()
        self.assertEqual(socket.writes, [self.frames(sent), text_frame(b"1") + text_frame(b"2")])

    def test_partial_sends(self) -> None:
        """What a socket does not take is handed over once, exactly the rest."""
        full, slow, quick = (self.socket("u", "a") for _ in range(3))
        full.room, slow.room = 0, 5
        sent = [publication("a", number) for number in range(3)]
        for each in sent:
            self.hub.deliver(each)
            self.turn.end()
        for socket in (full, slow):
            socket.drain(1 << 30)
        self.assertEqual([socket.read for socket in (full, slow, quick)], [self.frames(*sent)] * 3)

    def test_dead_sockets_leave(self) -> None:
        """Sockets that are gone are left out, in the middle of a write, and others get theirs."""
        sockets = [self.socket("u", "a") for _ in range(4)]
        sockets[0].dead = sockets[2].dead = True
        sent = publication("a", 1)
        self.hub.deliver(sent)
        self.turn.end()
        self.assertEqual(self.hub.connections(), [sockets[1], sockets[3]])
        self.assertEqual([sockets[1].read, sockets[3].read], [self.frames(sent)] * 2)
        self.assertEqual(self.counters.subscriptions, 2)

    def test_flush(self) -> None:
        """A flush writes everything at once, however many slices that is, and replies too."""
        self.patch(fanout, "SLICE", 2)
        sockets = [self.socket("u", "a") for _ in range(7)]
        sent = [publication("a", 1), publication("a", 2)]
        self.hub.deliver(sent[0])
        self.turn.end()
        self.hub.deliver(sent[1])
        self.hub.reply(sockets[0], b"1")
        self.hub.flush()
        self.assertEqual([socket.read for socket in sockets[1:]], [self.frames(*sent)] * 6)
        self.assertEqual(len(read_frames(sockets[0].read)[0]), 3)
        self.turn.settle()
        self.assertEqual(len(read_frames(sockets[0].read)[0]), 3)

    def test_flush_writes_late_replies(self) -> None:
        """A reply after a flush of the same turn is written by the next flush."""
        socket = self.socket("u", "a")
        self.hub.deliver(publication("a", 1))
        self.hub.flush()
        self.hub.reply(socket, b"1")
        self.hub.flush()
        self.assertEqual(socket.writes[1:], [text_frame(b"1")])

    def test_replies_do_not_wait_for_a_backlog(self) -> None:
        """A reply is written in its turn, though the turn's messages take more of them."""
        self.patch(fanout, "SLICE", 2)
        sockets = [self.socket("u", "a") for _ in range(7)]
        self.hub.deliver(publication("a", 1))
        self.hub.reply(sockets[6], b"1")
        self.turn.end()
        self.assertEqual(sockets[6].writes, [text_frame(b"1")])

    def test_members_are_copied_once(self) -> None:
        """Many changes of a topic cost one copy of it while a message is queued, else none."""
        for _ in range(3):
            self.socket("u", "a")
        members = self.hub._topics["a"].members
        self.socket("u", "a")
        self.assertIs(self.hub._topics["a"].members, members)
        self.hub.deliver(publication("a", 1))
        self.socket("u", "a")
        copied = self.hub._topics["a"].members
        self.assertIsNot(copied, members)
        self.socket("u", "a")
        self.assertIs(self.hub._topics["a"].members, copied)
        self.hub.deliver(publication("a", 2))
        self.turn.settle()
        self.socket("u", "a")
        self.assertIs(self.hub._topics["a"].members, copied)

    def test_deliveries_are_counted_per_recipient(self) -> None:
        """Each delivery counts one for each subscriber."""
        for _ in range(3):
            self.socket("u", "a")
        self.hub.deliver(publication("a", 1))
        self.hub.deliver(publication("b", 2))
        self.assertEqual(self.counters.messages_sent, 3)


class CongestionTests(HubTestCase):
    """Holding publishers while much is queued."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(fanout, "SLICE", 1)
        self.patch(fanout.Fanout, "high_water", 10)
        self.patch(fanout, "MERGE", 1)

    def test_hold_and_resume(self) -> None:
        """Above the high mark publishers are held, once each; below the low one they go on."""
        self.socket("u", "a")
        accepted = 0
        while not self.hub.congested:
            accepted += 1
            self.hub.deliver(publication("a", 10))
        self.assertEqual(accepted, 11)
        producers = [Producer(), Producer()]
        for producer in producers * 2:
            self.hub.hold(producer)
        self.assertTrue(all(producer.paused for producer in producers))
        left = accepted
        while self.hub.congested:
            self.assertTrue(all(producer.paused for producer in producers))
            self.turn.end()
            left -= 1
        self.assertEqual(left, 5)
        self.assertEqual([producer.paused for producer in producers], [False, False])
        self.turn.settle()
        self.assertEqual([producer.pauses for producer in producers], [1, 1])

    def test_many_subscribers(self) -> None:
        """What goes to many, or is large, holds publishers sooner, as it takes longer to write."""
        for _ in range(4):
            self.socket("u", "a")
        self.hub.deliver(publication("a", 1))
        self.assertFalse(self.hub.congested)
        self.hub.deliver(publication("a", 2, size=2 * fanout.PIECE))
        self.assertTrue(self.hub.congested)

    def test_flush_relieves(self) -> None:
        """After a flush the publishers go on in the turn that follows."""
        socket = self.socket("u", "a")
        for number in range(30):
            self.hub.deliver(publication("a", number))
        producer = Producer()
        self.hub.hold(producer)
        self.hub.flush()
        self.assertEqual(len(read_frames(socket.read)[0]), 30)
        self.turn.end()
        self.assertFalse(producer.paused)
        self.assertFalse(self.hub.congested)

    def test_congestion_comes_again(self) -> None:
        """A publisher that was held and let go can be held again."""
        self.socket("u", "a")
        producer = Producer()
        for _ in range(3):
            while not self.hub.congested:
                self.hub.deliver(publication("a", 1))
            self.hub.hold(producer)
            self.turn.settle()
        self.assertEqual((producer.pauses, producer.paused), (3, False))


class ConnectionTests(HubTestCase):
    """Who is connected."""

    def test_by_number(self) -> None:
        """A connection is found by its number while it is connected."""
        socket = self.socket()
        self.assertIs(self.hub.connection(socket.connection_id), socket)
        socket.end()
        self.assertIsNone(self.hub.connection(socket.connection_id))
        for other in ("", "node", "node-", "node-xyz", "other-1", "node-999", "-"):
            self.assertIsNone(self.hub.connection(other))

    def test_id_before_username(self) -> None:
        """A user's id is looked for first; a username that equals it does not divert messages."""
        owner = self.socket("u1")
        impostor = self.socket("u2", username="u1")
        self.assertEqual(self.hub.connections_of("u1"), [owner])
        self.assertEqual(self.hub.connections_of("u2"), [impostor])

    def test_username_finds_all_connections_of_the_user(self) -> None:
        """A username stands for its user: connections without the name are found too."""
        named, plain = self.socket("u1", username="alice"), self.socket("u1")
        self.assertEqual(self.hub.connections_of("alice"), [named, plain])
        named.end()
        self.assertEqual(self.hub.connections_of("alice"), [])
        self.assertEqual(self.hub.connections_of("u1"), [plain])

    def test_username_is_there_until_its_last_connection(self) -> None:
        """A user with several connections is found by name until the last has left."""
        first, second = (self.socket("u1", username="alice") for _ in range(2))
        first.end()
        self.assertEqual(self.hub.connections_of("alice"), [second])
        second.end()
        self.assertEqual(self.hub.connections_of("alice"), [])

    def test_one_name_two_users(self) -> None:
        """Of two users with one name, whoever came first has it until they leave."""
        first = self.socket("u1", username="alice")
        self.socket("u2", username="alice").end()
        self.assertEqual(self.hub.connections_of("alice"), [first])
        second = self.socket("u2", username="alice")
        first.end()
        second.end()
        third = self.socket("u2", username="alice")
        self.assertEqual(self.hub.connections_of("alice"), [third])

    def test_username_like_the_id(self) -> None:
        """A user whose name is the id is found, and leaves nothing behind."""
        socket = self.socket("u1", username="u1")
        self.assertEqual(self.hub.connections_of("u1"), [socket])
        socket.end()
        self.assertEqual(self.hub.connections_of("u1"), [])

    def test_remove_answers_what_is_vacated(self) -> None:
        """Removing answers the topics left without subscribers, once."""
        leaving = self.socket("u", "a", "b", "c")
        self.socket("u", "b")
        self.assertEqual(sorted(leaving.end()), ["a", "c"])
        self.assertEqual(leaving.topics, {})
        self.assertEqual(self.hub.remove(leaving), [])
        self.assertEqual(len(self.hub.topics()), 1)

    def test_replies_of_the_removed_are_dropped(self) -> None:
        """What was to be answered to a connection that leaves in the same turn is forgotten."""
        other, leaving = self.socket("u", "a"), self.socket("u", "a")
        self.hub.deliver(publication("a", 1))
        self.hub.reply(leaving, b"1")
        leaving.end()
        self.turn.settle()
        self.assertEqual(leaving.read, b"")
        self.assertNotEqual(other.read, b"")
