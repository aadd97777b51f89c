"""Giving memory back to the system when most connections have gone.

What many connections have taken is free again when they close, but stays with the process: free
lists of the interpreter hold on to single objects all over it, and the C library to free pages.
A full collection empties the first, `malloc_trim` the second. With few connections left both
take a few milliseconds. What waited for clients that did not read is in large pieces: `malloc_trim`
alone gives that back, which is quick however many connections there are. It has to do for strangers
too, who might have all objects looked at again and again.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

# Fewer connections than this are not worth the while.
WORTHWHILE = 1000
# The part of the most connections there were that is few.
FEW = 0.1
# Slow clients that are worth it, as each may have had a megabyte waiting, and the seconds after the
# last of them was closed in which what waited has certainly gone.
STUCK = 16
QUIET = 10


class _Tide:
    """Connections of one kind, which come and go."""

    def __init__(self) -> None:
        self._most = 0

    def has_gone(self, connections: int) -> bool:
        """Whether many were there, of whom few are left; true once each time."""
        self._most = max(self._most, connections)
        if self._most < WORTHWHILE or connections > self._most * FEW:
            return False
        self._most = connections
        return True


class Reclaimer:
    """Calls `reclaim` once after most connections have gone, `trim` after others have."""

    def __init__(
        self,
        reclaim: Callable[[], object] | None = None,
        trim: Callable[[], object] | None = None,
    ) -> None:
        self._reclaim = reclaim or give_back
        self._trim = trim or give_back_pages
        self._clients = _Tide()
        self._strangers = _Tide()
        self._stuck = self._settled = self._quiet = 0

    def note(self, connections: int, stuck: int, strangers: int) -> None:
        """Told once a second: so many are connected, so many were ever too slow.

        `strangers` are connections that have said nothing yet, or speak HTTP.
        """
        if self._clients.has_gone(connections):
            self._reclaim()
        if self._strangers.has_gone(strangers):
            self._trim()
        self._quiet = self._quiet + 1 if stuck == self._stuck else 0
        self._stuck = stuck
        if stuck - self._settled >= STUCK and self._quiet >= QUIET:
            self._settled = stuck
            self._trim()


def give_back() -> None:
    """Collect garbage, empty the interpreter's free lists, and return free pages."""
    gc.collect()
    give_back_pages()


def give_back_pages() -> None:
    """Return free pages."""
    if _malloc_trim is not None:
        _malloc_trim(0)


# Only glibc has it, and only it needs it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
