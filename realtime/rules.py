"""Who may do what with which topic: the rules of the configuration, in their order. Pure.

The first rule whose pattern matches a topic is its namespace. Where a token has permissions of its
own for a right, these decide instead of the rule's roles. What no rule names is open to every
authenticated user, or in strict mode closed; names that begin with `$` are the server's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from realtime.model import Identity, Namespace
from realtime.patterns import PatternIndex
from realtime.topics import any_covers, covers, is_pattern, overlaps

Right: TypeAlias = Literal["subscribe", "publish", "read_presence", "read_history"]

# Stands in a rule's pattern for any user's id, and in a right for the user whom it names.
USER: Final = "$user"
EVERYONE: Final = "*"
# What holds for topics that no rule names, unless rules are strict.
DEFAULT: Final = Namespace(">")

# The rights that a token's own permissions give; what it may read they only narrow.
_GRANTED: Final = ("subscribe", "publish")
_ACTS: Final[dict[Right, str]] = {
    "subscribe": "subscribing",
    "publish": "publishing",
    "read_presence": "reading presence",
    "read_history": "reading history",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, why, and the namespace that decided where one did."""

    allowed: bool
    reason: str
    namespace: Namespace | None


class Rules:
    """The namespaces of a configuration. Names are taken to be valid."""

    def __init__(self, namespaces: Sequence[Namespace] = (), strict: bool = False) -> None:
        self._named = len(namespaces)
        self._namespaces = (*namespaces,) if strict else (*namespaces, DEFAULT)
        self._patterns = [plain_pattern(namespace.pattern) for namespace in self._namespaces]
        self._index: PatternIndex[int] = PatternIndex()
        # Of two with the same pattern the first counts, so it is added last.
        for number in reversed(range(len(self._patterns))):
            self._index.add(self._patterns[number], number)

    def become(self, other: Rules) -> None:
        """Hold from now on what `other` does."""
        self.__dict__.update(other.__dict__)

    def namespace(self, topic: str) -> Namespace | None:
        """The first namespace whose pattern matches a topic; None where nobody may use it."""
        numbers = self._index.match(topic) if topic[0] != "$" else None
        return self._namespaces[min(numbers)] if numbers else None

    def may(self, identity: Identity, right: Right, name: str) -> bool:
        """Whether `identity` has a right to a topic, or to subscribe to all of a pattern."""
        numbers = self._deciding(right, name)
        return numbers is not None and all(
            has_right(identity, right, self._namespaces[number], name) for number in numbers
        )

    def explain(self, identity: Identity, right: Right, name: str) -> Decision:
        """What `may` answers, and why."""
        numbers = self._deciding(right, name)
        if numbers is None:
            return Decision(False, _why_nobody(right, name), None)
        allowed = True
        for number in numbers:
            if not has_right(identity, right, self._namespaces[number], name):
                allowed, numbers = False, [number]
                break
        namespace = self._namespaces[numbers[-1]]
        where = "; ".join(self._where(number) for number in numbers)
        if len(numbers) > 1:
            reason = f"it can match topics of {where}; all of these are allowed"
        else:
            if is_pattern(name):
                where = f"it can match topics of {where}"
            elif numbers == [self._named]:
                where = f"{where} names it"
            reason = f"{where}: {_why(identity, right, namespace)}"
        return Decision(allowed, reason, namespace)

    def _where(self, number: int) -> str:
        if number == self._named:
            return "no rule"
        return f"rule {number + 1}, {self._namespaces[number].pattern}"

    def _deciding(self, right: Right, name: str) -> list[int] | None:
        """The numbers of the rules that decide on a name; None where some of it has no rule."""
        if name[0] == "$":
            return None
        if not is_pattern(name):
            matching = self._index.match(name)
            return [min(matching)] if matching else None
        if right != "subscribe":
            return None
        found = []
        for number, pattern in enumerate(self._patterns):
            if overlaps(pattern, name):
                found.append(number)
                if covers(pattern, name):
                    return found
        return None


def plain_pattern(pattern: str) -> str:
    """The pattern of a rule, with `*` where it has `$user`."""
    return ".".join("*" if part == USER else part for part in pattern.split("."))


