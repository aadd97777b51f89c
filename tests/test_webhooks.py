"""Tests of realtime.webhooks, webhook_delivery, webhook_queue_sqlite and signed_post."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from realtime import webhook_delivery, webhooks
from realtime.errors import CloseCode, ConfigurationError, Forbidden
from realtime.hooks import MAX_REASON, MAX_UNDER_WAY, Hooks, Verdict
from realtime.metrics import Counters
from realtime.model import Identity, Position, Publication
from realtime.option_table import OPTIONS
from realtime.settings import read_settings
from realtime.signed_post import NoAnswer, sign
from realtime.signing_keys import load_secret
from realtime.webhook_delivery import BATCH_EVENTS, BATCH_WAIT, MAX_AGE, Delivery, MemoryQueue
from realtime.webhook_queue_sqlite import DISK_BYTES, DiskQueue
from realtime.webhooks import EVENTS, Webhooks
from tests.support import strategies  # noqa: F401 - loads the profile
from tests.support.identity import START, make_clock, make_state_dir
from tests.support.receiver import (
    BREAK,
    SECRET,
    SILENCE,
    Posted,
    RealReceiver,
    Receiver,
    memory_post,
    real_post,
)

PAGE = Path(__file__).parent.parent / "docs" / "webhooks.rst"
ALICE = Identity("user_1", "alice", frozenset({"user"}), "session_1", START + 3600)
MILLISECONDS = int(START * 1000)


def collect_log(case: SynchronousTestCase | TestCase) -> list[str]:
    """Collect what is logged during a test, as text with all that it could be told by."""
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("realtime"):
            values = {k: v for k, v in event.items() if not k.startswith("log_")}
            said.append(event["log_format"].format(**values))

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return said


class MemoryCase(SynchronousTestCase):
    """Webhooks with a receiver in memory and a clock of their own; backoff is not random."""

    def setUp(self) -> None:
        """Make the parts that last."""
        self.clock = make_clock()
        self.counters = Counters()
        self.receiver = Receiver()
        self.log = collect_log(self)

    def make_delivery(self, **options: Any) -> Delivery:
        """Make and open a delivery."""
        post = memory_post(self.receiver, self.clock, **options.pop("post", {}))
        options = {"max_events": 1000, "max_bytes": 10**6, "random": lambda: 1.0, **options}
        delivery = Delivery(MemoryQueue(), post, self.counters, self.clock, **options)
        self.successResultOf(Deferred.fromCoroutine(delivery.open()))
        return delivery

    def make(self, *events: str, debounce: float = 3.0, **options: Any) -> Webhooks:
        """Make and open webhooks; of all events unless some are named."""
        delivery = self.make_delivery(**options)
        return Webhooks(delivery, self.clock, events=events or EVENTS, debounce=debounce)

    def stop(self, what: Webhooks | Delivery, seconds: float = 5.0) -> None:
        """Stop, and see that no timer is left."""
        stopped = Deferred.fromCoroutine(what.stop(seconds))
        self.clock.pump([0, 0, 0])
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def gather(self) -> None:
        """Let the time go by for which events are gathered."""
        self.clock.pump([0, BATCH_WAIT])

    def told(self) -> list[tuple[str, str]]:
        """The events that have come, and their topics."""
        return [(event["event"], event.get("topic", "")) for event in self.receiver.events]


class EventTests(MemoryCase):
    """What is told."""

    def test_every_event(self) -> None:
        """Each event has its id, name, time and what it is about, in the order it happened."""
        hooks = self.make(debounce=0.0)
        now = START + 0.25
        hooks.connected(ALICE, "c-1", now)
        hooks.subscribed(ALICE, "c-1", ["chat.a", "chat.*"], now)
        hooks.occupied("chat.a")
        position = Position(7, "e1")
        hooks.published(Publication("chat.a", b'{"n":1}', "user_1", MILLISECONDS + 250, position))
        hooks.published(Publication("chat.b", Raw(b"null"), "user_1", MILLISECONDS + 251))
        hooks.unsubscribed(ALICE, "c-1", ["chat.*"], now)
        hooks.vacated("chat.a")
        anonymous = replace(ALICE, username=None, session_id=None)
        hooks.disconnected(anonymous, "c-1", CloseCode.SLOW_CONSUMER, now)
        self.gather()
        events = self.receiver.events
        ids = [event.pop("id") for event in events]
        self.assertEqual(len(set(ids)), 8)
        connection = {"connection_id": "c-1", "user_id": "user_1"}
        alice = {**connection, "username": "alice", "session_id": "session_1"}
        at, later = {"timestamp": MILLISECONDS}, {"timestamp": MILLISECONDS + 250}
        self.assertEqual(
            events,
            [
                {"event": "connect", **later, **alice},
                {"event": "subscribe", **later, **alice, "topics": ["chat.a", "chat.*"]},
                {"event": "occupied", **at, "topic": "chat.a"},
                {
                    **{"event": "publish", **later, "topic": "chat.a", "from_user": "user_1"},
                    **{"payload": {"n": 1}, "offset": 7, "epoch": "e1"},
                },
                {
                    **{"event": "publish", "timestamp": MILLISECONDS + 251, "topic": "chat.b"},
                    **{"from_user": "user_1", "payload": None},
                },
                {"event": "unsubscribe", **later, **alice, "topics": ["chat.*"]},
                {"event": "vacated", **at, "topic": "chat.a"},
                {"event": "disconnect", **later, **connection, "code": 4002},
            ],
        )

    def test_payloads_keep_their_precision(self) -> None:
        """A payload arrives as the very bytes that were published."""
        payload = b'{"big": 12345678901234567890123, "d": 1.10, "s":"\\u00e9\xc3\xa9"}'
        self.make().published(Publication("a", payload, "u", 1))
        self.gather()
        self.assertIn(payload, self.receiver.posted[0].body)

    def test_only_what_is_wanted(self) -> None:
        """An event that nobody wants is not told, and costs no place in the queue."""
        hooks = self.make("vacated")
        self.assertEqual(hooks.wants, {"vacated"})
        hooks.connected(ALICE, "c-1", START)
        hooks.disconnected(ALICE, "c-1", 1000, START)
        hooks.subscribed(ALICE, "c-1", ["a"], START)
        hooks.unsubscribed(ALICE, "c-1", ["a"], START)
        hooks.published(Publication("a", b"1", "u", 1))
        hooks.occupied("a")
        self.assertEqual(self.counters.webhook_queue, 0)
        hooks.vacated("a")
        self.clock.advance(3)
        self.assertEqual(self.counters.webhook_queue, 1)
        hooks = self.make("publish")
        hooks.vacated("a")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # that of the other's batch

    def test_the_option_knows_the_events(self) -> None:
        """--webhook-event takes every event; its default is all but publish."""
        (option,) = [option for option in OPTIONS if option.name == "webhook-event"]
        self.assertEqual([option.parse(event) for event in EVENTS], list(EVENTS))
        self.assertEqual(set(EVENTS) - set(option.default), {"publish"})

    def test_what_cannot_be_encoded(self) -> None:
        """An event that is no Unicode is dropped and logged, and clients notice nothing."""
        hooks = self.make()
        hooks.connected(replace(ALICE, username="\ud800"), "c-1", START)
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)
        self.assertEqual((self.counters.webhook_dropped, self.counters.webhook_queue), (1, 0))

    def test_flapping_topics(self) -> None:
        """A topic that is vacated and soon occupied again makes no noise."""
        hooks = self.make("occupied", "vacated")
        hooks.occupied("a")
        hooks.vacated("a")
        self.clock.advance(2.9)
        hooks.occupied("a")
        self.clock.advance(10)
        self.assertEqual(self.told(), [("occupied", "a")])
        hooks.vacated("a")
        self.clock.advance(2.9)
        self.assertEqual(len(self.receiver.events), 1)
        self.clock.advance(0.2)
        self.gather()
        self.assertEqual(self.told(), [("occupied", "a"), ("vacated", "a")])
        self.assertEqual(self.receiver.events[1]["timestamp"], MILLISECONDS + 12_900)
        hooks.occupied("a")
        self.gather()
        self.assertEqual(self.told()[2:], [("occupied", "a")])

    def test_one_timer_for_all_topics(self) -> None:
        """However many topics are vacant, one timer waits, and each is told at its own time."""
        hooks = self.make("vacated")
        for number in range(30):
            hooks.vacated(f"t.{number}")
            hooks.vacated("chat.*")
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(0.0625)
        hooks.occupied("t.0")
        self.clock.advance(3 - 30 * 0.0625)
        self.assertEqual(self.counters.webhook_queue, 0)
        for number in range(1, 30):
            self.clock.advance(0.0625)
            told = self.counters.webhook_queue + self.counters.webhook_events
            self.assertEqual(told, number)
        self.gather()
        self.assertEqual(self.told(), [("vacated", f"t.{number}") for number in range(1, 30)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many_vacant_topics(self) -> None:
        """Of more vacant topics than are kept the first are told early."""
        self.patch(webhooks, "MAX_VACANT", 2)
        hooks = self.make()
        for topic in "abcd":
            hooks.vacated(topic)
        self.gather()
        self.assertEqual(self.told(), [("vacated", "a"), ("vacated", "b")])

    def test_stopping_tells_what_is_vacant(self) -> None:
        """The end of the server is not waited for: vacant topics are told of at once."""
        hooks = self.make()
        hooks.vacated("a")
        self.stop(hooks)
        self.assertEqual(self.told(), [("vacated", "a")])
        hooks.connected(ALICE, "c-1", START)
        self.assertEqual((self.counters.webhook_queue, self.clock.getDelayedCalls()), (0, []))


class DeliveryTests(MemoryCase):
    """Batches, signatures, retries, bounds."""

    def put(self, delivery: Delivery, *numbers: int) -> None:
        """Put events that are numbers."""
        for number in numbers:
            delivery.put(b"%d" % number)

    def batches(self) -> list[Any]:
        """What was posted."""
        return [posted.events for posted in self.receiver.posted]

    def test_request(self) -> None:
        """A post is JSON, signed over its second and its body, under an id of its own."""
        delivery = self.make_delivery()
        self.put(delivery, 1, 2)
        self.assertEqual(self.receiver.posted, [])
        self.gather()
        (posted,) = self.receiver.posted
        self.assertEqual(posted.body, b'{"events":[1,2]}')
        self.assertEqual(posted.headers["content-type"], "application/json")
        self.assertEqual(posted.timestamp, int(START))
        code = hmac.new(SECRET, b"%d." % START + posted.body, hashlib.sha256)
        self.assertEqual(posted.headers["x-realtime-signature"], f"sha256={code.hexdigest()}")
        self.assertRegex(posted.headers["x-realtime-delivery"], r"\A[0-9a-f]{32}\Z")
        self.assertEqual((self.counters.webhook_events, self.counters.webhook_queue), (2, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_batches_go_at_once(self) -> None:
        """A full batch waits for no more; what is left is gathered anew."""
        delivery = self.make_delivery()
        self.put(delivery, *range(BATCH_EVENTS * 2 + 1))
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual([len(batch) for batch in self.batches()], [BATCH_EVENTS] * 2)
        self.gather()
        self.assertEqual(self.receiver.events, list(range(BATCH_EVENTS * 2 + 1)))

    def test_batches_are_bounded_in_bytes(self) -> None:
        """A batch has as many events as fit, and one at least."""
        self.patch(webhook_delivery, "BATCH_BYTES", 10)
        delivery = self.make_delivery()
        self.put(delivery, 1, 10**12, 12345, 12346, 3)
        self.clock.pump([BATCH_WAIT] * 9)
        self.assertEqual(self.batches(), [[1], [10**12], [12345, 12346], [3]])

    def test_one_request_at_a_time(self) -> None:
        """While a post is under way no other is made, however much waits."""
        self.receiver.answers.append(SILENCE)
        delivery = self.make_delivery()
        self.put(delivery, *range(500))
        self.clock.pump([1] * 9)
        self.assertEqual(len(self.receiver.posted), 1)
        self.assertEqual(self.counters.webhook_queue, 500)
        self.stop(delivery, 0.0)

    def test_failures_are_tried_again(self) -> None:
        """Whatever is not 2xx is posted again under the same id, signed anew, in order."""
        for status in (302, 400, 401, 404, 410, 429, 500, 503):
            self.receiver.posted.clear()
            self.receiver.answers.extend([status] * 3)
            delivery = self.make_delivery()
            self.put(delivery, 1)
            self.gather()
            self.put(delivery, 2)
            self.clock.pump([1, 2])
            self.assertEqual(self.batches(), [[1]] * 3, status)
            self.clock.pump([4, 1])
            self.assertEqual(self.batches(), [[1]] * 4 + [[2]])
            posted = self.receiver.posted
            self.assertEqual(len({one.headers["x-realtime-delivery"] for one in posted}), 2)
            self.assertEqual(len({one.timestamp for one in posted[:4]}), 4)
            self.assertTrue(all(one.is_signed() for one in posted))

    def test_silence_and_breaks(self) -> None:
        """Silence for as long as the timeout is a failure, as is a connection that breaks off."""
        self.receiver.answers.extend([SILENCE, BREAK, BREAK])
        delivery = self.make_delivery()
        self.put(delivery, 1)
        self.gather()
        self.clock.advance(9.9)
        self.assertEqual(self.counters.webhook_failures, 0)
        self.clock.advance(0.1)
        self.assertEqual(self.counters.webhook_failures, 1)
        self.assertIn("no answer within 10 seconds", self.log[0])
        self.clock.advance(1)
        self.assertEqual(self.counters.webhook_failures, 2)
        self.clock.advance(2)
        self.assertEqual((self.counters.webhook_events, self.counters.webhook_queue), (1, 0))

    def test_backoff(self) -> None:
        """Each wait is random, up to a limit that doubles to a minute, and begins anew."""
        waits: list[float] = []
        call_later = self.clock.callLater

        def watch(seconds: float, *more: Any) -> Any:
            waits.append(seconds)
            return call_later(seconds, *more)

        self.clock.callLater = watch
        shares = iter((0.5, 1.0, 0.125, 0.25, 0.5, 0.5, 0.5, 0.5))
        self.receiver.always = 503
        delivery = self.make_delivery(random=lambda: next(shares, 0.5))
        self.put(delivery, 1)
        self.clock.pump([1] * 200)
        waits = [wait for wait in waits if wait not in (0, BATCH_WAIT, 10.0)]
        self.assertEqual(waits[:8], [0.5, 2.0, 0.5, 2.0, 8.0, 16.0, 30.0, 30.0])
        self.receiver.always = 204
        self.clock.advance(60)
        self.receiver.always = 503
        self.put(delivery, 2)
        self.gather()
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime(), self.clock.seconds() + 0.5)
        self.stop(delivery)

    def test_rejected_batches_are_given_up(self) -> None:
        """A batch rejected again and again makes way for the next; an outage is waited out."""
        self.receiver.always = lambda posted: 400 if 1 in posted.events else 204
        delivery = self.make_delivery()
        self.put(delivery, 1)
        self.gather()
        self.put(delivery, 2)
        self.clock.pump([60] * webhook_delivery.MAX_REJECTIONS)
        self.assertEqual(self.batches(), [[1]] * webhook_delivery.MAX_REJECTIONS + [[2]])
        self.assertEqual((self.counters.webhook_dropped, self.counters.webhook_events), (1, 1))
        for status in (408, 425, 429, 500, 502):
            self.receiver.posted.clear()
            self.receiver.always = status
            self.put(delivery, 3)
            self.clock.pump([0] + [60] * 100)
            self.assertEqual(self.batches(), [[3]] * 100)
            self.receiver.always = 204
            self.clock.advance(60)
        self.assertEqual(self.counters.webhook_queue, 0)

    def test_old_events_are_given_up(self) -> None:
        """After a day an event is dropped, and those that came later are posted."""
        self.receiver.always = 503
        delivery = self.make_delivery()
        self.put(delivery, 1)
        self.gather()
        self.clock.advance(MAX_AGE - 60)
        self.put(delivery, 2)
        self.clock.advance(60)
        self.assertEqual(self.counters.webhook_dropped, 1)
        self.receiver.always = 204
        self.clock.pump([60, 60])
        self.assertEqual(self.batches()[-1], [2])
        self.assertEqual(self.counters.webhook_queue, 0)

    def test_bounds_of_the_queue(self) -> None:
        """When too many events or bytes wait, the newest are dropped and counted."""
        self.receiver.always = 503
        delivery = self.make_delivery(max_events=3, max_bytes=100)
        self.put(delivery, 1, 2, 3, 4, 5)
        self.assertEqual((self.counters.webhook_queue, self.counters.webhook_dropped), (3, 2))
        self.gather()
        self.receiver.always = 204
        self.clock.advance(1)
        self.assertEqual(self.batches()[-1], [1, 2, 3])
        delivery.put(b"1" * 90)
        delivery.put(b"2" * 11)
        delivery.put(b"3" * 10)
        self.assertEqual((self.counters.webhook_queue, self.counters.webhook_dropped), (2, 3))
        self.gather()
        self.assertEqual((self.counters.webhook_queue, self.counters.webhook_events), (0, 5))

    def test_one_line_each_outage(self) -> None:
        """An outage is logged as it begins and as it ends, drops once; nothing of it is secret."""
        url = "https://user:hidden@receiver.example:8443/hidden?key=hidden"
        delivery = self.make_delivery(max_events=3, post={"url": url})
        for _ in range(2):
            self.log.clear()
            self.receiver.always = 503
            self.put(delivery, *range(9))
            self.clock.pump([0, BATCH_WAIT] + [60] * 5)
            self.receiver.always = 204
            self.clock.pump([60, 1])
            self.assertEqual(
                self.log,
                [
                    "Events for the webhook are dropped: too many wait",
                    "The webhook at https://receiver.example:8443 fails: HTTP status 503",
                    "The webhook at https://receiver.example:8443 works again, after 360 s",
                ],
            )
        posted = self.receiver.posted[0]
        self.assertEqual(posted.path, "/hidden?key=hidden")
        self.assertEqual(posted.headers["host"], "receiver.example:8443")
        self.assertEqual(posted.headers["authorization"], "Basic dXNlcjpoaWRkZW4=")

    def test_large_answers_are_not_read(self) -> None:
        """Of what a receiver says no more is read than is needed."""
        self.receiver.answers.append((200, b"x" * 10**6))
        delivery = self.make_delivery(post={"max_answer": 100})
        self.put(delivery, 1)
        self.gather()
        self.assertEqual(self.counters.webhook_events, 1)

    def test_stopping_delivers(self) -> None:
        """At the end what waits is posted, without waiting for more."""
        delivery = self.make_delivery()
        self.put(delivery, *range(BATCH_EVENTS + 5))
        stopped = Deferred.fromCoroutine(delivery.stop(5.0))
        self.clock.pump([0, 0, 0])
        self.successResultOf(stopped)
        self.assertEqual(self.receiver.events, list(range(BATCH_EVENTS + 5)))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.stop(delivery)

    def test_stopping_in_an_outage(self) -> None:
        """At the end a failing receiver has one more chance; what is left is dropped and told."""
        self.receiver.always = 503
        delivery = self.make_delivery()
        self.put(delivery, 1, 2)
        self.clock.pump([BATCH_WAIT, 0.5])
        self.stop(delivery)
        self.assertEqual(self.batches(), [[1, 2]] * 2)
        self.assertEqual((self.counters.webhook_dropped, self.counters.webhook_queue), (2, 0))
        self.assertIn("Events for the webhook are dropped: the server stops", self.log)

    def test_stopping_in_time(self) -> None:
        """A receiver that says nothing does not keep the server from stopping."""
        self.receiver.always = SILENCE
        delivery = self.make_delivery()
        self.put(delivery, 1)
        self.gather()
        stopped = Deferred.fromCoroutine(delivery.stop(5.0))
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.counters.webhook_dropped, 1)

    @given(st.lists(st.one_of(
        st.integers(1, 150), st.floats(0, 100),
        st.sampled_from([204, 200, 500, 429, SILENCE, BREAK]),
    ), max_size=40))  # fmt: skip
    def test_any_course(self, course: list[Any]) -> None:
        """Whatever the receiver does, what was taken arrives in order, or waits; all is counted."""
        self.setUp()
        delivery = self.make_delivery(max_events=300)
        taken: list[int] = []
        sent = 0
        under_way = 0
        for step in course:
            if isinstance(step, float):
                self.clock.pump([step / 10] * 10)
            elif step == 204 or step == 200 or step in (500, 429, SILENCE, BREAK):
                self.receiver.answers.append(step)
            else:
                for _ in range(step):
                    dropped = self.counters.webhook_dropped
                    self.put(delivery, sent)
                    if self.counters.webhook_dropped == dropped:
                        taken.append(sent)
                    sent += 1
            self.assertLessEqual(under_way, 1)
            self.check(taken, whole=False)
        self.receiver.answers.clear()
        self.clock.pump([70] * 9)
        self.check(taken, whole=True)
        self.assertEqual(len(taken) + self.counters.webhook_dropped, sent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def check(self, taken: list[int], whole: bool) -> None:
        """Without repetitions of a batch, what has come is the first of what was taken."""
        seen: list[int] = []
        deliveries: dict[str, list[Any]] = {}
        for posted in self.receiver.posted:
            delivery = posted.headers["x-realtime-delivery"]
            if delivery not in deliveries:
                deliveries[delivery] = posted.events
                seen += posted.events
            self.assertEqual(posted.events, deliveries[delivery])
        self.assertEqual(seen, taken[: len(seen)])
        if whole:
            self.assertEqual(len(seen), len(taken))
        self.assertEqual(self.counters.webhook_queue + self.counters.webhook_events, len(taken))


class DiskTests(TestCase):
    """The queue on disk, with a receiver in memory."""

    def setUp(self) -> None:
        """Make the parts that last."""
        self.clock = make_clock()
        self.counters = Counters()
        self.receiver = Receiver()
        self.log = collect_log(self)
        self.path = os.path.join(make_state_dir(self), "webhooks.sqlite3")

    async def open(self, **options: Any) -> Delivery:
        """Open a delivery of the file."""
        self.queue = DiskQueue(self.path, reactor)
        self.addCleanup(self.queue.close)
        options = {"max_events": 1000, "max_bytes": 10**6, "random": lambda: 1.0, **options}
        post = memory_post(self.receiver, self.clock)
        delivery = Delivery(self.queue, post, self.counters, self.clock, **options)
        await delivery.open()
        return delivery

    async def settle(self) -> None:
        """Let the queue's thread do all that it was asked for."""
        for _ in range(3):
            await self.queue._database.read(lambda connection: None)

    async def run_until(self, condition: Any, step: float = 0.0625) -> None:
        """Let time go by, and the queue's thread work."""
        for _ in range(200):
            if condition():
                return
            self.clock.advance(step)
            await self.settle()
        raise AssertionError("waited in vain")

    async def stop(self, delivery: Delivery) -> None:
        """Stop, and see that no timer is left."""
        stopped = Deferred.fromCoroutine(delivery.stop(5.0))
        while not stopped.called:
            self.clock.advance(0)
            await self.one_turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def one_turn(self) -> Deferred[None]:
        """Let the reactor do what threads say."""
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        return turn

    async def test_delivery(self) -> None:
        """Events arrive in order, by batches, and leave the file."""
        delivery = await self.open()
        for number in range(250):
            delivery.put(b"%d" % number)
        self.assertEqual(self.counters.webhook_queue, 250)
        await self.run_until(lambda: self.counters.webhook_events == 250)
        self.assertEqual(self.receiver.events, list(range(250)))
        await self.run_until(lambda: self.counters.webhook_queue == 0)
        await self.stop(delivery)
        delivery = await self.open()
        self.assertEqual(self.counters.webhook_queue, 0)
        await self.stop(delivery)

    async def test_restart(self) -> None:
        """What an outage has kept is posted after a restart, before what comes then."""
        self.receiver.always = 503
        delivery = await self.open()
        for number in range(150):
            delivery.put(b"%d" % number)
        await self.run_until(lambda: self.receiver.posted)
        await self.stop(delivery)
        self.assertEqual(self.counters.webhook_dropped, 0)
        self.receiver.always = 204
        self.receiver.posted.clear()
        self.counters = Counters()
        delivery = await self.open()
        self.assertEqual(self.counters.webhook_queue, 150)
        self.assertIn("150 events wait for the webhook", self.log)
        delivery.put(b"150")
        await self.run_until(lambda: self.counters.webhook_queue == 0)
        self.assertEqual(self.receiver.events, list(range(151)))
        await self.stop(delivery)

    async def test_bounds_count_what_was_there(self) -> None:
        """What an earlier run has left counts towards the bounds of this one."""
        self.receiver.always = 503
        delivery = await self.open()
        for _ in range(5):
            delivery.put(b"12345")
        await self.stop(delivery)
        delivery = await self.open(max_events=7, max_bytes=31)
        delivery.put(b"12345")
        delivery.put(b"1")
        delivery.put(b"2")
        self.assertEqual((self.counters.webhook_queue, self.counters.webhook_dropped), (7, 1))
        await self.stop(delivery)

    async def test_full_disk(self) -> None:
        """While the file cannot grow events wait in memory, and are stored as soon as it can."""
        delivery = await self.open()
        await self.queue._database.run(lambda c: c.execute("PRAGMA max_page_count = 1"))
        body = b'"%b"' % (b"x" * 9000)
        delivery.put(body)
        delivery.put(body)
        await self.settle()
        self.assertEqual((self.counters.webhook_queue, self.receiver.posted), (2, []))
        await self.queue._database.run(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
        await self.run_until(lambda: self.counters.webhook_events == 2, 1.0)
        self.assertEqual(self.counters.webhook_dropped, 0)
        await self.queue._database.run(lambda c: c.execute("PRAGMA max_page_count = 1"))
        delivery.put(b'"%b"' % (b"x" * 90000))
        await self.settle()
        await self.stop(delivery)
        self.assertEqual((self.counters.webhook_queue, self.counters.webhook_dropped), (0, 1))

    async def test_other_files(self) -> None:
        """A file that is not a queue is refused in one line, and left as it is."""
        path = Path(self.path)
        path.write_bytes(b"something else")  # noqa: ASYNC240
        error = await self.assertFailure(Deferred.fromCoroutine(self.open()), ConfigurationError)
        self.assertIn(self.path, str(error))
        self.assertEqual(path.read_bytes(), b"something else")  # noqa: ASYNC240

    async def test_stopping_in_time(self) -> None:
        """A silent receiver does not keep the server from stopping, and the event is kept."""
        self.receiver.always = SILENCE
        delivery = await self.open()
        delivery.put(b"1")
        await self.run_until(lambda: self.receiver.posted)
        stopped = Deferred.fromCoroutine(delivery.stop(5.0))
        self.clock.advance(5)
        await stopped
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.counters.webhook_dropped, 0)
        self.receiver.always = 204
        delivery = await self.open()
        await self.run_until(lambda: self.counters.webhook_events == 1)
        await self.stop(delivery)


