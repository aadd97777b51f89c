"""Tests of realtime.envelope."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.envelope import (
    COMMANDS,
    Authenticate,
    BadCommand,
    Broadcast,
    Command,
    DirectMessage,
    History,
    Ping,
    Presence,
    Subscribe,
    Unsubscribe,
    decode_command,
    decode_json,
    encode_broadcast,
    encode_direct_message,
    encode_error_body,
    encode_json,
    encode_message,
    error_object,
    read_id,
)
from realtime.errors import ErrorCode, InvalidRequest, RateLimited, RealtimeError, ServerFull
from realtime.model import Publication
from tests.support.peers import strict_json
from tests.support.strategies import (
    command_ids,
    commands,
    hostile_bytes,
    json_texts,
    json_values,
    topics,
    users,
)

KINDS: dict[str, type[Any]] = {
    "Subscribe": Subscribe,
    "Unsubscribe": Unsubscribe,
    "Broadcast": Broadcast,
    "DirectMessage": DirectMessage,
    "Ping": Ping,
    "Authenticate": Authenticate,
    "History": History,
    "Presence": Presence,
}
DEEP = 100_000


def exact(text: bytes) -> Any:
    """Decode JSON with its numbers as written."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def as_dict(command: Command) -> dict[str, Any]:
    """What a decoded command says that is no default, payloads decoded."""
    said: dict[str, Any] = {"type": type(command).__name__}
    if command.id is not None:
        said["id"] = command.id
    data = command.data
    if data is not None:
        members = {}
        for field in msgspec.structs.fields(data):
            value = getattr(data, field.name)
            empty = field.default_factory is not msgspec.NODEFAULT and not value
            if isinstance(value, msgspec.Raw):
                value = strict_json(bytes(value))
            elif value == field.default or empty:
                continue
            members[field.name] = msgspec.to_builtins(value)
        said["data"] = members
    return said


def with_payload(payload: bytes, type: str = "Broadcast", target: str = "topic") -> bytes:
    """The text of a command that carries a payload."""
    return b'{"type":"%b","data":{"%b":"a","payload":%b}}' % (
        type.encode(),
        target.encode(),
        payload,
    )


