"""Tests of realtime.hooks."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime.errors import Forbidden, Unavailable
from realtime.hooks import KINDS, MAX_REASON, Hooks
from realtime.metrics import Counters
from realtime.model import Identity
from realtime.option_table import OPTIONS
from tests.support import strategies  # noqa: F401 - loads the profile
from tests.support.identity import START, make_clock
from tests.support.receiver import SILENCE, RealReceiver, Receiver, memory_post, real_post
from tests.test_webhooks import collect_log

ALICE = Identity("user_1", "alice", frozenset({"user", "admin"}), "session_1", START + 3600)
ALLOWED = b'{"allow": true}'


class HookTests(SynchronousTestCase):
    """Questions and answers, with a receiver in memory."""

    def setUp(self) -> None:
        """Make the parts that last."""
        self.clock = make_clock()
        self.counters = Counters()
        self.receiver = Receiver()
        self.log = collect_log(self)

    def make(self, **options: Any) -> Hooks:
        """Make hooks."""
        post = memory_post(self.receiver, self.clock, timeout=2.0, max_answer=1000)
        options = {"kinds": KINDS, "failure": "deny", **options}
        return Hooks(post, self.counters, self.clock, **options)

    def answers(self, *answers: Any) -> None:
        """Say what the receiver answers, as objects or as texts."""
        texts = [a if isinstance(a, bytes) else json.dumps(a).encode() for a in answers]
        self.receiver.answers.extend((200, text) for text in texts)

    def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """What comes of a question that is answered at once."""
        return self.successResultOf(Deferred.fromCoroutine(question))

    def refused(self, error: type[Exception], question: Coroutine[Any, Any, Any]) -> str:
        """See that a question is refused; answer with what words."""
        failure = self.failureResultOf(Deferred.fromCoroutine(question), error)
        return str(failure.value)

    def numbers(self) -> tuple[int, int, int]:
        """The counters: questions, denials, failures."""
        counters = self.counters
        return counters.hook_questions, counters.hook_denials, counters.hook_failures

    def test_questions(self) -> None:
        """A question says who asks for what, signed, under an id of its own."""
        self.receiver.always = (200, ALLOWED)
        hooks = self.make()
        self.assertIsNone(self.ask(hooks.connect(ALICE)))
        self.assertEqual(self.ask(hooks.subscribe(ALICE, "c-1", ["a", "b.*"])), {})
        payload = b'{"n":12345678901234567890.10}'
        self.assertIs(self.ask(hooks.publish(ALICE, "c-1", "a", payload)), payload)
        anonymous = replace(ALICE, username=None, session_id=None)
        self.ask(hooks.publish(anonymous, "c-2", "a", Raw(b"null")))
        posted = self.receiver.posted
        self.assertTrue(all(one.is_signed() for one in posted))
        questions = [one.json for one in posted]
        ids = [question.pop("id") for question in questions]
        self.assertEqual(ids, [one.headers["x-realtime-delivery"] for one in posted])
        self.assertEqual(len(set(ids)), 4)
        self.assertIn(payload, posted[2].body)
        base = {"timestamp": int(START * 1000), "user_id": "user_1", "roles": ["admin", "user"]}
        alice = {**base, "username": "alice", "session_id": "session_1"}
        self.assertEqual(
            questions,
            [
                {"hook": "connect", **alice},
                {"hook": "subscribe", **alice, "connection_id": "c-1", "topics": ["a", "b.*"]},
                {
                    **{"hook": "publish", **alice, "connection_id": "c-1", "topic": "a"},
                    "payload": json.loads(payload),
                },
                {
                    **{"hook": "publish", **base, "connection_id": "c-2", "topic": "a"},
                    "payload": None,
                },
            ],
        )
        self.assertEqual(self.numbers(), (4, 0, 0))

    def test_denials(self) -> None:
        """A denial is FORBIDDEN, in the receiver's words where it gives some."""
        hooks = self.make()
        self.answers({"allow": False, "reason": "Banned"}, {"allow": False}, {"allow": False})
        self.assertEqual(self.refused(Forbidden, hooks.connect(ALICE)), "Banned")
        self.assertEqual(
            self.refused(Forbidden, hooks.publish(ALICE, "c", "a", b"1")), "This was denied"
        )
        denied = self.ask(hooks.subscribe(ALICE, "c", ["a", "b"]))
        self.assertEqual(
            [(type(e), e.message, e.details) for e in denied.values()],
            [(Forbidden, "This was denied", {"topic": topic}) for topic in "ab"],
        )
        self.assertEqual(self.numbers(), (3, 3, 0))

    def test_the_topic(self) -> None:
        """A publication that is denied, or cannot be asked about, is told with its topic."""
        hooks = self.make()
        self.answers({"allow": False}, {})
        for error in (Forbidden, Unavailable):
            asked = Deferred.fromCoroutine(hooks.publish(ALICE, "c", "a.b", b"1"))
            failure = self.failureResultOf(asked, error)
            self.assertEqual(failure.value.details, {"topic": "a.b"})

    def test_reasons_are_bounded(self) -> None:
        """A reason reaches clients without control characters, and not at any length."""
        self.answers({"allow": False, "reason": "\x1b[31m\n" + "x" * 500})
        reason = self.refused(Forbidden, self.make().connect(ALICE))
        self.assertEqual(reason, ("[31m" + "x" * 500)[:MAX_REASON])

    def test_some_topics(self) -> None:
        """Some of the topics can be denied; those that were not asked about do not count."""
        self.answers({"allow": True, "deny": ["b", "x"], "reason": "Not yours"})
        denied = self.ask(self.make().subscribe(ALICE, "c", ["a", "b", "c"]))
        self.assertEqual(
            {topic: (type(e), e.message, e.details) for topic, e in denied.items()},
            {"b": (Forbidden, "Not yours", {"topic": "b"})},
        )
        self.assertEqual(self.numbers(), (1, 1, 0))

    def test_rewriting(self) -> None:
        """Another payload is published as the very bytes of the answer; null is one, too."""
        hooks = self.make()
        payload = b'{"big": 12345678901234567890123,  "d": 1.10, "e": "\\u00e9\xc3\xa9"}'
        self.answers(b'{"allow": true, "payload": ' + payload + b"}")
        self.answers({"allow": True, "payload": None})
        self.assertEqual(self.ask(hooks.publish(ALICE, "c", "a", b"1")), payload)
        self.assertEqual(self.ask(hooks.publish(ALICE, "c", "a", b"1")), b"null")

    def test_improper_answers(self) -> None:
        """What is not 200 with a proper verdict in time means what --hook-failure says."""
        malformed = [
            b"", b"yes", b"[]", b"{}", b'{"allow": "true"}', b'{"allow": 1}', b'{"allow": null}',
            b'{"allow": true, "payload": nul}', b'{"allow": true, "payload": "\xff"}',
            b'{"allow": true, "deny": "a"}', b'{"allow": true} {}', b'{"allow": true, "reason": 1}',
            b'{"allow": true, "payload": "%b"}' % (b"x" * 1000),
            b'{"allow": true, "payload": %b}' % (b"[" * 900),
        ]  # fmt: skip
        answers = [204, 301, (403, ALLOWED), (500, ALLOWED), *((200, text) for text in malformed)]
        for answer in answers:
            self.receiver.answers.extend([answer] * 3)
            self.refused(Unavailable, self.make().publish(ALICE, "c", "a", b"1"))
            denied = self.ask(self.make().subscribe(ALICE, "c", ["a"]))
            self.assertEqual([type(error) for error in denied.values()], [Unavailable])
            open_hooks = self.make(failure="allow")
            self.assertEqual(self.ask(open_hooks.publish(ALICE, "c", "a", b"1")), b"1")
        self.assertEqual(self.numbers(), (3 * len(answers), 0, 3 * len(answers)))

    def test_unknown_members_are_ignored(self) -> None:
        """An answer may say more than is asked."""
        self.answers({"allow": True, "more": [1, {}]})
        self.ask(self.make().connect(ALICE))

    def test_silence(self) -> None:
        """No answer in time is a failure; how long it took is counted."""
        self.receiver.always = SILENCE
        asked = Deferred.fromCoroutine(self.make().connect(ALICE))
        self.clock.advance(1.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.failureResultOf(asked, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.counters.hook_seconds, 2.0)

    def test_too_many_questions(self) -> None:
        """More questions than may be under way are refused at once, whatever failures mean."""
        self.receiver.always = SILENCE
        hooks = self.make(failure="allow", max_under_way=2)
        asked = [Deferred.fromCoroutine(hooks.connect(ALICE)) for _ in range(2)]
        self.refused(Unavailable, hooks.connect(ALICE))
        self.clock.advance(2)
        for each in asked:
            self.successResultOf(each)
        self.receiver.always = (200, ALLOWED)
        self.ask(hooks.connect(ALICE))
        self.assertEqual(self.numbers(), (3, 0, 3))

    def test_one_line_each_outage(self) -> None:
        """An outage is logged as it begins and as it ends."""
        hooks = self.make()
        self.receiver.answers.extend([500, 500, 500])
        for _ in range(3):
            self.refused(Unavailable, hooks.connect(ALICE))
            self.clock.advance(5)
        self.receiver.always = (200, ALLOWED)
        self.ask(hooks.connect(ALICE))
        self.ask(hooks.connect(ALICE))
        self.assertEqual(
            self.log,
            [
                "The hook at http://receiver.example fails: HTTP status 500",
                "The hook at http://receiver.example works again, after 15 s",
            ],
        )

    def test_what_cannot_be_asked(self) -> None:
        """A user whose name is no Unicode is as one of whom nothing can be found out."""
        strange = replace(ALICE, username="\ud800")
        self.refused(Unavailable, self.make().connect(strange))
        self.ask(self.make(failure="allow").connect(strange))
        self.assertEqual(self.receiver.posted, [])

    def test_the_option_knows_the_kinds(self) -> None:
        """--hook takes every kind of question."""
        (option,) = [option for option in OPTIONS if option.name == "hook"]
        self.assertEqual([option.parse(kind) for kind in KINDS], list(KINDS))
        self.assertEqual(self.make(kinds=["publish"]).wants, {"publish"})

    @given(st.binary(max_size=50), st.sampled_from([b"%b", b'{"allow":%b}', b'{"allow":true,%b}']))
    def test_any_answer(self, text: bytes, frame: bytes) -> None:
        """Whatever bytes a receiver answers, the question is allowed, denied or unavailable."""
        self.receiver.answers.append((200, frame % text))
        asked = Deferred.fromCoroutine(self.make().publish(ALICE, "c", "a", b"1"))
        asked.addErrback(lambda failure: failure.trap(Forbidden, Unavailable))
        self.successResultOf(asked)


class SocketTests(TestCase):
    """Questions to a real HTTP server."""

    async def test_whole_questions(self) -> None:
        """Questions at the same time are answered each by its own."""
        receiver = RealReceiver(self)
        receiver.always = lambda posted: (
            200,
            json.dumps({"allow": True, "payload": [posted.json["topic"]]}).encode(),
        )
        clock = make_clock()
        post = real_post(self, receiver.url, clock)
        hooks = Hooks(post, Counters(), clock, kinds=KINDS, failure="deny")
        asked = [
            Deferred.fromCoroutine(hooks.publish(ALICE, "c", f"t.{number}", b"1"))
            for number in range(20)
        ]
        for number, each in enumerate(asked):
            self.assertEqual(await each, b'["t.%d"]' % number)
        self.assertEqual(clock.getDelayedCalls(), [])
