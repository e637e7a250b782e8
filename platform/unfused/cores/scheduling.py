"""Which threads step back, and which have long turns on a core, by Linux' scheduling.

The rule of this file: all of it goes through one system call that is not made where the speed-up
`scheduling` is off, nor on other systems and processors; Linux' own way is what is left.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from unfused import speedups

TURN_SECONDS = 0.1
"""How long a thread that computes holds a core that others wait for; the most that Linux grants."""
SCHED_OTHER, SCHED_BATCH = 0, 3
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
LINUX_CALLS = {
    "x86_64": {"sched_setattr": 314, "sched_getattr": 315},
    "aarch64": {"sched_setattr": 274, "sched_getattr": 275},
}


@contextmanager
def in_background() -> Iterator[None]:
    """Processes and threads that are started here never interrupt one that computes.

    Ray keeps a dozen processes that wake a hundred times a second each. A step of training goes on
    on all cores or on none: whichever core one of them takes, all of it waits.
    """
    before = current()
    _schedule(Scheduling(policy=SCHED_BATCH, niceness=before.niceness))
    try:
        yield
    finally:
        _schedule(before)


def hold_cores() -> None:
    """Take this thread, and those it starts, out of the background, with long turns on a core.

    Linux has turns of any length since 6.12; where it has not, nothing else changes.
    """
    turn = round(TURN_SECONDS * 1e9)
    _schedule(Scheduling(policy=SCHED_OTHER, niceness=current().niceness, turn=turn))


class Scheduling(NamedTuple):
    """Linux' struct sched_attr, of the calling thread."""

    size: int = 48
    policy: int = SCHED_OTHER
    flags: int = 0
    niceness: int = 0
    priority: int = 0
    turn: int = 0
    """Nanoseconds on a core before others that wait may have it; 0 is as the system has it."""
    deadline: int = 0
    period: int = 0


def current() -> Scheduling:
    """That of the calling thread; all zeros where the system call is not made."""
    found = ctypes.create_string_buffer(SCHED_ATTR.size)
    _call_linux("sched_getattr", 0, found, SCHED_ATTR.size, 0)
    return Scheduling(*SCHED_ATTR.unpack(found))


def _schedule(wanted: Scheduling) -> None:
    _call_linux("sched_setattr", 0, SCHED_ATTR.pack(*wanted), 0)


def _call_linux(name: str, *arguments: Any) -> None:
    """A system call for which Python has no function; none on other systems and processors."""
    number = LINUX_CALLS.get(os.uname().machine, {}).get(name)
    if speedups.enabled("scheduling") and sys.platform == "linux" and number is not None:
        ctypes.CDLL(None).syscall(number, *arguments)
