"""The command line of `twistd realtime`, made of the table in `option_table.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NoReturn

from twisted.python import usage

from realtime import __version__
from realtime.errors import ConfigurationError
from realtime.option import Option
from realtime.option_table import OPTIONS
from realtime.settings import Settings, read_settings

NAMES = frozenset(option.name for option in OPTIONS)
_INDENT = " " * 8


class Options(usage.Options):
    """The command line of `twistd realtime`. `settings` is there once it has been parsed."""

    synopsis = "[options]"
    longdesc = (
        "For example: twistd -n realtime --config realtime.toml; with -n it stays in the "
        "foreground. Every option can also be given in the environment, as REALTIME_ and its name "
        "in capitals with underscores (REALTIME_MAX_CONNECTIONS=500; repeatable ones as a "
        "comma-separated list), and in the TOML file that --config names, under its own name "
        "(max-connections = 500; repeatable ones as a list). A flag wins over the environment, "
        "that over the file. PORT and REDIS_URL in the environment are "
        "understood as well."
    )
    optFlags = [(option.name, None, option.manual()) for option in OPTIONS if option.is_flag]
    optParameters = [
        ("config", None, None, "TOML file with options and [[topic]] rules."),
        *(
            (option.name, None, None, option.manual())
            for option in OPTIONS
            if not option.is_flag and not option.repeatable
        ),
    ]
    settings: Settings

    def __init__(self) -> None:
        self._environ: Mapping[str, str] = os.environ
        self._repeated: dict[str, list[str]] = {}
        # What was given on the command line.
        self.given: Sequence[str] = ()
        super().__init__()

    def getUsage(self, width: int | None = None) -> str:
        """The manual: every option in the table's order, with what it takes, then the rest."""
        width = min(width or get_terminal_size().columns, 100)
        entries = [("--config=FILE", "TOML file with options and [[topic]] rules.")]
        for option in OPTIONS:
            value = "" if option.is_flag else f"={option.metavar}"
            entries.append((f"--{option.name}{value}", option.manual()))
        entries += [
            ("--version", "Show the version of this server."),
            ("--help", "Show this manual."),
        ]
        lines = ["Options:"]
        for flag, meaning in entries:
            lines.append(f"  {flag}")
            lines += wrap(meaning, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
        return "\n".join([*lines, "", *wrap(self.longdesc, width), ""])

    def opt_version(self) -> NoReturn:
        """Show the version of this server."""
        print(f"realtime-server {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; a mistake is one line on standard error and exit status 1."""
        self.given = tuple(options or ())
        try:
            super().parseOptions(options)
            self.settings = self.read()
        except usage.UsageError as error:
            _exit(str(error))
        except ConfigurationError as error:
            _exit(str(error))

    def read(self) -> Settings:
        """The settings, as the environment and the file have them now.

        Raises `ConfigurationError`.
        """
        flags: dict[str, Any] = {
            name: value
            for name, value in self.items()
            if name in NAMES and value is not None and value != 0
        }
        return read_settings(flags | self._repeated, self._environ, self.get("config"))


def _collector(option: Option) -> Callable[[Options, str], None]:
    def collect(self: Options, value: str) -> None:
        self._repeated.setdefault(option.name, []).append(value)

    collect.__doc__ = option.manual()
    return collect


for _option in OPTIONS:
    if _option.repeatable:
        setattr(Options, f"opt_{_option.key}", _collector(_option))


def _exit(problem: str) -> NoReturn:
    raise SystemExit(f"realtime: {' '.join(problem.split())}")
