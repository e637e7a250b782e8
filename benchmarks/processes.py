"""What the processes of a run take of the machine: memory that each holds alone, processor seconds.

Linux tells both in /proc. Roles are those of a pipeline: the driver, Ray Train's worker, Ray Data's
tasks, clustering, and Ray itself.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from unfused import cores

RAY = "Ray itself"
READING = "data task"
MIB = 1024
"""KiB, in which the kernel counts."""


def running() -> Iterator[Path]:
    """The folders of all processes of the machine."""
    return (process for process in Path("/proc").iterdir() if process.name.isdigit())


def role(process: Path) -> str:
    """What a process of Ray is for; empty for others and for those that have ended."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""
    if not words.startswith("ray::"):
        return RAY if "/ray/" in words else ""
    name = re.split(r"[ (.]", words.removeprefix("ray::"))[0]
    if "RayTrainWorker" in words:
        return "train worker"
    if "cluster" in name:
        return "clustering"
    return READING if "Map" in name or "Read" in name else f"{RAY}, {name}"


Seconds = dict[int, tuple[str, float]]
"""Role and processor seconds by process number."""


def processor_seconds() -> Seconds:
    """What this process (`driver`) and all below it computed so far."""
    found = {os.getpid(): ("driver", sum(os.times()[:2]))}
    for number in [*cores.descendants(os.getpid())][1:]:
        process = Path("/proc") / str(number)
        try:
            # The second field is a name in brackets that may hold anything.
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        # Ray Data's processes lose their name between two tasks.
        name = READING if "IDLE" in role(process) else role(process).partition(",")[0]
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        found[number] = (name or RAY, spent)
    return found


def between(before: Seconds, after: Seconds) -> Counter[str]:
    """Processor seconds by role; those of processes that have ended in between are lost."""
    found: Counter[str] = Counter()
    for number, (name, spent) in after.items():
        found[name] += spent - before.get(number, (name, 0.0))[1]
    return found


class MemoryWatch:
    """Looks once a second at what each of a run's processes holds alone (USS), until it is left.

    Args:
        driver: words of the command line that the driver has.
    """

    def __init__(self, driver: str) -> None:
        self.peaks: dict[str, float] = {}
        """MiB by role."""
        self.kinds: dict[str, Counter[str]] = {}
        """What each peak consisted of, MiB by kind of memory."""
        self._driver = driver
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            for process in running():
                try:
                    self._look(process)
                except OSError:
                    continue

    def _look(self, process: Path) -> None:
        command = (process / "cmdline").read_bytes().decode(errors="replace")
        name = "driver" if self._driver in command else role(process)
        if not name or name.startswith(RAY):
            return
        alone = _alone(process / "smaps_rollup").total()
        if alone > self.peaks.get(name, 0.0):
            self.peaks[name], self.kinds[name] = alone, _alone(process / "smaps")


def _alone(smaps: Path) -> Counter[str]:
    """MiB that a process holds alone, by kind of mapping."""
    found: Counter[str] = Counter()
    kind = ""
    for line in smaps.read_text(errors="replace").splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            kind = _kind(values[4] if len(values) > 4 else "")
        elif key.startswith("Private_"):
            found[kind] += int(values[0]) / MIB
    return found


def _kind(path: str) -> str:
    """What a mapping of /proc/PID/smaps is, by the name that the kernel gives it."""
    if "plasma" in path:
        return "object store"
    if path.startswith("/"):
        return "files"
    return "heap" if path == "[heap]" else "other memory"
