"""The API reference's own client examples, extracted from its text at run time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_TEXT = Path(os.environ.get("TEST_API_REFERENCE", ROOT.parent / "shared" / "api-reference.md"))
_MODULES = Path(
    os.environ.get("TEST_NODE_MODULES", ROOT / "tests" / "integration" / "node_modules")
)


def no_reference() -> str | None:
    """Why the reference cannot be read, or None."""
    if _TEXT.exists():
        return None
    return f"the API reference is not at {_TEXT} (TEST_API_REFERENCE names another place)"


def no_node(*packages: str) -> str | None:
    """Why JavaScript cannot be run with these packages, or None."""
    if shutil.which("node") is None:
        return "there is no node"
    missing = [package for package in packages if not (_MODULES / package).is_dir()]
    if not missing:
        return None
    names = ", ".join(missing)
    return f"npm packages are missing: {names} (TEST_NODE_MODULES names where they are)"


def node_modules() -> str:
    """Where npm packages are."""
    return str(_MODULES.resolve())


def chromium() -> str | None:
    """The browser's program, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def text() -> str:
    """The whole text."""
    return _TEXT.read_text(encoding="utf-8")


def code_blocks(language: str, heading: str, under: str = "") -> list[str]:
    """The code blocks of a language right below a heading, as they stand.

    Where headings of that name recur, `under` names one above it, in full.
    """
    found: list[str] = []
    above, fence, block = [""], "", ""
    for line in text().splitlines(keepends=True):
        if line.startswith("```"):
            if fence == language and above[-1] == heading and (not under or under in above):
                found.append(block)
            fence, block = ("" if fence else line.strip("`\n")), ""
        elif fence:
            block += line
        elif line.startswith("#"):
            title = line.lstrip("#")
            depth = len(line) - len(title)
            above += [""] * depth
            above[depth:] = [title.strip(" `\n")]
    return found


def code(language: str, heading: str) -> str:
    """The one code block of a language below a heading."""
    (block,) = code_blocks(language, heading)
    return block
