"""A process's share of the cores, and an allocator that keeps what it has.

The rule of this file: it changes how fast a process computes, never what.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

ONE_HEAP = "MALLOC_ARENA_MAX"
"""glibc's setting, read when a process starts: 1 has all threads share the one heap."""


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def prepare_process(num_processes: int = 1) -> None:
    """Give a process that computes with torch its share of the cores and a calm allocator.

    glibc returns every large tensor to the kernel and pays page faults to get it back, up to half
    of a training step on CPU: large blocks stay in the heap instead. That of the process, which
    never shrinks: further heaps, for the threads that Ray computes on, go when they are empty (see
    `ONE_HEAP`).

    Args:
        num_processes: that share this machine's cores; at least 1.
    """
    import torch

    torch.set_num_threads(max(1, available_cpus() // num_processes))
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)
        mallopt(m_arena_max, 1)
