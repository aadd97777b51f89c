"""Topic names and patterns: grammar and matching (DESIGN section 1). Pure.

A topic is 1 to 255 bytes of UTF-8, dot-separated, without empty parts, white space or control
characters. A pattern may have `*` for one part, and `>` as its last part for one part or more.
Names that begin with `$` are the server's: a wildcard in the first part matches none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_BYTES = 255
# Of patterns, which bounds what matching one topic can cost, whatever is subscribed to.
MAX_PARTS = 10
MAX_STARS = 3

# White space and control characters as Unicode has them, and the lone surrogates, which no
# UTF-8 text can hold.  A part is anything else; `*` and `>` are refused apart.
_PART = r"[^\s.\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u2060\ufeff\ud800-\udfff]+"
_NAME = re.compile(rf"{_PART}(?:\.{_PART})*")


def check_topic(topic: str) -> str | None:
    """Say what is wrong with `topic` as a topic name, or None when it is one."""
    problem = _check_name(topic)
    if problem is None and ("*" in topic or ">" in topic):
        return "a topic cannot contain '*' or '>', which belong to patterns"
    return problem


def check_pattern(pattern: str) -> str | None:
    """Say what is wrong with `pattern`, or None when it is a pattern or a plain topic."""
    problem = _check_name(pattern)
    if problem is not None:
        return problem
    parts = pattern.split(".")
    for place, part in enumerate(parts, 1):
        if part == "*" or (part == ">" and place == len(parts)):
            continue
        if part == ">":
            return "'>' can only be the last part of a pattern"
        if "*" in part or ">" in part:
            return "'*' and '>' stand for whole parts of a pattern"
    if is_pattern(pattern) and (len(parts) > MAX_PARTS or parts.count("*") > MAX_STARS):
        return f"a pattern has at most {MAX_PARTS} parts, {MAX_STARS} of them '*'"
    return None


def is_pattern(name: str) -> bool:
    """Whether a valid name has wildcards."""
    return "*" in name or ">" in name


def matches(pattern: str, topic: str) -> bool:
    """Whether a valid pattern matches a valid topic."""
    return covers(pattern, topic)


def covers(pattern: str, other: str) -> bool:
    """Whether all that `other` (a topic or a pattern) can match is matched by `pattern` too."""
    if pattern == other:
        return True
    if other[0] == "$" and pattern[0] in "*>":
        return False
    wanted = pattern.split(".")
    given = other.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(given) > place
        if place >= len(given) or given[place] == ">":
            return False
        if part not in ("*", given[place]):
            return False
    return len(given) == len(wanted)


def overlaps(pattern: str, other: str) -> bool:
    """Whether some topic is matched by both of two patterns or topics."""
    if (other[0] == "$" and pattern[0] in "*>") or (pattern[0] == "$" and other[0] in "*>"):
        return False
    wanted = pattern.split(".")
    given = other.split(".")
    for one, two in zip(wanted, given, strict=False):
        if one == ">" or two == ">":
            return True
        if one != two and one != "*" and two != "*":
            return False
    return len(wanted) == len(given)


def any_covers(patterns: Iterable[str], name: str) -> bool:
    """Whether one of `patterns` covers `name`."""
    return any(covers(pattern, name) for pattern in patterns)


def _check_name(name: str) -> str | None:
    if not name:
        return "a topic cannot be empty"
    if len(name) > MAX_BYTES or (
        not name.isascii() and len(name.encode("utf-8", "surrogatepass")) > MAX_BYTES
    ):
        return f"a topic has at most {MAX_BYTES} bytes"
    if _NAME.fullmatch(name) is None:
        return "a topic is dot-separated parts without white space or control characters"
    return None
