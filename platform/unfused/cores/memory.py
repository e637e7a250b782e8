"""How much memory a process and all that it has started take together.

The rule of this file: looking costs next to nothing, and where a system has no /proc nothing is
known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

PROCESSES = Path("/proc")
LOOK_SECONDS = 1.0


def memory_of(process: int) -> int:
    """Bytes that a process and its descendants take: of each what is its own, and of what they
    share, libraries and Ray's object store, the largest part that one of them sees."""
    own, shared = 0, 0
    for one in descendants(process):
        try:
            fields = (PROCESSES / str(one) / "statm").read_text().split()
        except OSError:
            continue
        page = os.sysconf("SC_PAGE_SIZE")
        resident, mapped = int(fields[1]) * page, int(fields[2]) * page
        own, shared = own + resident - mapped, max(shared, mapped)
    return own + shared


def descendants(process: int) -> Iterator[int]:
    """The numbers of a process and of all that it has started, with what those have started."""
    children: dict[int, list[int]] = {}
    for path in PROCESSES.glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may have spaces; the parent is the second field after it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    left = [process]
    while left:
        one = left.pop()
        yield one
        left += children.get(one, [])


class PeakMemory:
    """The most that this process and all that it has started took while this was open, in bytes;
    0 where that cannot be known."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            if PROCESSES.is_dir():
                self.peak = max(self.peak, memory_of(os.getpid()))
            if self._over.wait(LOOK_SECONDS):
                return
