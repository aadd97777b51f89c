"""What an option is, whether given as a flag, in the environment or in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

PREFIX: Final = "REALTIME_"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `parse` makes a value of its text, or raises `ValueError` with what is wrong."""

    name: str
    metavar: str
    default: Any
    help: str
    parse: Callable[[str], Any]
    repeatable: bool = False
    # A further environment variable, as platforms set it.
    environment: str | None = None
    # Whether its value may hold a secret, and is therefore not shown.
    private: bool = False
    # What stands between the values of a repeatable one in the environment.
    separator: str = r"\s*,\s*"

    @property
    def key(self) -> str:
        """Its name in `Settings`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.key.upper()

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.default is False

    def shown(self, value: Any) -> str:
        """A value of it as people write it, unless it is private."""
        if self.private:
            return "(not shown)"
        if isinstance(value, tuple):
            return ", ".join(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def manual(self) -> str:
        """Its line in the manual."""
        if self.is_flag or self.default in (None, ()):
            return self.help
        shown = self.shown(self.default)
        if self.metavar in ("SECONDS", "BYTES"):
            shown += f" {self.metavar.lower()}"
        return f"{self.help} [default: {shown}]"