class SocketTests(TestCase):
    """Posts to a real HTTP server."""

    async def test_connections_are_kept(self) -> None:
        """Posts that follow one another share a connection."""
        receiver = RealReceiver(self)
        receiver.always = (200, b"thanks")
        post = real_post(self, f"{receiver.url}/hook?a=b")
        for number in range(5):
            answer = await post.send(b"%d" % number, "d")
            self.assertEqual((answer.status, answer.body), (200, b"thanks"))
        self.assertEqual(receiver.connections, 1)
        self.assertEqual(receiver.posted[0].path, "/hook?a=b")

    async def test_a_closed_connection_is_replaced(self) -> None:
        """A connection that breaks off before an answer is tried once more, and no more."""
        receiver = RealReceiver(self)
        receiver.answers.extend([BREAK, 204, BREAK, BREAK, 204])
        post = real_post(self, receiver.url)
        self.assertEqual((await post.send(b"1", "d")).status, 204)
        await self.assertFailure(post.send(b"2", "d"), NoAnswer)
        self.assertEqual([posted.body for posted in receiver.posted], [b"1", b"1", b"2", b"2"])

    async def test_redirects_are_not_followed(self) -> None:
        """A redirect is an answer like any other."""
        receiver = RealReceiver(self)

        def redirect(posted: Posted) -> int:
            posted.request.setHeader("Location", f"{receiver.url}/elsewhere")
            posted.request.setHeader("Set-Cookie", "a=b")
            return 307

        receiver.always = redirect
        post = real_post(self, receiver.url)
        self.assertEqual((await post.send(b"1", "d")).status, 307)
        self.assertEqual((await post.send(b"2", "d")).status, 307)
        self.assertEqual(len(receiver.posted), 2)
        self.assertNotIn("cookie", receiver.posted[1].headers)

    async def test_large_answers_close_the_connection(self) -> None:
        """An answer that does not end is not read to its end."""
        receiver = RealReceiver(self)
        receiver.always = SILENCE
        post = real_post(self, receiver.url, max_answer=1000)
        sent = post.send(b"1", "d")
        posted = await receiver.arrivals.get()
        gone = posted.request.notifyFinish()
        posted.request.write(b"x" * 5000)
        answer = await sent
        self.assertEqual((answer.status, answer.body), (200, b""))
        await self.assertFailure(gone, Exception)

    async def test_endless_answers(self) -> None:
        """The deadline holds for the body of an answer as well, and closes the connection."""
        receiver = RealReceiver(self)
        receiver.always = SILENCE
        clock = Clock()
        post = real_post(self, receiver.url, clock, timeout=2.0)
        sent = post.send(b"1", "d")
        posted = await receiver.arrivals.get()
        gone = posted.request.notifyFinish()
        posted.request.write(b"x")
        clock.advance(2)
        error = await self.assertFailure(sent, NoAnswer)
        self.assertEqual(str(error), "no answer within 2 seconds")
        await self.assertFailure(gone, Exception)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_quiet(self) -> None:
        """Connections are made and ended without a word in the log."""
        receiver = RealReceiver(self)
        said: list[LogEvent] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        for _ in range(2):
            self.assertEqual((await real_post(self, receiver.url).send(b"1", "d")).status, 204)
        texts = [formatEvent(event) for event in said]
        self.assertEqual([text for text in texts if " factory " in text], [])

    async def test_nobody_listens(self) -> None:
        """A port where nobody listens is told as such."""
        receiver = RealReceiver(self)
        await receiver.stop()
        post = real_post(self, receiver.url)
        error = await self.assertFailure(post.send(b"1", "d"), NoAnswer)
        self.assertIn("refused", str(error))

    async def test_certificates_are_verified(self) -> None:
        """A receiver whose certificate nobody vouches for gets nothing."""
        receiver = RealReceiver(self, self_signed())
        post = real_post(self, receiver.url)
        error = await self.assertFailure(post.send(b"1", "d"), NoAnswer)
        self.assertIn("certificate verify failed", str(error))
        self.assertEqual(receiver.posted, [])

    async def test_a_whole_delivery(self) -> None:
        """Events of the heart arrive at a real server, signed, also after it was away."""
        receiver = RealReceiver(self)
        receiver.answers.extend([500, BREAK, BREAK])
        delivery = Delivery(
            MemoryQueue(),
            real_post(self, receiver.url),
            Counters(),
            reactor,
            max_events=100,
            max_bytes=10**6,
            random=lambda: 0.0,
        )
        hooks = Webhooks(delivery, reactor, events=["connect", "disconnect"], debounce=3.0)
        await hooks.open()
        hooks.connected(ALICE, "c-1", START)
        for _ in range(4):
            posted = await receiver.arrivals.get()
            self.assertTrue(posted.is_signed())
            self.assertEqual([event["event"] for event in posted.events], ["connect"])
        hooks.disconnected(ALICE, "c-1", 1000, START)
        await hooks.stop(5.0)
        self.assertEqual([e["event"] for e in receiver.posted[-1].events], ["disconnect"])


