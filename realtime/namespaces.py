"""The `[[topic]]` tables of the TOML file: each is a rule, and makes a `Namespace`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from realtime.errors import ConfigurationError
from realtime.model import Namespace, SlowConsumers
from realtime.names import is_role, meant
from realtime.rules import EVERYONE, USER, plain_pattern
from realtime.topics import check_pattern, covers

_OWN: Final = frozenset({USER})


def read_namespaces(tables: Any, file: str) -> tuple[Namespace, ...]:
    """Read what TOML has under `topic`; raises `ConfigurationError` that names rule and key."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"topic in {file}: write each rule as a table [[topic]]")
    found: list[Namespace] = []
    for number, table in enumerate(tables, 1):
        pattern = table.get("pattern")
        shown = f" ({pattern})" if isinstance(pattern, str) and pattern.isprintable() else ""
        try:
            namespace = _namespace(table)
            _check_reachable(namespace, found)
        except ValueError as error:
            raise ConfigurationError(f"[[topic]] rule {number}{shown} in {file}: {error}") from None
        found.append(namespace)
    return tuple(found)


def _namespace(table: Mapping[str, Any]) -> Namespace:
    values: dict[str, Any] = {}
    for key, value in table.items():
        read = _READERS.get(key)
        if read is None:
            hint = meant(key, _READERS) or " (options stand before the first [[topic]])"
            raise ValueError(f"unknown key {key!r}{hint}")
        try:
            values[key] = read(value)
        except ValueError as error:
            shown = repr(value)
            if len(shown) > 60:
                shown = f"{shown[:57]}..."
            raise ValueError(f"{key}: {shown} {error}") from None
    if "pattern" not in values:
        raise ValueError("pattern is missing")
    personal = USER in values["pattern"].split(".")
    for key in ("subscribe", "publish", "read_presence", "read_history"):
        if USER in (values.get(key) or ()) and not personal:
            raise ValueError(f"{key}: {USER} needs a pattern that has {USER} as a part")
    if personal:
        values = {"subscribe": _OWN, "publish": _OWN} | values
    for key in ("subscribe", "publish"):
        # Reading is left as it is: a reader who is not named is one who may subscribe.
        if EVERYONE in (values.get(key) or ()):
            values[key] = None
    for key, needed in (
        ("history_ttl", "history_size"),
        ("durable", "history_size"),
        ("join_leave", "presence"),
    ):
        if values.get(key) and not values.get(needed):
            raise ValueError(f"{key} needs {needed}")
    return Namespace(**values)


def _check_reachable(namespace: Namespace, earlier: list[Namespace]) -> None:
    pattern = plain_pattern(namespace.pattern)
    for number, other in enumerate(earlier, 1):
        if covers(plain_pattern(other.pattern), pattern):
            raise ValueError(
                f"pattern: it never counts, for rule {number} ({other.pattern}) "
                "before it matches the same topics; put it first"
            )


def _pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    problem = check_pattern(value)
    if problem is not None:
        raise ValueError(f"is no pattern: {problem}")
    users = 0
    for place, part in enumerate(value.split(".")):
        if part == USER:
            users += 1
        elif USER in part:
            raise ValueError(f"is no pattern: {USER} stands for a whole part")
        elif part[0] == "$" and place == 0:
            raise ValueError("never counts: names that begin with $ are the server's own")
        elif part[0] == "$":
            # It could be a name, but if it is $user misspelt, what it was to close stays open.
            raise ValueError(f"is no rule's pattern: of parts that begin with $ it can have {USER}")
    if users > 1:
        raise ValueError(f"is no rule's pattern: it has {USER} more than once")
    return value


def _list(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("is not a list of roles")
    for entry in value:
        if entry not in (USER, EVERYONE) and not is_role(entry):
            raise ValueError(f"has {entry!r}, which is neither a role nor {USER} nor {EVERYONE}")
    return frozenset(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return str(value)

    return read


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is not a whole number")
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return value

    return read


def _number(low: float, high: float, unit: str) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"is not a number of {unit}")
        if not low <= value <= high:
            raise ValueError(f"is not between {low:g} and {high:g}")
        return float(value)

    return read


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "pattern": _pattern,
    "subscribe": _list,
    "publish": _list,
    "read_presence": _list,
    "read_history": _list,
    "history_size": _integer(0, 100_000),
    "history_ttl": _number(0, 3650 * 86400, "seconds"),
    "durable": _switch,
    "presence": _switch,
    "join_leave": _switch,
    "rate": _number(0.001, 1e6, "publications a second"),
    "max_payload": _integer(1, 16 * 1024 * 1024),
    "slow_consumers": _one_of(*get_args(SlowConsumers)),
}
