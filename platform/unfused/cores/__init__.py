"""How processes that compute share the cores and the memory of a machine.

The rule of this room: it knows of no run, no stage and no Ray; where a system has not what is
asked of it here, nothing else changes.
"""

from __future__ import annotations

from unfused.cores.memory import PeakMemory, descendants, memory_of
from unfused.cores.process import (
    ENVIRONMENT,
    MOST_JOBS,
    available_cpus,
    available_memory,
    prepare_process,
    return_memory,
    settle_user,
    threads_of_job,
)

__all__ = [
    "ENVIRONMENT",
    "MOST_JOBS",
    "PeakMemory",
    "available_cpus",
    "available_memory",
    "descendants",
    "memory_of",
    "prepare_process",
    "return_memory",
    "settle_user",
    "threads_of_job",
]