def self_signed() -> Any:
    """What a server needs for TLS with a certificate of its own making."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from twisted.internet.ssl import PrivateCertificate

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return PrivateCertificate.loadPEM(pem).options()


class PageTests(MemoryCase):
    """docs/webhooks.rst: its examples are run, its lists are those of the code."""

    text = PAGE.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """The examples in a language."""
        found = re.findall(rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", self.text)
        return [textwrap.dedent(block) for block in found]

    def table(self, title: str) -> list[list[str]]:
        """The rows of a list-table, without its header."""
        body = re.split(r"\n(?=\S)", self.text.split(f".. list-table:: {title}\n")[1])[0]
        rows = [re.split(r"\n     - ?", row) for row in body.split("\n   * - ")[1:]]
        return [[" ".join(cell.split()) for cell in row] for row in rows][1:]

    def posted(self) -> Posted:
        """A request that was signed now."""
        self.clock.rightNow = time.time()
        delivery = self.make_delivery()
        delivery.put(b'{"text": "h\xc3\xa9llo"}')
        self.gather()
        return self.receiver.posted[-1]

    def test_configuration(self) -> None:
        """The configuration is one that the server takes."""
        (block,) = self.blocks("toml")
        path = Path(self.mktemp())
        path.write_text(block, encoding="utf-8")
        settings = read_settings({}, {}, str(path))
        self.assertEqual(
            (settings.webhook_queue, settings.hook), ("disk", ("publish", "subscribe"))
        )

    def test_secret(self) -> None:
        """The command makes a secret that the server takes."""
        (command,) = self.blocks("bash")
        directory = make_state_dir(self)
        subprocess.run(["bash", "-c", command], cwd=directory, check=True)
        self.assertEqual(len(load_secret(os.path.join(directory, "webhook.key"))), 44)

    def test_verification_in_python(self) -> None:
        """The Python function tells genuine requests from others."""
        (block,) = self.blocks("python")
        names: dict[str, Any] = {}
        exec(block, names)
        is_genuine = names["is_genuine"]
        posted = self.posted()
        headers = {name.title(): value for name, value in posted.headers.items()}
        self.assertTrue(is_genuine(SECRET, headers, posted.body))
        self.assertFalse(is_genuine(b"t" * 32, headers, posted.body))
        self.assertFalse(is_genuine(SECRET, headers, posted.body + b" "))
        late = headers | {"X-Realtime-Timestamp": str(posted.timestamp + 1)}
        self.assertFalse(is_genuine(SECRET, late, posted.body))
        old = int(time.time()) - 600
        late["X-Realtime-Timestamp"] = str(old)
        late["X-Realtime-Signature"] = sign(SECRET, old, posted.body)
        self.assertFalse(is_genuine(SECRET, late, posted.body))

    def test_verification_in_node(self) -> None:
        """The JavaScript function tells genuine requests from others."""
        node = shutil.which("node")
        if node is None:
            raise SkipTest("needs node")
        (block,) = self.blocks("javascript")
        posted = self.posted()
        old = int(time.time()) - 600
        replay = {
            "x-realtime-timestamp": str(old),
            "x-realtime-signature": sign(SECRET, old, posted.body),
        }
        cases = [
            (SECRET, posted.headers, posted.body),
            (b"t" * 32, posted.headers, posted.body),
            (SECRET, posted.headers, posted.body + b" "),
            (SECRET, posted.headers | {"x-realtime-signature": "sha256="}, posted.body),
            (SECRET, replay, posted.body),
        ]
        given = [[secret.hex(), headers, body.hex()] for secret, headers, body in cases]
        program = (
            f"{block}\nconst bytes = (hex) => Buffer.from(hex, 'hex');\n"
            f"const cases = {json.dumps(given)};\n"
            "console.log(JSON.stringify(cases.map("
            "([s, headers, body]) => isGenuine(bytes(s), headers, bytes(body)))));\n"
        )
        done = subprocess.run(
            [node, "--input-type=module", "-"],
            input=program,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(json.loads(done.stdout), [True, False, False, False, False])

    def test_events(self) -> None:
        """The page lists every event, and its examples have the members of real ones."""
        self.assertEqual([row[0].strip("`") for row in self.table("Events")], list(EVENTS))
        hooks = self.make()
        hooks.connected(ALICE, "c-1", START)
        hooks.occupied("a")
        self.gather()
        example = json.loads(self.blocks("json")[0])["events"]
        self.assertEqual(
            [list(event) for event in example], [list(event) for event in self.receiver.events]
        )
        (request,) = self.blocks("http")
        for name, value in re.findall(r"(?m)^([\w-]+): (.+)$", request):
            given = self.receiver.posted[0].headers[name.lower()]
            self.assertEqual(re.sub(r"\w", "x", given)[:7], re.sub(r"\w", "x", value)[:7])

    def test_questions(self) -> None:
        """The question and the answers are those of the code."""
        question, *answers = self.blocks("json")[1:]
        self.assertEqual(len(answers), 4)
        asker = Hooks(
            memory_post(self.receiver, self.clock),
            self.counters,
            self.clock,
            kinds=["publish"],
            failure="deny",
        )
        outcomes = []
        for answer in answers:
            self.receiver.answers.append((200, answer.encode()))
            asked = Deferred.fromCoroutine(asker.ask("publish", ALICE, "c-1", topic="a", payload=1))
            asked.addErrback(lambda failure: str(failure.trap(Forbidden) and failure.value))
            outcomes.append(self.successResultOf(asked))
        self.assertEqual(
            outcomes,
            [
                Verdict(),
                "You are muted until noon",
                Verdict(payload=b'{"text": "h*llo"}'),
                Verdict(denied=("chat.staff",), reason="Staff only"),
            ],
        )
        self.assertEqual(list(json.loads(question)), list(self.receiver.posted[0].json))

    def test_metrics(self) -> None:
        """The page lists every counter of webhooks and hooks, with its meaning."""
        expected = [
            [f"``{family.name}{'_total' * (family.type == 'counter')}``", family.documentation]
            for family in Counters().collect()
            if re.search("_(web)?hook_", family.name)
        ]
        self.assertEqual(self.table("Metrics"), expected)

    def test_bounds(self) -> None:
        """The numbers of the page are those of the code."""
        text = " ".join(self.text.split())
        for words in (
            f"up to {BATCH_EVENTS} events or {webhook_delivery.BATCH_BYTES >> 10} KiB",
            f"{webhook_delivery.MEMORY_BYTES >> 20} MiB of them in memory, "
            f"{DISK_BYTES >> 30} GiB on disk",
            f"was answered {webhook_delivery.MAX_REJECTIONS} times",
            f"At most {MAX_UNDER_WAY} questions",
            f"within {webhook_delivery.TIMEOUT:g} seconds",
            f"at most {MAX_REASON} characters",
        ):
            self.assertIn(words, text)
