"""Processes beside the server, which never outlive their test."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from threading import Timer

from twisted.trial.unittest import SynchronousTestCase

from tests.support.server import environment


def spawn(
    case: SynchronousTestCase,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    seconds: float = 90,
    **environ: str,
) -> subprocess.Popen[str]:
    """Start a process with pipes; it is killed after some seconds, or with its test."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killer = Timer(seconds, process.kill)
    killer.daemon = True
    killer.start()
    case.addCleanup(process.__exit__, None, None, None)  # closes the pipes
    case.addCleanup(process.kill)
    case.addCleanup(killer.cancel)
    return process
