"""Webhooks of a process that is killed: what its queue on disk had taken still arrives."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from realtime.metrics import Counters
from realtime.webhook_delivery import Delivery
from realtime.webhook_queue_sqlite import DISK_BYTES, DiskQueue
from tests.support.identity import make_state_dir
from tests.support.receiver import Posted, RealReceiver, real_post
from tests.support.server import environment

# Puts events that are numbers, ten a millisecond, and says how many the file has.
PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from realtime.metrics import Counters
from realtime.signed_post import Connections, SignedPost
from realtime.webhook_delivery import Delivery
from realtime.webhook_queue_sqlite import DISK_BYTES, DiskQueue

path, url = sys.argv[1:]
stored = put = 0

class Watched(DiskQueue):
    async def add(self, events):
        global stored
        await super().add(events)
        stored += len(events)
        print(stored, flush=True)

def step():
    global put
    for _ in range(10):
        delivery.put(b"%d" % put)
        put += 1

post = SignedPost(
    url, b"s" * 32, Connections(reactor, kept=1).agent, reactor, timeout=10.0, max_answer=4096
)
delivery = Delivery(
    Watched(path, reactor), post, Counters(), reactor, max_events=10**6, max_bytes=DISK_BYTES
)
opened = Deferred.fromCoroutine(delivery.open())
opened.addCallback(lambda _: LoopingCall(step).start(0.001))
opened.addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
reactor.run()
"""


class Child(ProcessProtocol):
    """The process, and what it says."""

    def __init__(self) -> None:
        self.ended: Deferred[Failure] = Deferred()
        self.output = b""
        self.complaints = b""

    def outReceived(self, data: bytes) -> None:
        """Keep what it says."""
        self.output += data

    def errReceived(self, data: bytes) -> None:
        """Keep what it complains of."""
        self.complaints += data

    def processEnded(self, reason: Failure) -> None:
        """Tell of its end."""
        self.ended.callback(None)

    @property
    def stored(self) -> int:
        """How many events the file has, as far as it has said."""
        return int((b"0\n" + self.output).rpartition(b"\n")[0].splitlines()[-1])


class KillTests(TestCase):
    """kill -9, and another process on the same file."""

    timeout = 120

    async def end(self, child: Child, process: Any) -> None:
        """End a process that a failed test has left."""
        if not child.ended.called:
            process.signalProcess("KILL")
            await child.ended

    async def test_kill(self) -> None:
        """Every event that was on disk arrives, in order; only the last batch comes again."""
        path = os.path.join(make_state_dir(self), "webhooks.sqlite3")
        receiver = RealReceiver(self)
        batches = 0

        def take_some(posted: Posted) -> Any:
            nonlocal batches
            batches += 1
            return 204 if batches <= 7 else 503

        receiver.always = take_some
        child = Child()
        process = reactor.spawnProcess(
            child,
            sys.executable,
            [sys.executable, "-c", PROGRAM, path, receiver.url],
            env=environment(),
        )
        self.addCleanup(self.end, child, process)
        while batches < 8 or child.stored < 2000:
            await receiver.arrivals.get()
        process.signalProcess("KILL")
        await child.ended
        self.assertEqual(child.complaints, b"")
        taken = [event for posted in receiver.posted[:7] for event in posted.events]
        self.assertEqual(taken, list(range(len(taken))))
        again = receiver.posted[7].events

        receiver.always = 204
        receiver.posted.clear()
        counters = Counters()
        queue = DiskQueue(path, reactor)
        post = real_post(self, receiver.url)
        delivery = Delivery(queue, post, counters, reactor, max_events=10**6, max_bytes=DISK_BYTES)
        await delivery.open()
        waiting = counters.webhook_queue
        await delivery.stop(60.0)
        self.assertEqual((counters.webhook_events, counters.webhook_queue), (waiting, 0))
        rest = receiver.events
        self.assertEqual(rest, list(range(rest[0], rest[-1] + 1)))
        # A batch leaves the file before the next is posted: only that one comes again.
        self.assertEqual(rest[0], again[0])
        self.assertGreaterEqual(rest[-1] + 1, child.stored)
