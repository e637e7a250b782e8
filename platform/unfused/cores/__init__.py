"""How processes that compute share the cores and the memory of a machine.

The rule of this room: it knows of no run, no stage and no Ray; where a system has not what is
asked of it here, nothing else changes.
"""

from __future__ import annotations

from unfused.cores.process import ENVIRONMENT, available_cpus, available_memory, prepare_process
from unfused.cores.scheduling import hold_cores, in_background

__all__ = [
    "ENVIRONMENT",
    "available_cpus",
    "available_memory",
    "hold_cores",
    "in_background",
    "prepare_process",
]
