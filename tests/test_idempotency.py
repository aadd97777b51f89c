"""Tests of realtime.idempotency."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.idempotency import Keys, Scope
from realtime.interfaces import KEY_TTL
from realtime.model import Position
from tests.support import strategies  # noqa: F401 - loads the profile

KEY: Scope = ("a", "user_1", "k")
FIRST = Position(1, "e")


class KeysTests(SynchronousTestCase):
    """What is remembered of keys."""

    def test_remembers(self) -> None:
        """A key tells what came of its publication until `KEY_TTL` seconds are over."""
        keys: Keys[Position | None, str] = Keys()
        self.assertIsNone(keys.find(KEY, 0))
        keys.done(KEY, FIRST, 0)
        self.assertEqual(keys.find(KEY, KEY_TTL - 0.1), (FIRST,))
        self.assertIsNone(keys.find(KEY, KEY_TTL))

    def test_no_position(self) -> None:
        """That there was no position is an outcome, too."""
        keys: Keys[Position | None, str] = Keys()
        keys.done(KEY, None, 0)
        self.assertEqual(keys.find(KEY, 1), (None,))

    def test_scope(self) -> None:
        """A key of another topic or user is another key."""
        keys: Keys[Position | None, str] = Keys()
        keys.done(KEY, FIRST, 0)
        for other in (("b", "user_1", "k"), ("a", "user_2", "k"), ("a", "user_1", "l")):
            self.assertIsNone(keys.find(other, 1))

    def test_under_way(self) -> None:
        """Those who come while a key is under way are told of its end."""
        keys: Keys[Position | None, str] = Keys()
        self.assertIsNone(keys.waiting(KEY))
        keys.begin(KEY)
        waiting = keys.waiting(KEY)
        assert waiting is not None
        waiting.append("second")
        self.assertIsNone(keys.find(KEY, 0))
        self.assertEqual(keys.done(KEY, FIRST, 0), ["second"])
        self.assertIsNone(keys.waiting(KEY))
        self.assertEqual(keys.find(KEY, 1), (FIRST,))

    def test_failure(self) -> None:
        """After a failure a key is as new."""
        keys: Keys[Position | None, str] = Keys()
        keys.begin(KEY)
        waiting = keys.waiting(KEY)
        assert waiting is not None
        waiting.append("second")
        self.assertEqual(keys.failed(KEY), ["second"])
        self.assertIsNone(keys.find(KEY, 0))
        self.assertIsNone(keys.waiting(KEY))

    def test_bounded(self) -> None:
        """Above the limit the oldest key is forgotten first."""
        keys: Keys[Position | None, str] = Keys(limit=2)
        for number in range(3):
            keys.done(("a", "u", str(number)), FIRST, number)
        self.assertEqual(len(keys), 2)
        self.assertIsNone(keys.find(("a", "u", "0"), 3))

    def test_expire(self) -> None:
        """What is over is forgotten, a bounded number at a time."""
        keys: Keys[Position | None, str] = Keys()
        for number in range(10):
            keys.done(("a", "u", str(number)), FIRST, number)
        keys.expire(KEY_TTL + 7, budget=5)
        self.assertEqual(len(keys), 5)
        keys.expire(KEY_TTL + 7)
        self.assertEqual(len(keys), 2)

    @given(
        st.lists(
            st.tuples(st.sampled_from(["find", "done", "expire"]), st.integers(0, 4)), max_size=60
        ),
        st.integers(1, 4),
    )
    def test_model(self, steps: list[tuple[str, int]], limit: int) -> None:
        """Any run of calls answers as a plain list of what was done would."""
        keys: Keys[Position | None, str] = Keys(limit=limit)
        log: list[tuple[float, Scope, Position]] = []
        now = 0.0
        for number, (what, name) in enumerate(steps):
            now += 50
            scope = ("a", "u", str(name))
            known = [e for e in log[-limit:] if e[1] == scope and e[0] + KEY_TTL > now]
            if what == "find":
                expected = (known[-1][2],) if known else None
                self.assertEqual(keys.find(scope, now), expected)
            elif what == "expire":
                keys.expire(now)
            elif not known:
                log = [entry for entry in log if entry[1] != scope]
                log.append((now, scope, Position(number, "e")))
                keys.done(scope, Position(number, "e"), now)
            self.assertLessEqual(len(keys), limit)
