"""The JavaScript client, built from a copy of its sources without any network."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.support.reference import no_node, node_modules
from tests.support.server import ROOT, environment

SOURCES = ROOT / "clients" / "js"
PACKAGES = ("esbuild", "typescript", "react", "@types/react")


def no_build() -> str | None:
    """Why the client cannot be built, or None."""
    if shutil.which("npm") is None:
        return "there is no npm"
    return no_node(*PACKAGES)


def npm(*arguments: str, cwd: Path) -> str:
    """Run npm, which downloads nothing; answer what it said."""
    done = subprocess.run(
        ["npm", *arguments],
        cwd=cwd,
        env=environment(npm_config_offline="true", npm_config_update_notifier="false"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"npm {arguments[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


@cache
def tarball() -> Path:
    """What `npm pack` makes, which builds it first; dist/ stays beside it."""
    folder = Path(tempfile.mkdtemp(prefix="realtime-client-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / "js"
    junk = shutil.ignore_patterns("node_modules", "dist", "*.tgz")
    shutil.copytree(SOURCES, copy, ignore=junk)
    os.symlink(node_modules(), copy / "node_modules")
    npm("pack", "--loglevel=error", cwd=copy)
    (packed,) = copy.glob("*.tgz")
    return packed


def built(entry: str = "index.js") -> Path:
    """A file of the built package."""
    return tarball().parent / "dist" / entry


def install(folder: Path, *others: str) -> None:
    """Install the package in a project, with other packages of the tests beside it."""
    (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
    npm("install", "--no-audit", "--no-fund", str(tarball()), cwd=folder)
    for other in others:
        target = folder / "node_modules" / other
        target.parent.mkdir(exist_ok=True)
        os.symlink(Path(node_modules(), other), target)
