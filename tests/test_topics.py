"""Tests of realtime.topics."""

from __future__ import annotations

from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.topics import (
    any_covers,
    check_pattern,
    check_topic,
    covers,
    is_pattern,
    matches,
    overlaps,
)
from tests.support.strategies import (
    is_part_character,
    name_characters,
    names,
    server_patterns,
    server_topics,
    topics,
)


def naive_is_name(name: str) -> bool:
    """The grammar of DESIGN section 1, character by character."""
    try:
        if not 1 <= len(name.encode()) <= 255:
            return False
    except UnicodeEncodeError:
        return False
    return all(
        part != "" and all(is_part_character(character) for character in part)
        for part in name.split(".")
    )


def naive_is_pattern(name: str) -> bool:
    """A name of which wildcards are whole parts, `>` the last."""
    if not naive_is_name(name):
        return False
    *most, last = name.split(".")
    wild = {"*", ">"} & {*most, last}
    if wild and (len(most) >= 10 or [*most, last].count("*") > 3):
        return False
    return all(part == "*" or not {"*", ">"} & set(part) for part in most) and (
        last in ("*", ">") or not {"*", ">"} & set(last)
    )


def naive_matches(pattern: list[str], topic: list[str]) -> bool:
    """Match part by part, recursively."""
    if pattern[0] in ("*", ">") and topic[0].startswith("$"):
        return False
    return _naive_rest(pattern, topic)


def _naive_rest(pattern: list[str], topic: list[str]) -> bool:
    match pattern, topic:
        case [], []:
            return True
        case [">"], [_, *_]:
            return True
        case ["*", *pattern_rest], [_, *topic_rest]:
            return _naive_rest(pattern_rest, topic_rest)
        case [wanted, *pattern_rest], [given, *topic_rest]:
            return wanted == given and _naive_rest(pattern_rest, topic_rest)
    return False


# All topics of up to five parts; no pattern has more than four, nor the letter `c`. The server's
# own begin with `$`; what stands deeper in them is as in others.
UNIVERSE = [list(parts) for length in range(1, 6) for parts in product("abc", repeat=length)]
UNIVERSE += [["$s", *topic[1:]] for topic in UNIVERSE if topic[0] == "a"]
UNIVERSE += [["a", "$s"], ["c", "$s"]]


def expand(pattern: str) -> frozenset[int]:
    """Which topics of the universe a pattern matches."""
    parts = pattern.split(".")
    return frozenset(place for place, topic in enumerate(UNIVERSE) if naive_matches(parts, topic))


class GrammarTests(SynchronousTestCase):
    """What is a topic, and what a pattern."""

    def test_topics(self) -> None:
        """Names of the design and the reference are topics."""
        for name in [
            "chat.general",
            "notifications",
            "a",
            "$sys.x",
            "é.日本.🎉",
            "a-b_c:d/e",
        ]:
            self.assertIsNone(check_topic(name), name)
            self.assertIsNone(check_pattern(name), name)
            self.assertFalse(is_pattern(name))

    def test_not_topics(self) -> None:
        """Empty parts, white space, control and invisible characters are refused."""
        for name in [
            "",
            ".",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a\tb",
            "a\nb",
            "a\n",
            "\x00",
            "a\x7f",
            "a\x85",
            "a\xa0b",
            "a\u2028",
            "a\u3000",
            "\ufeffa",
            "a\u200b",
            "\ud800",
        ]:
            self.assertIsNotNone(check_topic(name), ascii(name))
            self.assertIsNotNone(check_pattern(name), ascii(name))

    def test_length_is_in_bytes(self) -> None:
        """255 bytes of UTF-8 pass and 256 do not, however many characters they are."""
        for name, fits in [
            ("a" * 255, True),
            ("a" * 256, False),
            ("é" * 127 + "a", True),
            ("é" * 128, False),
            ("日" * 85, True),
            ("日" * 85 + "a", False),
            ("🎉" * 64, False),
        ]:
            self.assertEqual(check_topic(name) is None, fits, len(name))
            self.assertEqual(check_pattern(name) is None, fits, len(name))

    def test_wildcards(self) -> None:
        """`*` stands for a part, `>` for the rest; a topic has neither."""
        for name, good in [
            ("*", True),
            (">", True),
            ("chat.*", True),
            ("chat.>", True),
            ("*.*.>", True),
            ("*.a", True),
            (">.a", False),
            (">.>", False),
            ("a*", False),
            ("a.*b", False),
            ("a.>b", False),
            ("**", False),
            ("*>", False),
        ]:
            self.assertEqual(check_pattern(name) is None, good, name)
            self.assertIsNotNone(check_topic(name), name)
            self.assertTrue(is_pattern(name))

    def test_says_what_is_wrong(self) -> None:
        """Each kind of mistake has a sentence of its own."""
        problems = [check_pattern(name) for name in ("", "a" * 256, "a..b", ">.a", "a*")]
        self.assertEqual(len(set(problems) | {check_topic("*"), None}), 7)

    @given(names)
    def test_agrees_with_naive_grammar(self, name: str) -> None:
        """Any text is a topic or pattern exactly where the naive grammar says so."""
        plain = "*" not in name and ">" not in name
        self.assertEqual(check_topic(name) is None, naive_is_name(name) and plain)
        self.assertEqual(check_pattern(name) is None, naive_is_pattern(name))

    @given(name_characters)
    def test_agrees_on_each_character(self, character: str) -> None:
        """Any one character is good between two others exactly where the naive grammar says so."""
        name = f"a{character}b"
        self.assertEqual(
            check_topic(name) is None, character not in "*>" and naive_is_name(name), ascii(name)
        )

    @given(topics)
    def test_topics_pass(self, topic: str) -> None:
        """Whatever is built as the design describes topics is one."""
        self.assertIsNone(check_topic(topic))


