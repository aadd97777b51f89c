"""Which of many patterns match a topic: an index by parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

V = TypeVar("V")

_NOTHING: Final[Any] = object()


class _Node(Generic[V]):
    """What follows a beginning that patterns have in common; `value` where one ends here."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.value: V = _NOTHING


class PatternIndex(Generic[V]):
    """Patterns with a value each, to be asked which match a topic.

    Patterns that part from the topic cost nothing: in each part only those go on that have this
    very part, or a wildcard, there. Names are taken to be valid.
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """All patterns, in no particular order."""
        nodes = [("", self._root)]
        while nodes:
            name, node = nodes.pop()
            if node.value is not _NOTHING:
                yield name
            for part, child in node.children.items():
                nodes.append((f"{name}.{part}" if name else part, child))

    def add(self, pattern: str, value: V) -> None:
        """Add a pattern, or give one that is there another value."""
        node = self._root
        for part in pattern.split("."):
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = _Node()
            node = child
        if node.value is _NOTHING:
            self._size += 1
        node.value = value

    def remove(self, pattern: str) -> None:
        """Take a pattern out, and all that was there for it alone; raises `KeyError`."""
        node = self._root
        path = []
        for part in pattern.split("."):
            path.append((node, part))
            child = node.children.get(part)
            if child is None:
                raise KeyError(pattern)
            node = child
        if node.value is _NOTHING:
            raise KeyError(pattern)
        node.value = _NOTHING
        self._size -= 1
        for parent, part in reversed(path):
            child = parent.children[part]
            if child.children or child.value is not _NOTHING:
                break
            del parent.children[part]

    def get(self, pattern: str) -> V | None:
        """The value of this very pattern, or None where it is not there."""
        node = self._root
        for part in pattern.split("."):
            child = node.children.get(part)
            if child is None:
                return None
            node = child
        return None if node.value is _NOTHING else node.value

    def match(self, topic: str) -> list[V]:
        """The values of all patterns that match a topic, in no particular order."""
        found: list[V] = []
        if not self._size:
            return found
        nodes = [self._root]
        # A wildcard in the first part matches no name of the server's.
        wild = topic[0] != "$"
        for part in topic.split("."):
            following = []
            for node in nodes:
                children = node.children
                if (child := children.get(part)) is not None:
                    following.append(child)
                if wild:
                    if (child := children.get("*")) is not None:
                        following.append(child)
                    if (child := children.get(">")) is not None:
                        found.append(child.value)
            if not following:
                return found
            nodes = following
            wild = True
        for node in nodes:
            if node.value is not _NOTHING:
                found.append(node.value)
        return found
