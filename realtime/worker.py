"""`python -m realtime.worker PARENT ...`: one of several server processes. See `workers`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from realtime.listening import WORKER_FD, hand_on

# prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run twistd, up to the end of the process `PARENT`, with the listening socket handed on."""
    parent = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    hand_on(WORKER_FD)
    from twisted.scripts.twistd import run

    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
