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
    return None if _TEXT.exists() else f"the API reference is not at {_TEXT.name}"


def no_node(*packages: str) -> str | None:
    """Why JavaScript cannot be run with these packages, or None."""
    if shutil.which("node") is None:
        return "there is no node"
    missing = [package for package in packages if not (_MODULES / package).is_dir()]
    return f"npm packages are missing: {', '.join(missing)}" if missing else None


def node_modules() -> str:
    """Where npm packages are."""
    return str(_MODULES.resolve())


def chromium() -> str | None:
    """The browser's program, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def code_blocks(language: str, heading: str) -> list[str]:
    """The code blocks of a language below a heading, as they stand."""
    found: list[str] = []
    here, fence, block = "", "", ""
    for line in _TEXT.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("```"):
            if fence and (here, fence) == (heading, language):
                found.append(block)
            fence, block = ("" if fence else line.strip("`\n")), ""
        elif fence:
            block += line
        elif line.startswith("#"):
            here = line.lstrip("#").strip()
    return found


def code(language: str, heading: str) -> str:
    """The one code block of a language below a heading."""
    (block,) = code_blocks(language, heading)
    return block