class PatternSizeTests(SynchronousTestCase):
    """Patterns that would make matching slow."""

    def test_parts_and_stars(self) -> None:
        """A pattern has at most 10 parts, 3 of them `*`; a topic may have as many as fit."""
        for good in ("*.*.*.>", "a." * 9 + "*", "a." * 9 + ">", "a." * 100 + "a"):
            self.assertIsNone(check_pattern(good), good)
        for bad in ("*.*.*.*", "a." * 10 + "*", "a." * 10 + ">"):
            self.assertIsNotNone(check_pattern(bad), bad)


class MatchingTests(SynchronousTestCase):
    """Patterns against topics and against each other."""

    def test_examples(self) -> None:
        """The examples of DESIGN section 1."""
        for pattern, topic, expected in [
            ("chat.*", "chat.general", True),
            ("chat.*", "chat", False),
            ("chat.*", "chat.a.b", False),
            ("chat.>", "chat.general", True),
            ("chat.>", "chat.a.b.c", True),
            ("chat.>", "chat", False),
            (">", "a", True),
            ("*", "a.b", False),
            ("chat.general", "chat.general", True),
            ("chat.general", "chat.generals", False),
            ("chat.general", "chat.general.more", False),
            ("*.b", "a.b", True),
            ("*", "$sys", False),
            (">", "$sys", False),
            ("*.load", "$sys.load", False),
            (">", "$sys.load", False),
            ("$sys.>", "$sys.load", True),
            ("$sys.*", "$sys.load", True),
            ("a.*", "a.$sys", True),
        ]:
            self.assertIs(matches(pattern, topic), expected, (pattern, topic))

    @given(server_patterns, server_topics)
    def test_matches_agrees_with_recursion(self, pattern: str, topic: str) -> None:
        """Matching agrees with a recursive matcher."""
        self.assertIs(matches(pattern, topic), naive_matches(pattern.split("."), topic.split(".")))

    @given(server_patterns, server_patterns)
    @example(">", ">")
    @example("*.>", ">")
    @example("a.>", "a.*")
    @example("a.*", "a.>")
    @example("a.>", "a.*.>")
    @example(">", "$s")
    @example("*", "$s.>")
    def test_covers_is_inclusion(self, pattern: str, other: str) -> None:
        """One pattern covers another exactly where it matches all topics that the other does."""
        self.assertIs(covers(pattern, other), expand(pattern) >= expand(other))

    @given(server_patterns, server_patterns)
    @example(">", "*.>")
    @example("a.>", "a")
    @example("a.*", "*.b")
    @example(">", "$s")
    @example("$s.>", "*.a")
    def test_overlaps_is_intersection(self, pattern: str, other: str) -> None:
        """Two patterns overlap exactly where one topic is matched by both."""
        expected = bool(expand(pattern) & expand(other))
        self.assertIs(overlaps(pattern, other), expected)
        self.assertIs(overlaps(other, pattern), expected)

    @given(topics, topics)
    def test_topics_cover_themselves_alone(self, topic: str, other: str) -> None:
        """A topic covers itself and no other."""
        self.assertTrue(covers(topic, topic))
        self.assertIs(covers(topic, other), topic == other)

    @given(st.lists(server_patterns, max_size=3), server_topics)
    def test_any_covers(self, patterns: list[str], topic: str) -> None:
        """A list of patterns covers what one of them covers; an empty one nothing."""
        expected = any(naive_matches(pattern.split("."), topic.split(".")) for pattern in patterns)
        self.assertIs(any_covers(patterns, topic), expected)
