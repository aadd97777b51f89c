"""Tests of realtime.wheel."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from realtime.wheel import TimerWheel
from tests.support import strategies  # noqa: F401

START = 1000


class WheelMachine(RuleBasedStateMachine):
    """A wheel beside a list of what is due when."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel: TimerWheel[str] = TimerWheel(START)
        self.now = START
        self.due: list[tuple[int, str]] = []

    @rule(item=st.sampled_from("abcdef"), delay=st.integers(-3, 20))
    def schedule(self, item: str, delay: int) -> None:
        """Schedule an item, perhaps in the past, perhaps once more."""
        second = max(self.now + delay, self.now + 1)
        assert self.wheel.schedule(item, self.now + delay) == second
        if (second, item) not in self.due:
            self.due.append((second, item))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel what is scheduled, or what is not."""
        unknown = (self.now + 7, "never")
        entry = data.draw(st.sampled_from([*self.due, unknown]))
        self.wheel.cancel(entry[1], entry[0])
        if entry in self.due:
            self.due.remove(entry)

    @rule(step=st.one_of(st.integers(-2, 4), st.integers(0, 1000)))
    def advance(self, step: int) -> None:
        """Move the time by little or much, or back."""
        moved = self.wheel.advance(self.now + step)
        self.now = max(self.now, self.now + step)
        expected = sorted(entry[0] for entry in self.due if entry[0] <= self.now)
        seconds = {}
        for second, item in self.due:
            seconds.setdefault(second, []).append(item)
        naive = [item for second in sorted(set(expected)) for item in seconds[second]]
        assert moved == naive
        self.due = [entry for entry in self.due if entry[0] > self.now]

    @invariant()
    def same_size(self) -> None:
        """The wheel holds what the list holds."""
        assert len(self.wheel) == len(self.due)


class TimerWheelTests(SynchronousTestCase):
    """A wheel of deadlines."""

    def test_agrees_with_a_list(self) -> None:
        """In any order of use the wheel gives what a list of deadlines gives, in its order."""
        run_state_machine_as_test(WheelMachine, settings=settings(max_examples=100))

    def test_past_is_the_next_tick(self) -> None:
        """What should have been due already is due at the next tick."""
        wheel: TimerWheel[str] = TimerWheel(START)
        self.assertEqual(wheel.schedule("a", START - 5), START + 1)
        self.assertEqual(wheel.schedule("b", START), START + 1)
        self.assertEqual(wheel.advance(START), [])
        self.assertEqual(wheel.advance(START + 1), ["a", "b"])
        self.assertEqual(wheel.advance(START + 100), [])

    def test_time_that_stands_or_goes_back(self) -> None:
        """A clock set back neither repeats deadlines nor loses them."""
        wheel: TimerWheel[str] = TimerWheel(START)
        wheel.schedule("a", START + 2)
        self.assertEqual(wheel.advance(START - 100), [])
        self.assertEqual(wheel.advance(START + 2), ["a"])
        self.assertEqual(wheel.advance(START + 2), [])

    def test_cancelled_leaves_nothing(self) -> None:
        """Seconds of which all was cancelled take no memory while their time has not come."""
        wheel: TimerWheel[int] = TimerWheel(START)
        for number in range(100):
            wheel.cancel(number, wheel.schedule(number, START + 1000 + number))
        self.assertEqual(wheel._due, {})

    def test_jump_is_cheap(self) -> None:
        """A clock that leaps by years costs what is due, not the seconds between."""
        wheel: TimerWheel[str] = TimerWheel(0)
        wheel.schedule("late", 10)
        wheel.schedule("early", 5)
        wheel.schedule("later", 10**15 + 1)
        self.assertEqual(wheel.advance(10**15), ["early", "late"])
        self.assertEqual(len(wheel), 1)

    def test_items_may_be_scheduled_again_while_served(self) -> None:
        """Who is served may be scheduled at once, for the next tick at the soonest."""
        wheel: TimerWheel[str] = TimerWheel(START)
        wheel.schedule("a", START + 1)
        for item in wheel.advance(START + 1):
            self.assertEqual(wheel.schedule(item, START + 1), START + 2)
        self.assertEqual(wheel.advance(START + 2), ["a"])

    def test_limit(self) -> None:
        """With a limit the rest stays due, in order, and can still be cancelled."""
        wheel: TimerWheel[str] = TimerWheel(0)
        for second, item in ((1, "a"), (1, "b"), (2, "c"), (2, "d"), (3, "e")):
            wheel.schedule(item, second)
        self.assertEqual(wheel.advance(2, 1), ["a"])
        self.assertEqual(wheel.advance(2, 2), ["b", "c"])
        wheel.cancel("d", 2)
        self.assertEqual(wheel.schedule("f", 1), 3)
        self.assertEqual(wheel.advance(3, 10), ["e", "f"])
        self.assertEqual((wheel.advance(3, 10), len(wheel)), ([], 0))
