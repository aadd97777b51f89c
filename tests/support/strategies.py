"""Hypothesis strategies: topics, patterns, JSON texts, commands."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import strategies as st

INVISIBLE = "\u200b\u2060\ufeff"


def is_part_character(character: str) -> bool:
    """Whether a part of a topic may have `character`; told by category, not by range."""
    if character in "." + INVISIBLE or character.isspace():
        return False
    return unicodedata.category(character) not in ("Cc", "Cs", "Zs", "Zl", "Zp")


_part_characters = st.characters(codec="utf-8").filter(
    lambda character: is_part_character(character) and character not in "*>"
)
# Anything, with the characters that matter to the grammar made frequent.
name_characters = st.one_of(
    st.sampled_from("ab.*>$é \t\n\x7f\x85\xa0\u2028" + INVISIBLE), st.characters()
)
names = st.one_of(
    st.text(name_characters, max_size=12),
    st.builds(lambda text, times: text * times, st.text(name_characters, max_size=3), st.just(90)),
)


def _fits(name: str) -> bool:
    return len(name.encode()) <= 255


parts = st.text(_part_characters, min_size=1, max_size=8)
topics = st.lists(parts, min_size=1, max_size=5).map(".".join).filter(_fits)

# Names over an alphabet so small that matches are frequent.
small_topics = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
small_patterns = st.builds(
    lambda middle, last: ".".join([*middle, last]),
    st.lists(st.sampled_from("ab*"), max_size=3),
    st.sampled_from("ab*>"),
)
# The same, now and then among the server's own names.
server_topics = st.builds(
    lambda topic, own: "$s" + topic[1:] if own else topic,
    small_topics,
    st.sampled_from([False, False, True]),
)
server_patterns = st.builds(
    lambda pattern, own: "$s" + pattern[1:] if own and pattern != ">" else pattern,
    small_patterns,
    st.sampled_from([False, False, True]),
)

users = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
command_ids = st.one_of(st.text(max_size=20), st.integers(-(10**30), 10**30))

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8"), max_size=20),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=4),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), values, max_size=4),
    ),
    max_leaves=12,
)
# Numbers that no float holds: a codec that decodes them loses something.
_precise_numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
json_texts = st.one_of(
    st.builds(
        lambda value, ascii, indent: json.dumps(value, ensure_ascii=ascii, indent=indent),
        json_values,
        st.booleans(),
        st.sampled_from([None, 1]),
    ),
    _precise_numbers,
    st.lists(_precise_numbers, max_size=3).map(lambda numbers: "[" + " , ".join(numbers) + "]"),
).map(str.encode)

keys = st.text(min_size=1, max_size=128)
positions = st.fixed_dictionaries(
    {"offset": st.integers(0, 2**63 - 1), "epoch": st.text(max_size=128)}
)
# Members that may be left out never have the value that they then have.
commands = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("Subscribe"),
            "data": st.fixed_dictionaries(
                {"topics": st.lists(topics, max_size=4)},
                optional={
                    "recover": st.dictionaries(topics, positions, min_size=1, max_size=3),
                },
            ),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Unsubscribe"),
            "data": st.fixed_dictionaries({"topics": st.lists(topics, max_size=4)}),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("History"),
            "data": st.fixed_dictionaries(
                {"topic": topics},
                optional={
                    "since": positions,
                    "limit": st.integers(0, 99),
                    "reverse": st.just(True),
                },
            ),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Presence"),
            "data": st.fixed_dictionaries(
                {"topic": topics},
                optional={"limit": st.integers(0, 99), "after": users, "state": json_values},
            ),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Ping"),
            "data": st.fixed_dictionaries({}, optional={"timestamp": st.integers(0, 2**60)}),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {"type": st.just("Authenticate"), "data": st.fixed_dictionaries({"token": st.text()})},
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("Broadcast"),
            "data": st.fixed_dictionaries(
                {"topic": topics, "payload": json_values},
                optional={"key": keys, "echo": st.just(False)},
            ),
        },
        optional={"id": command_ids},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("DirectMessage"),
            "data": st.fixed_dictionaries(
                {"target_user": users, "payload": json_values}, optional={"key": keys}
            ),
        },
        optional={"id": command_ids},
    ),
)
# Bytes that are nearly commands: an edit or two away from one.
_fragments = st.sampled_from(
    [
        *[b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"1e999", b"-"],
        *[b"0", b"null", b"\xff", b"\x00", b"\xc3", b"\xef\xbb\xbf", b'"id":1,'],
        *[b"9" * 5000, b"[" * 3000],
    ]
)


@st.composite
def nearly_commands(draw: st.DrawFn) -> bytes:
    """Draw the text of a command, damaged in a few places."""
    text = json.dumps(draw(commands), ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 4)))
        text = text[:start] + draw(st.one_of(_fragments, st.binary(max_size=3))) + text[stop:]
    return text


hostile_bytes = st.one_of(st.binary(max_size=200), nearly_commands())
