"""Tests for `realtime.turns`: the lean turn of the epoll reactor."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from realtime import turns
from realtime.turns import call_soon_of
from tests.support.websocket import dispose
from tests.support.without import Without


class Talker(Protocol):
    """Notes what happens to it; the test may add to that."""

    def connectionMade(self) -> None:
        """Join the others."""
        self.factory.made.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Note."""
        self.factory.events.append(data)  # type: ignore[union-attr]
        self.factory.on_data(self, data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note."""
        self.factory.events.append(reason.type)  # type: ignore[union-attr]


class TurnsTests(SynchronousTestCase):
    """`LeanTurns` on a reactor of its own."""

    def setUp(self) -> None:
        """Serve on a port, in turns that are never too short for all."""
        self.patch(turns, "_MAX_SECONDS", 60.0)
        self.reactor = EPollReactor()
        self.addCleanup(dispose, self.reactor)
        self.call_soon = call_soon_of(self.reactor)
        self.factory: Any = Factory.forProtocol(Talker)
        self.factory.noisy = False
        self.factory.made = []
        self.events: list[Any] = []
        self.factory.events = self.events
        self.factory.on_data = lambda talker, data: None
        self.port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self.end)

    def end(self) -> None:
        """Close everything."""
        self.port.stopListening()
        for talker in self.factory.made:
            talker.transport.abortConnection()
        self.turn(5)

    def turn(self, times: int = 1) -> None:
        """Let the reactor turn."""
        for _ in range(times):
            self.reactor.iterate(0)

    def connect(self) -> socket.socket:
        """Connect, and be accepted."""
        sock = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.addCleanup(sock.close)
        before = len(self.factory.made)
        for _ in range(1000):
            self.turn()
            if len(self.factory.made) > before:
                return sock
        raise AssertionError("not accepted")

    def test_installed(self) -> None:
        """It replaces the reactor's own turn."""
        self.assertIsInstance(self.reactor.doIteration, turns.LeanTurns)

    def test_soon(self) -> None:
        """What is asked for soon runs once, in order, after all reads of the turn."""
        one, two = self.connect(), self.connect()

        def on_data(talker: Talker, data: bytes) -> None:
            self.call_soon(lambda: self.events.append(("soon", data)))

        self.factory.on_data = on_data
        one.sendall(b"1")
        two.sendall(b"2")
        self.turn()
        self.assertEqual(set(self.events[:2]), {b"1", b"2"})
        self.assertEqual(self.events[2:], [("soon", data) for data in self.events[:2]])
        self.turn(3)
        self.assertEqual(len(self.events), 4)

    def test_busy_sockets_take_turns(self) -> None:
        """Where a turn is too short for all, who has waited longest is next, for a few bytes."""
        socks = [self.connect() for _ in range(5)]
        talkers = list(self.factory.made)
        for sock in socks:
            sock.sendall(b"x" * 100)
        # Two sockets take up a turn's time.
        self.patch(turns, "monotonic", count().__next__)
        self.patch(turns, "_MAX_SECONDS", 2.5)
        self.patch(turns, "_SMALL_READ", 1)
        self.patch(turns, "_READ_SIZE", 2)
        served: list[int] = []
        self.factory.on_data = lambda talker, data: served.append(talkers.index(talker))
        self.turn(10)
        self.assertEqual(len(served), 20)
        self.assertTrue(all(served.count(each) >= 3 for each in range(5)), served)
        self.assertEqual(self.events, [b"xx"] * 2 + [b"x"] * 18)

    def test_soon_from_soon(self) -> None:
        """What that asks for soon runs in the next turn, which does not wait."""
        self.call_soon(lambda: self.call_soon(lambda: self.events.append("later")))
        self.turn()
        self.assertEqual(self.events, [])
        self.reactor.iterate(60)
        self.assertEqual(self.events, ["later"])

    def test_failing_soon(self) -> None:
        """One that fails is logged, and the others run."""
        self.call_soon(lambda: 1 / 0)
        self.call_soon(lambda: self.events.append("next"))
        self.turn()
        self.assertEqual(self.events, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_protocol(self) -> None:
        """A protocol that fails is logged and loses its connection; the others do not."""
        bad, good = self.connect(), self.connect()

        def on_data(talker: Talker, data: bytes) -> None:
            if data == b"bad":
                raise ZeroDivisionError

        self.factory.on_data = on_data
        bad.sendall(b"bad")
        good.sendall(b"good")
        self.turn()
        self.assertEqual(
            sorted(map(str, self.events)), ["<class 'ZeroDivisionError'>", "b'bad'", "b'good'"]
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(bad.recv(30), b"")
        good.sendall(b"more")
        self.turn()
        self.assertEqual(self.events[-1], b"more")

    def test_end(self) -> None:
        """A connection that the client ends is done, after what it sent last."""
        sock = self.connect()
        sock.sendall(b"last")
        sock.close()
        self.turn(3)
        self.assertEqual(self.events, [b"last", ConnectionDone])

    def test_reset(self) -> None:
        """A connection that is reset is lost."""
        sock = self.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        self.turn(3)
        self.assertEqual(self.events, [ConnectionLost])

    def test_half_closed(self) -> None:
        """One who ends its half is done, as with the reactor's own turn."""
        sock = self.connect()
        sock.shutdown(socket.SHUT_WR)
        self.turn(3)
        self.assertEqual(self.events, [ConnectionDone])
        self.assertEqual(sock.recv(30), b"")

    def test_ended_by_another(self) -> None:
        """One whom another ends or holds in the same turn is not read in it."""
        for end in ("abortConnection", "pauseProducing"):
            pair = self.connect(), self.connect()
            talkers = self.factory.made[-2:]

            def on_data(talker: Talker, data: bytes, end: str = end, two: Any = talkers) -> None:
                (other,) = set(two) - {talker}
                getattr(other.transport, end)()

            self.factory.on_data = on_data
            self.events.clear()
            for sock in pair:
                sock.sendall(b"x")
            self.turn()
            self.assertEqual(self.events, [b"x"])

    def test_writes(self) -> None:
        """What a transport holds back is written as the client reads, then the end comes."""
        sock = self.connect()
        (talker,) = self.factory.made
        talker.transport.write(b"x" * 5_000_000)
        talker.transport.loseConnection()
        sock.setblocking(False)
        got = 0
        for _ in range(100_000):
            self.turn()
            try:
                data = sock.recv(1 << 20)
            except BlockingIOError:
                continue
            if not data:
                break
            got += len(data)
        self.assertEqual(got, 5_000_000)
        self.assertEqual(self.events, [ConnectionDone])

    def test_whole_run(self) -> None:
        """A reactor so equipped runs timers, calls from threads and readers, and stops."""
        sock = self.connect()
        reactor = self.reactor

        def on_data(talker: Talker, data: bytes) -> None:
            reactor.callInThread(reactor.callFromThread, reactor.stop)

        self.factory.on_data = on_data
        reactor.callLater(0.01, sock.sendall, b"x")
        reactor.run(installSignalHandlers=False)
        self.assertEqual(self.events[0], b"x")

    def test_fails_twice(self) -> None:
        """The reactor goes on though a protocol fails at its end too."""
        sock = self.connect()
        reactor = self.reactor

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError

        self.factory.on_data = fail
        self.factory.made[0].connectionLost = fail
        sock.sendall(b"x")
        reactor.callLater(0.01, self.call_soon, reactor.stop)
        reactor.run(installSignalHandlers=False)
        self.assertEqual(self.events, [b"x"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class ChoiceTests(SynchronousTestCase):
    """Where it is used, and where not."""

    def test_other_reactors(self) -> None:
        """Other reactors, and one where it is not allowed, use their own timers."""
        clock = Clock()
        done: list[int] = []
        call_soon_of(clock)(lambda: done.append(1))
        self.assertEqual(done, [])
        clock.advance(0)
        self.assertEqual(done, [1])
        for reactor, allow in ((SelectReactor(), True), (EPollReactor(), False)):
            self.addCleanup(dispose, reactor)
            call_soon_of(reactor, allow)(lambda: done.append(2))
            self.assertNotIn("doIteration", vars(reactor))
            reactor.iterate(0)
            self.assertEqual(done.pop(), 2)

    def test_changed_reactor(self) -> None:
        """A reactor without the private names keeps its own turn."""
        for name in ("_poller", "_selectables", "_doReadOrWrite", "_disconnectSelectable"):
            reactor = EPollReactor()
            self.addCleanup(dispose, reactor)
            with Without(reactor, name):
                call_soon_of(reactor)
            self.assertNotIn("doIteration", vars(reactor), name)

    def test_twice_on_one_reactor(self) -> None:
        """Two parts may use one reactor."""
        reactor = EPollReactor()
        self.addCleanup(dispose, reactor)
        done: list[int] = []
        calls: list[Callable[..., object]] = [call_soon_of(reactor), call_soon_of(reactor)]
        for number, call_soon in enumerate(calls):
            call_soon(lambda number=number: done.append(number))
        reactor.iterate(0)
        reactor.iterate(0)
        self.assertEqual(sorted(done), [0, 1])
