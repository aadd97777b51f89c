"""Another version of something, in which a name is not there."""

from __future__ import annotations

from typing import Any


class Without:
    """An object without one of its attributes, for a while."""

    def __init__(self, thing: Any, name: str) -> None:
        owners = thing.__mro__ if isinstance(thing, type) else (thing, *type(thing).__mro__)
        self._values = [(owner, vars(owner)[name]) for owner in owners if name in vars(owner)]
        self._name = name

    def __enter__(self) -> None:
        for owner, _ in self._values:
            delattr(owner, self._name)

    def __exit__(self, *error: object) -> None:
        for owner, value in self._values:
            setattr(owner, self._name, value)
