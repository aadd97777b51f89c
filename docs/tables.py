"""Writes the tables of the pages that follow the code: `python docs/tables.py`.

They stand in the pages, so that a git forge shows them, too; `tests/test_docs.py` compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from realtime import event_stream, topics  # noqa: E402
from realtime.envelope import MAX_KEY  # noqa: E402
from realtime.errors import CloseCode, ErrorCode  # noqa: E402
from realtime.handlers import MAX_PAGE, MAX_STATE  # noqa: E402
from realtime.http_request import HttpLimits  # noqa: E402
from realtime.limit_options import LIMIT_OPTIONS  # noqa: E402
from realtime.metrics import LIMITS, Counters  # noqa: E402
from realtime.openapi import PATHS  # noqa: E402
from realtime.option import Option  # noqa: E402
from realtime.option_table import OPTIONS  # noqa: E402
from realtime.peer import MAX_REFUSALS  # noqa: E402
from realtime.policy import WebSocketOptions  # noqa: E402
from realtime.rest_publish import MAX_AT_ONCE  # noqa: E402
from realtime.site import MAX_SILENT  # noqa: E402
from realtime.sse import MAX_COMMANDS  # noqa: E402
from tests.hostile.catalogue import ATTACKS  # noqa: E402

Rows = Iterator[tuple[str, ...]]


def options(table: Sequence[Option] = OPTIONS) -> Rows:
    """Every option, its default, and what it is."""
    for option in table:
        default = "" if option.default in (None, ()) else option.shown(option.default)
        value = "" if option.is_flag or not option.metavar else f" {option.metavar}"
        yield (_code(f"--{option.name}{value}"), default and _code(default), _text(option.help))


def limits() -> Rows:
    """The options that bound what clients may take."""
    named = {option.name for option in LIMIT_OPTIONS} | set(LIMITS)
    return options([option for option in OPTIONS if option.name in named])


def fixed_limits() -> Rows:
    """What is bounded and no option."""
    http, edge = HttpLimits(), WebSocketOptions(0, 0)
    yield "Closing handshake", f"{edge.close_timeout} s", "Then the connection is dropped."
    yield "Headers of a request", str(http.headers), "More get 431."
    yield "Idle HTTP connection", f"{http.idle:g} s", "Then it is closed."
    yield "HTTP connections", str(http.connections), "One that waits makes room for a new one."
    yield "Silent connections", str(MAX_SILENT), "The oldest makes room for a new one."
    yield (
        "Entries of an answer",
        str(MAX_PAGE),
        "Of histories, presence and lists; the rest by pages.",
    )
    yield "Commands of a batch", str(MAX_AT_ONCE), "More are refused."
    yield "Commands of a POST to a stream", str(MAX_COMMANDS), "More get 413."
    yield "Topics of a stream's URL", str(event_stream.MAX_TOPICS), "More get 400."
    yield "Presence state", f"{MAX_STATE} bytes", "More is refused."
    yield "Key of a publication", f"{MAX_KEY} characters", "More is refused."
    yield "Topic", f"{topics.MAX_BYTES} bytes", "More is refused."
    yield "Pattern", f"{topics.MAX_PARTS} parts, {topics.MAX_STARS} ``*``", "More is refused."
    yield (
        "Refused commands at once",
        str(MAX_REFUSALS),
        "Then 4502 or 4004; they are forgiven in time.",
    )


def metrics() -> Rows:
    """Every metric of our own."""
    for family in Counters().collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield _code(f"{family.name}{suffix}"), family.type, _text(family.documentation)


def error_codes() -> Rows:
    """Every error code."""
    for code in ErrorCode:
        yield _code(code.value), str(code.status), code.meaning


def close_codes() -> Rows:
    """Every close code."""
    for code in CloseCode:
        yield str(int(code)), "yes" if code.reconnect else "no", _text(code.meaning)


def endpoints() -> Rows:
    """Everything that HTTP answers."""
    for path, operations in PATHS.items():
        for method, operation in operations.items():
            token = "no" if operation.get("security") == [] else "yes"
            yield _code(f"{method.upper()} {path}"), token, _text(operation["summary"])


def attacks() -> Rows:
    """Every attack that has been tried, and what it has to get."""
    for attack in ATTACKS:
        options = f" With {_code(' '.join(attack.options))}." if attack.options else ""
        got = ", ".join(sorted(attack.expected))
        more = f"; perhaps {', '.join(sorted(attack.tolerated))}" if attack.tolerated else ""
        yield attack.name, _text(attack.run.__doc__ or "") + options, f"{got}{more}"


TABLES: dict[tuple[str, str], Callable[[], Rows]] = {
    ("options.rst", "Options"): options,
    ("operations.rst", "Limits"): limits,
    ("operations.rst", "Fixed limits"): fixed_limits,
    ("metrics.rst", "Exported by the server"): metrics,
    ("protocol.rst", "Error codes"): error_codes,
    ("protocol.rst", "Close codes"): close_codes,
    ("server-api.rst", "Endpoints"): endpoints,
    ("security/attacks.rst", "Attacks"): attacks,
}


def with_table(page: str, title: str, rows: Rows) -> str:
    """A page's text with these rows below the header of the list-table of that title."""
    start = page.index(f".. list-table:: {title}\n")
    end = re.compile(r"\n\n(?=\S)|\n*\Z").search(page, start)
    assert end is not None  # noqa: S101
    header = page[start : end.start()].split("\n   * - ")[:2]
    written = "\n   * - ".join([*header, *("\n     - ".join(map(_cell, row)) for row in rows)])
    return page[:start] + re.sub(" +$", "", written, flags=re.MULTILINE) + page[end.start() :]


def _cell(text: str) -> str:
    return "\n       ".join(wrap(text, 92, break_long_words=False, break_on_hyphens=False))


def _code(text: str) -> str:
    return f"``{text}``"


def _text(text: str) -> str:
    """A sentence, in which `*` is no markup; options and names in it are code."""
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]+|\[\[topic\]\]|REALTIME_\w+)", r"``\1``", text)
    text = re.sub(r"(?<!`)\b([a-z]+_[a-z_]+)\b(?!`)", r"``\1``", text)
    text = text.replace(" * ", " ``*`` ")
    return text if text.endswith(".") else f"{text}."


def main() -> None:
    """Write them all."""
    for (name, title), rows in TABLES.items():
        path = DOCS / name
        path.write_text(
            with_table(path.read_text(encoding="utf-8"), title, rows()), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
