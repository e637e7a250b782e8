"""What a process that computes has of the machine, and threads that let others go on.

The rule of this file: it changes how fast a process computes, never what.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pwd
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ENVIRONMENT: Mapping[str, str] = {
    # All threads share the one heap (see `prepare_process`).
    "MALLOC_ARENA_MAX": "1",
    # The threads of a step wait for one another hundreds of times. Where they do so by looking
    # again and again, whatever takes one core for a moment stops all of them until Linux' next
    # turn: a tenth of the speed beside one busy loop. Asleep they are woken at once.
    "OMP_WAIT_POLICY": "passive",
}
"""What is read when a process starts, or when it first loads its libraries."""
MOST_JOBS = 4
"""Jobs of a pipeline that share the cores of a machine, at most."""
_modules = 0
"""That this process had when it last gave memory back."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes of memory that this machine or container has."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        return min(found, int(CGROUP_LIMIT.read_text()))
    return found


def threads_of_job() -> int:
    """Threads that a job computes on: its share of the cores, however many jobs there are.

    One on up to seven cores. Two of one thread do more than one of two, lose nothing to a neighbour
    that one core can serve, and sums are rounded the same whatever runs beside them.
    """
    return max(1, available_cpus() // MOST_JOBS)


def settle_user() -> None:
    """Give a user whom the system does not know, as in containers, a name and the home that they
    have there: libraries fail to be imported without."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        os.environ.setdefault("HOME", os.sep)
        os.environ.setdefault("LOGNAME", str(os.geteuid()))


def prepare_process(threads: int | None = None) -> None:
    """Give a process that computes with torch its threads and a calm allocator.

    glibc returns every large tensor to the kernel and pays page faults to get it back, up to half
    of a training step on CPU: large blocks stay in the heap instead. That of the process, which
    never shrinks: further heaps, for the threads that Ray computes on, go when they are empty (see
    `ENVIRONMENT`).

    Args:
        threads: by default those of a job.
    """
    import torch

    torch.set_num_threads(threads or threads_of_job())
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)
        mallopt(m_arena_max, 1)


def return_memory() -> None:
    """Give the system back what is free of the heap, which `prepare_process` keeps: between two
    jobs, of which the next may want less, or another process more."""
    global _modules
    gc.collect()
    if len(sys.modules) > _modules:
        # What modules have brought stays: to look through it again takes a fifth of a second.
        _modules = len(sys.modules)
        gc.freeze()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
