"""A process that holds a lock until it is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from unfused import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@contextmanager
def holder_of(guarded: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, which holds the lock of `guarded` by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(guarded)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(20)