def may_publish(identity: Identity, namespace: Namespace, topic: str) -> bool:
    """Whether `identity` may publish on a topic of `namespace`; quick where nothing is asked."""
    permissions = identity.permissions
    if permissions is None or permissions.publish is None:
        named = namespace.publish
        return named is None or _is_named(identity, named, namespace.pattern, topic)
    return any_covers(permissions.publish, topic)


def has_right(identity: Identity, right: Right, namespace: Namespace, name: str) -> bool:
    """Whether `identity` has a right to what a name has of `namespace`."""
    right = _judged(right, namespace)
    granted = _granted(identity, right)
    if granted is not None:
        if not any_covers(granted, name):
            return False
        if right in _GRANTED:
            return True
    named = _named(right, namespace)
    return named is None or _is_named(identity, named, namespace.pattern, name)


def _judged(right: Right, namespace: Namespace) -> Right:
    """The right that decides: who may subscribe may read where the rule does not say."""
    if right in ("read_presence", "read_history") and _named(right, namespace) is None:
        return "subscribe"
    return right


def _named(right: Right, namespace: Namespace) -> frozenset[str] | None:
    named: frozenset[str] | None = getattr(namespace, right)
    return named


def _granted(identity: Identity, right: Right) -> tuple[str, ...] | None:
    """The patterns that the token confines a right to, reading to those it may subscribe to."""
    if identity.permissions is None:
        return None
    confined = right if right in _GRANTED else "subscribe"
    granted: tuple[str, ...] | None = getattr(identity.permissions, confined)
    return granted


def _is_named(identity: Identity, named: frozenset[str], pattern: str, name: str) -> bool:
    for entry in named:
        # Another issuer may call a role `$user` or `*`, which does not make it one of these.
        if entry == USER:
            if _is_own(identity.user_id, pattern, name):
                return True
        elif entry == EVERYONE or entry in identity.roles:
            return True
    return False


def _is_own(user_id: str, pattern: str, name: str) -> bool:
    """Whether `name` has the user's id wherever `pattern` has `$user`."""
    if is_pattern(user_id):
        return False  # The id would be taken for a wildcard, or a wildcard for the id.
    parts = name.split(".")
    places = [place for place, part in enumerate(pattern.split(".")) if part == USER]
    return bool(places) and all(parts[place : place + 1] == [user_id] for place in places)


def _why(identity: Identity, right: Right, namespace: Namespace) -> str:
    """What a rule demands for a right, and what the token has to show."""
    judged = _judged(right, namespace)
    act = _ACTS[judged]
    follows = "" if judged == right else f"{_ACTS[right]} goes with subscribing; "
    granted = _granted(identity, judged)
    patterns = ", ".join(granted or ()) or "nothing"
    if granted is not None and judged in _GRANTED:
        return f"{follows}the token's permissions grant {act} to {patterns}"
    if granted is not None:
        follows = f"the token's permissions confine {act} to {patterns}; "
    named = _named(judged, namespace)
    if named is None or EVERYONE in named:
        return f"{follows}{act} is open to every authenticated user"
    if not named:
        return f"{follows}{act} is closed to everybody"
    roles = sorted(named - {USER})
    needs = ["the user whom $user names"] if USER in named else []
    if roles:
        needs.append("the role " if len(roles) == 1 else "one of the roles ")
        needs[-1] += ", ".join(roles)
    has = ", ".join(sorted(identity.roles)) or "none"
    if USER in named:
        has = f"is of user {identity.user_id}" + (f" and has {has}" if roles else "")
    else:
        has = f"has {has}"
    verb = "is for" if USER in named else "needs"
    return f"{follows}{act} {verb} {' or '.join(needs)}; the token {has}"


def _why_nobody(right: Right, name: str) -> str:
    if name[0] == "$":
        return "names that begin with $ are the server's own"
    if not is_pattern(name):
        return "no rule names it, and such topics are refused (strict-topics)"
    if right != "subscribe":
        return f"{_ACTS[right]} is for single topics, not for patterns"
    return "it can match topics that no rule names, and these are refused (strict-topics)"