class DecodeCommandTests(SynchronousTestCase):
    """Commands in."""

    @given(commands, st.booleans(), st.sampled_from([None, 2]))
    def test_decode_after_encode_is_the_identity(
        self, command: dict[str, Any], ascii: bool, indent: int | None
    ) -> None:
        """A command means what its JSON says, however that is written."""
        text = json.dumps(command, ensure_ascii=ascii, indent=indent).encode()
        decoded = decode_command(text)
        self.assertIs(type(decoded), KINDS[command["type"]])
        self.assertEqual(as_dict(decoded), command)

    def test_all_commands_are_known(self) -> None:
        """There is a structure for every command named, and no other."""
        self.assertEqual(set(COMMANDS), set(KINDS))

    @given(hostile_bytes)
    @example(b"")
    @example(b"\xff")
    @example(b'{"type":"\xff"}')
    @example(b'{"type":"Nope","id":"\xff"}')
    @example(b'{"type":"Broadcast","data":{"topic":"\xff","payload":1}}')
    @example(b"[" * DEEP)
    @example(with_payload(b"[" * DEEP + b"]" * DEEP))
    @example(b'{"type":"Nope","x":' + b'{"a":' * DEEP)
    @example(b'{"type":"Ping","id":' + b"9" * 60_000 + b"}")
    @example(b'{"type":"Ping","data":{"timestamp":' + b"9" * 60_000 + b"}}")
    @example(b'{"type":"Ping","data":{"timestamp":1e99999}}')
    @example(b'{"type":"Ping","id":"\\ud800"}')
    def test_any_bytes_are_a_command_or_a_bad_one(self, message: bytes) -> None:
        """Whatever the bytes, there is a command or `BadCommand`, whose answer can be sent."""
        try:
            command = decode_command(message)
        except BadCommand as error:
            answer = strict_json(encode_message("Error", error_object(error), 1, error.id))
            self.assertEqual(answer["data"]["code"], "INVALID_REQUEST")
            self.assertEqual(answer.get("id"), error.id)
        else:
            self.assertIn(type(command), KINDS.values())
            strict_json(encode_message("Ack", {}, 1, command.id))

    @given(st.one_of(st.text().map(str.encode), hostile_bytes.filter(bytes.isascii)))
    def test_accepted_payloads_are_json(self, message: bytes) -> None:
        """What is accepted from UTF-8 goes out as JSON for a strict parser."""
        try:
            command = decode_command(message)
        except BadCommand:
            return
        if isinstance(command, Broadcast):
            out = encode_broadcast(
                Publication(command.data.topic, bytes(command.data.payload), "u", 5)
            )
            self.assertEqual(strict_json(out)["data"]["topic"], command.data.topic)
        elif isinstance(command, DirectMessage):
            strict_json(encode_direct_message(bytes(command.data.payload), "u", 5))

    @given(json_texts)
    @example(b"123456789012345678901234567890.10")
    @example(b"1e999")
    @example(b"-0")
    @example(b"1.0")
    @example(b'{"a":1,"a":2}')
    @example(b'"\\u00e9\xc3\xa9\\ud83c\\udf89"')
    def test_payloads_pass_as_they_came(self, payload: bytes) -> None:
        """A payload leaves as the bytes that came, less the white space around it."""
        broadcast = decode_command(with_payload(payload))
        direct = decode_command(with_payload(payload, "DirectMessage", "target_user"))
        assert isinstance(broadcast, Broadcast)
        assert isinstance(direct, DirectMessage)
        self.assertEqual(bytes(broadcast.data.payload), payload)
        self.assertEqual(bytes(direct.data.payload), payload)
        out = encode_broadcast(Publication("a", bytes(broadcast.data.payload), "u", 5))
        self.assertIn(b'"payload":' + payload + b",", out)
        self.assertEqual(exact(out)["data"]["payload"], exact(payload))
        out = encode_direct_message(bytes(direct.data.payload), "u", 5)
        self.assertEqual(exact(out)["data"]["payload"], exact(payload))

    def test_payloads_that_are_no_json(self) -> None:
        """A payload that a strict parser refuses is refused at the door."""
        for payload in [
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"01",
            b"1.",
            b".5",
            b"+1",
            b"-",
            b"1e",
            b"tru",
            b"'a'",
            b'"a\x01"',
            b'"a\nb"',
            b'"\\x41"',
            b'"\\u12"',
            b'"\\ud800"',
            b"[1,]",
            b'{"a":1,}',
            b'{"a" 1}',
            b"{1:2}",
            b"// no\n1",
            b"",
            b"1 2",
            b"1}}",
        ]:
            for message in (
                with_payload(payload),
                with_payload(payload, "DirectMessage", "target_user"),
            ):
                self.assertRaises(BadCommand, decode_command, message)

    @given(json_values, command_ids)
    def test_unknown_members_are_ignored(self, value: Any, id: str | int) -> None:
        """Members that the design does not name change nothing."""
        text = json.dumps(
            {
                "x": value,
                "type": "Ping",
                "timestamp": value,
                "from_user": value,
                "data": {"y": value},
                "id": id,
            }
        )
        self.assertEqual(
            as_dict(decode_command(text.encode())), {"type": "Ping", "id": id} | {"data": {}}
        )

    def test_type_may_come_last(self) -> None:
        """The order of members means nothing."""
        command = decode_command(b'{"id":1,"data":{"payload":[1],"topic":"a"},"type":"Broadcast"}')
        self.assertEqual(
            as_dict(command),
            {"type": "Broadcast", "id": 1, "data": {"topic": "a", "payload": [1]}},
        )

    def test_what_a_refusal_says(self) -> None:
        """A refusal names the member at fault, and the id where one can be read."""
        types = "'type' must be one of " + ", ".join(COMMANDS)
        for message, field, id, problem in [
            (b'{"type":"Nope","id":3}', "type", 3, types),
            (b'{"type":"ping","id":3}', "type", 3, types),
            (b'{"type":null,"id":"a"}', "type", "a", types),
            (b'{"type":["Ping"]}', "type", None, types),
            (b'{"id":"x"}', None, "x", "Object missing required field `type`"),
            (
                b'{"type":"Broadcast","data":{"topic":"a"},"id":4}',
                "data",
                4,
                "Object missing required field `payload`",
            ),
            (
                b'{"type":"Subscribe","data":{"topics":["a",5]},"id":0}',
                "data.topics[1]",
                0,
                "Expected `str`, got `int`",
            ),
            (b'{"type":"Ping","id":1.5}', "id", None, None),
            (b'{"type":"Ping","id":true}', "id", None, None),
            (b'{"type":"Ping","id":["a"]}', "id", None, None),
            (b'{"type":"Ping","data":{"timestamp":"x"},"id":""}', "data.timestamp", "", None),
            (b'{"type":"Authenticate","data":{"token":null},"id":1}', "data.token", 1, None),
            (b"5", None, None, None),
            (b"[]", None, None, None),
            (b'{"type":"Ping"} x', None, None, None),
        ]:
            error = self.assertRaises(BadCommand, decode_command, message)
            self.assertEqual(error.details, {"field": field} if field else {}, message)
            self.assertEqual(error.id, id, message)
            self.assertIs(type(error.id), type(id), message)
            self.assertIs(error.code, ErrorCode.INVALID_REQUEST)
            if problem is not None:
                self.assertEqual(error.message, problem)

    def test_required_data(self) -> None:
        """All commands but Ping need their data; a null payload is a payload."""
        for type in COMMANDS:
            message = b'{"type":"%b"}' % type.encode()
            if type == "Ping":
                self.assertEqual(as_dict(decode_command(message)), {"type": "Ping"})
            else:
                self.assertRaises(BadCommand, decode_command, message)
        command = decode_command(with_payload(b"null"))
        assert isinstance(command, Broadcast)
        self.assertEqual(bytes(command.data.payload), b"null")

    @given(hostile_bytes)
    def test_read_id_of_anything(self, message: bytes) -> None:
        """Looking for an id in any bytes finds one or none."""
        found = read_id(message)
        self.assertTrue(found is None or type(found) in (str, int))

    @given(commands)
    def test_read_id(self, command: dict[str, Any]) -> None:
        """The id that is read of a command is its own."""
        self.assertEqual(read_id(json.dumps(command).encode()), command.get("id"))

    def test_read_id_of_the_deep(self) -> None:
        """Deep nesting hides an id and does no harm."""
        self.assertIsNone(read_id(b'{"x":' + b"[" * DEEP + b"]" * DEEP + b',"id":1}'))


