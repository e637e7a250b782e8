"""How processes that compute share the cores and the memory of a machine.

The rule of this room: it knows of no run, no stage and no Ray; where a system has not what is
asked of it here, nothing else changes.
"""

from __future__ import annotations

from unfused.cores.allocator import ONE_HEAP, available_cpus, prepare_process
from unfused.cores.scheduling import hold_cores, in_background
from unfused.cores.turns import Turns, turns_for

__all__ = [
    "ONE_HEAP",
    "Turns",
    "available_cpus",
    "hold_cores",
    "in_background",
    "prepare_process",
    "turns_for",
]
