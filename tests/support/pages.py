"""The pages of the documentation, as their examples are found and played.

A comment in front of a block says what becomes of it, where its language does not:

- `.. example: file NAME`, `append NAME`: it is the file, or more of it
- `.. example: server`: the command starts the server; `service`: it starts another one
- `.. example: until TEXT`: it is over when it has printed that
- `.. example: by NAME`: a test does something with it
- `.. other: PRODUCT`: it is for another product, and only its syntax is checked
- `.. check: NAME`: here a test looks at what has been done so far
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ROOT

# Comments that are instructions, and directives that show code.
_COMMENT = re.compile(r"\.\. (example|other|check): (.+)")
_DIRECTIVE = re.compile(r"( *)\.\. ([\w-]+)::(?: +(.*))?$")
_CODE = {"code-block", "code", "sourcecode", "literalinclude", "parsed-literal", "doctest", "raw"}


@dataclass(frozen=True)
class Step:
    """A block of code, or a comment of its own (whose `language` is empty)."""

    page: str
    line: int
    language: str
    text: str
    notes: tuple[str, ...] = ()

    @property
    def other(self) -> str:
        """The product whose code it is, where that is not ours."""
        return next((n.partition(" ")[2] for n in self.notes if n.startswith("other ")), "")

    def note(self, name: str) -> str | None:
        """What a comment `example: NAME ...` in front of it says besides the name."""
        for note in self.notes:
            if note == f"example {name}" or note.startswith(f"example {name} "):
                return note.removeprefix(f"example {name}").strip()
        return None

    def __str__(self) -> str:
        return f"{self.page}, line {self.line} ({self.language})"


def pages() -> list[str]:
    """Every page: the README, and all below docs/."""
    found = (path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.rst"))
    return ["README.rst", *sorted(str(path) for path in found if "_build" not in path.parts)]


def read(page: str) -> str:
    """A page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def steps(page: str) -> list[Step]:
    """The blocks and checks of a page, in order. Fails where code is shown in another way."""
    return list(_steps(page, read(page).splitlines()))


def blocks(page: str) -> list[Step]:
    """The blocks alone."""
    return [step for step in steps(page) if step.language]


def _steps(page: str, lines: list[str]) -> Iterator[Step]:
    notes: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := _COMMENT.match(line):
            kind, words = found.groups()
            if kind == "check":
                yield Step(page, number, "", words)
            else:
                notes.append(f"{kind} {words}")
            continue
        found = _DIRECTIVE.match(line)
        if found is None or found[2] not in _CODE:
            assert not re.search(r"(?<!\.\.)\S::$|^::$|^ *>>> ", line) or found, (
                f"{page}, line {number}: code without a language"
            )
            if line.strip():
                notes = []
            continue
        assert found[2] == "code-block", f"{page}, line {number}: write code-block"
        indent, start, body = len(found[1]), number, []
        while number < len(lines) and (
            not lines[number].strip() or len(lines[number]) - len(lines[number].lstrip()) > indent
        ):
            body.append(lines[number])
            number += 1
        while body and re.match(r" +:\w+:", body[0]):
            body.pop(0)
        text = textwrap.dedent("\n".join(body)).strip("\n") + "\n"
        yield Step(page, start, found[3] or "", text, tuple(notes))
        notes = []


def table(page: str, title: str) -> list[tuple[str, ...]]:
    """The rows of a list-table without its header; code is not told from text."""
    body = re.split(r"\n(?=\S)", read(page).split(f".. list-table:: {title}\n")[1])[0]
    rows = [re.split(r"\n     -(?: |$)", row, flags=re.M) for row in body.split("\n   * - ")[1:]]
    return [tuple(" ".join(cell.replace("``", "").split()) for cell in row) for row in rows][1:]


def folder_of(page: str) -> Path:
    """Where a page is."""
    return (ROOT / page).parent
