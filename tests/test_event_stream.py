"""Tests of realtime.event_stream."""

from __future__ import annotations

import json
from string import ascii_letters

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.envelope import encode_broadcast, encode_message
from realtime.errors import InvalidRequest
from realtime.event_stream import (
    MAX_ID,
    MAX_TOPIC_BYTES,
    MAX_TOPICS,
    Positions,
    close_event,
    decode_id,
    encode_id,
    event,
)
from realtime.model import Position, Publication
from tests.support.streams import Event, read_events

POSITIONS = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.builds(Position, st.integers(0, 2**62), st.text(ascii_letters, max_size=40)),
    max_size=5,
)


def broadcast(topic: str, position: Position | None = None, payload: bytes = b"1") -> bytes:
    """A publication as subscribers get it."""
    return encode_broadcast(Publication(topic, payload, "u", 1, position))


class EventsTests(SynchronousTestCase):
    """What is written."""

    def test_event(self) -> None:
        """A message is one event, with an id where it has one."""
        self.assertEqual(event(b'{"a":1}'), b'data: {"a":1}\n\n')
        self.assertEqual(event(b"{}", b"x"), b"id: x\ndata: {}\n\n")

    @given(st.text("\r\n ", max_size=4), st.text("\r\n ", max_size=4))
    def test_line_ends(self, one: str, two: str) -> None:
        """Line ends between JSON's tokens end no event."""
        message = f'{{{one}"a":{two}[1]{one}}}'
        events, rest = read_events(event(message.encode()))
        self.assertEqual(([json.loads(each.data) for each in events], rest), ([{"a": [1]}], b""))

    def test_close(self) -> None:
        """The end is an event of its own name."""
        events, _ = read_events(close_event(4500, "ended"))
        self.assertEqual(events, [Event('{"code":4500,"reason":"ended"}', "close")])


class IdTests(SynchronousTestCase):
    """Ids of events."""

    @given(POSITIONS)
    def test_round_trip(self, positions: dict[str, Position]) -> None:
        """What an id holds is read again, and it fits a header."""
        id = encode_id(positions)
        self.assertRegex(id.decode("ascii"), r"^[\w-]*$")
        self.assertEqual(decode_id(id.decode("ascii")), positions)

    def test_the_largest(self) -> None:
        """As many topics as a URL may name, as long as they may be, have an id that is taken."""
        size = MAX_TOPIC_BYTES // MAX_TOPICS
        topics = [f"{number:02}".ljust(size, "x") for number in range(MAX_TOPICS)]
        id = encode_id({topic: Position(2**62, "e" * 40) for topic in topics})
        self.assertLess(len(id), MAX_ID)
        self.assertEqual(set(decode_id(id.decode())), set(topics))

    @given(st.one_of(st.text(), st.text(ascii_letters + "-_")))
    def test_anything(self, text: str) -> None:
        """Anything is positions, or refused as no id."""
        try:
            for position in decode_id(text).values():
                self.assertGreaterEqual(position.offset, 0)
        except InvalidRequest as error:
            self.assertEqual(error.details, {"field": "Last-Event-ID"})

    def test_too_long(self) -> None:
        """More than an id can be is not looked into."""
        self.assertRaises(InvalidRequest, decode_id, "A" * (MAX_ID + 1))


class PositionsTests(SynchronousTestCase):
    """How far a stream has come."""

    def note(self, positions: Positions, message: bytes) -> dict[str, Position] | None:
        """What the id of a message's event says."""
        id = positions.note(message)
        return None if id is None else decode_id(id.decode())

    def test_publications(self) -> None:
        """A publication on a topic of the URL moves its position, and no other's."""
        positions = Positions(["a", "b"], {"b": Position(5, "y"), "foreign": Position(1, "z")})
        moved = self.note(positions, broadcast("a", Position(3, "x")))
        self.assertEqual(moved, {"a": Position(3, "x"), "b": Position(5, "y")})
        for topic, position in (("c", Position(1, "x")), ("a", None)):
            self.assertIsNone(self.note(positions, broadcast(topic, position)))
        self.assertEqual(positions.known["a"], Position(3, "x"))

    def test_subscribed(self) -> None:
        """Where subscriptions begin is a position too; other messages tell none."""
        positions = Positions(["a", "b", "c"], {})
        topics = [{"topic": "a", "offset": 7, "epoch": "x"}, {"topic": "b"}]
        status = encode_message("Status", {"status": "subscribed", "topics": topics}, 1)
        self.assertEqual(self.note(positions, status), {"a": Position(7, "x")})
        others = [
            encode_message("Status", {"status": "unsubscribed", "topics": ["a"]}, 1),
            encode_message("Status", {"status": "gap", "topics": ["a"]}, 1),
            encode_message("History", {"topic": "a", "offset": 9, "epoch": "x"}, 1),
            encode_message("Ack", {"topic": "a", "offset": 9, "epoch": "x"}, 1, "id"),
            encode_message("DirectMessage", {"from_user": "u", "payload": {"topic": "a"}}, 1),
        ]
        for message in others:
            self.assertIsNone(self.note(positions, message))

    def test_no_topics(self) -> None:
        """A stream whose URL names no topic has no ids."""
        self.assertIsNone(self.note(Positions([], {}), broadcast("a", Position(1, "x"))))

    def test_payload_is_not_looked_into(self) -> None:
        """What a payload says is no position."""
        payload = b'{"topic":"b","offset":9,"epoch":"z"}'
        positions = Positions(["a", "b"], {})
        self.assertIsNone(self.note(positions, broadcast("a", None, payload)))
        deep = b"[" * 900 + b"]" * 900
        positions.note(broadcast("a", Position(1, "x"), deep))
