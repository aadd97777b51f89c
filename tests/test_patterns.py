"""Tests of realtime.patterns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from realtime.patterns import PatternIndex
from realtime.topics import matches
from tests.support.strategies import server_patterns, server_topics, topics


def nodes(index: PatternIndex[int]) -> int:
    """How many nodes an index holds besides its root."""

    def below(node: object) -> int:
        return sum(1 + below(child) for child in node.children.values())  # type: ignore[attr-defined]

    return below(index._root)


class IndexMachine(RuleBasedStateMachine):
    """An index beside a dictionary that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.index: PatternIndex[int] = PatternIndex()
        self.naive: dict[str, int] = {}

    @rule(pattern=server_patterns, value=st.integers(0, 5))
    def add(self, pattern: str, value: int) -> None:
        """Add a pattern, perhaps one that is there."""
        self.index.add(pattern, value)
        self.naive[pattern] = value

    @rule(pattern=server_patterns)
    def remove(self, pattern: str) -> None:
        """Remove a pattern that may not be there."""
        try:
            self.index.remove(pattern)
        except KeyError:
            assert pattern not in self.naive
        else:
            del self.naive[pattern]

    @rule(data=st.data())
    def remove_one_of_them(self, data: st.DataObject) -> None:
        """Remove a pattern that is there."""
        if self.naive:
            pattern = data.draw(st.sampled_from(sorted(self.naive)))
            self.index.remove(pattern)
            del self.naive[pattern]

    @rule(topic=server_topics)
    def match(self, topic: str) -> None:
        """Both find the same values for a topic."""
        expected = [value for pattern, value in self.naive.items() if matches(pattern, topic)]
        assert sorted(self.index.match(topic)) == sorted(expected)

    @rule(pattern=server_patterns)
    def get(self, pattern: str) -> None:
        """Both have the same value for a pattern."""
        assert self.index.get(pattern) == self.naive.get(pattern)

    @invariant()
    def same_patterns(self) -> None:
        """Both hold the same patterns."""
        assert len(self.index) == len(self.naive)
        assert sorted(self.index) == sorted(self.naive)

    @invariant()
    def nothing_left_over(self) -> None:
        """The index has a node for each beginning of a pattern, and no other."""
        beginnings = {
            tuple(parts[:length])
            for parts in (pattern.split(".") for pattern in self.naive)
            for length in range(1, len(parts) + 1)
        }
        assert nodes(self.index) == len(beginnings)


class PatternIndexTests(SynchronousTestCase):
    """The index of patterns."""

    def test_as_a_dictionary_that_is_searched(self) -> None:
        """Whatever is added and removed, the index finds what a search through all finds."""
        run_state_machine_as_test(IndexMachine, settings=settings(max_examples=200))

    def test_examples(self) -> None:
        """Wildcards stand for one part, or for all that follow."""
        index: PatternIndex[str] = PatternIndex()
        for pattern in ("chat.*", "chat.>", "chat.general", ">", "*.general", "orders.>", "chat"):
            index.add(pattern, pattern)
        for topic, expected in [
            ("chat.general", ["*.general", ">", "chat.*", "chat.>", "chat.general"]),
            ("chat", [">", "chat"]),
            ("chat.a.b", [">", "chat.>"]),
            ("orders", [">"]),
            ("$sys", []),
            ("$sys.general", []),
        ]:
            self.assertEqual(sorted(index.match(topic)), expected, topic)

    def test_none_is_a_value(self) -> None:
        """A pattern whose value is None matches all the same."""
        index: PatternIndex[None] = PatternIndex()
        index.add("a.*", None)
        self.assertEqual((index.match("a.b"), len(index)), ([None], 1))

    @given(st.sets(topics, max_size=20))
    def test_empty_again(self, names: set[str]) -> None:
        """When all is removed, nothing is left."""
        index: PatternIndex[int] = PatternIndex()
        for name in names:
            index.add(name, 1)
        for name in names:
            self.assertEqual(index.match(name), [1])
            index.remove(name)
            self.assertEqual(index.match(name), [])
        self.assertEqual((len(index), nodes(index), list(index)), (0, 0, []))

    def test_one_that_only_begins_others_is_not_there(self) -> None:
        """The beginning of a pattern is no pattern."""
        index: PatternIndex[int] = PatternIndex()
        index.add("a.b.c", 1)
        self.assertIsNone(index.get("a.b"))
        self.assertEqual(index.match("a.b"), [])
        for name in ("a.b", "a.b.c.d", "x"):
            self.assertRaises(KeyError, index.remove, name)
        self.assertEqual(index.match("a.b.c"), [1])