class DecodeJsonTests(SynchronousTestCase):
    """Bodies of requests."""

    @given(json_values)
    def test_identity(self, value: Any) -> None:
        """What is encoded decodes to itself, for our parser and for a strict one."""
        self.assertEqual(decode_json(json.dumps(value).encode()), value)
        self.assertEqual(strict_json(encode_json(value)), value)

    @given(hostile_bytes)
    @example(b"[" * DEEP)
    @example(b"NaN")
    @example(b'"\xff"')
    def test_any_bytes(self, text: bytes) -> None:
        """Any bytes are JSON or an `InvalidRequest`; what is taken, a strict parser takes too."""
        try:
            value = decode_json(text)
        except InvalidRequest:
            return
        self.assertEqual(strict_json(text), value)


class EncodeTests(SynchronousTestCase):
    """Messages out."""

    @given(topics, json_texts, users, st.integers(0, 2**52))
    def test_broadcast(self, topic: str, payload: bytes, user: str, timestamp: int) -> None:
        """A publication is a Broadcast with topic, payload and sender, and the server's time."""
        out = encode_broadcast(Publication(topic, payload, user, timestamp))
        self.assertEqual(
            exact(out),
            {
                "type": "Broadcast",
                "data": {"topic": topic, "payload": exact(payload), "from_user": user},
                "timestamp": timestamp,
            },
        )

    @given(json_texts, users, st.integers(0, 2**52))
    def test_direct_message(self, payload: bytes, user: str, timestamp: int) -> None:
        """A direct message has payload and sender, and the server's time."""
        self.assertEqual(
            exact(encode_direct_message(payload, user, timestamp)),
            {
                "type": "DirectMessage",
                "data": {"from_user": user, "payload": exact(payload)},
                "timestamp": timestamp,
            },
        )

    @given(
        st.text(st.characters(codec="utf-8")),
        st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=3),
        st.integers(0, 2**52),
        st.none() | st.text(st.characters(codec="utf-8")) | st.integers(),
    )
    def test_message(
        self, type: str, data: dict[str, Any], timestamp: int, id: str | int | None
    ) -> None:
        """A message has `id` exactly where it answers one; 0 and "" are ids."""
        expected = {"type": type, "data": data, "timestamp": timestamp}
        if id is not None:
            expected["id"] = id
        self.assertEqual(strict_json(encode_message(type, data, timestamp, id)), expected)

    def test_errors_look_alike_everywhere(self) -> None:
        """REST's `error` and the `data` of an Error are one object, `details` always there."""
        for error, expected in [
            (
                RateLimited(0.25, "slow"),
                {"code": "RATE_LIMITED", "message": "slow", "details": {"retry_after_ms": 250}},
            ),
            (
                ServerFull(),
                {"code": "SERVER_FULL", "message": "The server is at capacity.", "details": {}},
            ),
            (
                RealtimeError(),
                {
                    "code": "INTERNAL_ERROR",
                    "message": "The server failed; it has logged why.",
                    "details": {},
                },
            ),
        ]:
            self.assertEqual(strict_json(encode_json(error_object(error))), expected)
            self.assertEqual(strict_json(encode_error_body(error)), {"error": expected})
