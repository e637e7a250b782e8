"""Processes on the very same cores compute in turns, and never at once.

The rule of this file: nobody waits for who cannot go on. A turn that lasts too long, and a place
without locks, are not waited for.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unfused.cores.allocator import available_cpus

if TYPE_CHECKING:
    import torch

NEXT, CORES = 0, 1
"""The bytes of the file of `Turns` that are locked: by who is next, and by who computes."""
LONGEST_TURN = 30.0
"""Seconds after which a turn is no longer waited for: who has it may be suspended."""
TURN_POLL_SECONDS = 0.002


def turns_for(world: int, device: torch.device) -> AbstractContextManager[None]:
    """What every pass through a model is taken in: `Turns` where it is threads on shared cores.

    Args:
        world: processes that train together. Those of several wait for one another inside a step:
            two such runs, each on a machine that the other one waits for, would not go on.
        device: torch's; a step on a GPU needs no core.
    """
    import torch

    cores = available_cpus()
    if world == 1 and device.type == "cpu" and torch.get_num_threads() == cores > 1:
        # Without a place for the file, or locks there, nobody waits for anybody.
        with suppress(OSError):
            return Turns(Path(tempfile.gettempdir()))
    return nullcontext()


class Turns:
    """One process at a time, of one user's on the very same cores; two of them alternate.

    The threads of a step of training wait for one another hundreds of times, many of them by
    looking again and again. Where half of them have no core, because another run's step has it,
    both runs crawl, ten times slower and more. In turns, each has almost half the speed.

    The locks are the process's: it has one `Turns`, and they end with it.

    Args:
        folder: where those who share the cores find one another.

    Raises:
        OSError: nothing can be written or locked there.
    """

    def __init__(self, folder: Path) -> None:
        cores = sum(1 << core for core in os.sched_getaffinity(0))
        path = folder / f"unfused-{os.getuid()}-cores-{cores:x}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._try(CORES)
        self._unlock(CORES)

    def __enter__(self) -> None:
        # Who has just computed cannot come before the one who is already next.
        if self._lock(NEXT) and self._lock(CORES):
            os.utime(self._file)
        self._unlock(NEXT)

    def __exit__(self, *_: object) -> None:
        self._unlock(CORES)

    def _lock(self, place: int) -> bool:
        """Wait for it; False where the turn that is taken now has lasted too long."""
        while not self._try(place):
            if time.time() - os.fstat(self._file).st_mtime > LONGEST_TURN:
                return False
            time.sleep(TURN_POLL_SECONDS)
        return True

    def _try(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, place: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
