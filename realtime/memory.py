"""Giving memory back to the system when most connections have gone.

What many connections have taken is free again when they close, but stays with the process: free
lists of the interpreter hold on to single objects all over it, and the C library to free pages.
A full collection empties the first, `malloc_trim` the second. With few connections left both
take a few milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

# Fewer connections than this are not worth the while.
WORTHWHILE = 1000
# The part of the most connections there were that is few.
FEW = 0.1


class Reclaimer:
    """Watches the number of connections, and calls `reclaim` once after most have gone."""

    def __init__(self, reclaim: Callable[[], object] | None = None) -> None:
        self._reclaim = reclaim or give_back
        self._most = 0

    def note(self, connections: int) -> None:
        """So many connections are open now; to be told once a second."""
        self._most = max(self._most, connections)
        if self._most >= WORTHWHILE and connections <= self._most * FEW:
            self._most = connections
            self._reclaim()


def give_back() -> None:
    """Collect garbage, empty the interpreter's free lists, and return free pages."""
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)


# Only glibc has it, and only it needs it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
