"""What a process and those that it starts take is added up, and the most of it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from unfused.cores import PeakMemory, memory_of

MEBIBYTE = 2**20
HOLD = f"import sys; block = b'x' * (200 * {MEBIBYTE}); print('held', flush=True); sys.stdin.read()"


def holding() -> subprocess.Popen:
    """A process that holds 200 MiB until it is told to end."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    return child


def test_memory_of_a_child_counts_and_the_peak_outlives_it():
    before = memory_of(os.getpid())
    with PeakMemory() as memory:
        child = holding()
        during = memory_of(os.getpid())
        deadline = time.monotonic() + 20
        while memory.peak < during - 20 * MEBIBYTE and time.monotonic() < deadline:
            time.sleep(0.1)
        child.communicate()
    assert 190 * MEBIBYTE < during - before < 260 * MEBIBYTE
    assert memory.peak > during - 20 * MEBIBYTE
    assert memory_of(os.getpid()) < during - 150 * MEBIBYTE
