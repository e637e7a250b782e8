"""A collection as people have them: `unfused inspect` over many files of mixed kinds, and a
recording of many hours as a corpus.

    python benchmarks/collection.py --num-files 1000 10000 --hours 12

One file in twenty is broken. Memory is that of all processes together at its highest, for the
files; for the long recording that of the process that holds most (PSS: what it shares with others
is divided among them).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import harness
import numpy as np
import soundfile

sys.path[:0] = [str(harness.ROOT / "platform")]

from unfused import cores  # noqa: E402
from unfused.cores.memory import memory_of  # noqa: E402

LOOK_SECONDS = 0.5
KINDS = ("wav 16 kHz", "wav 44.1 kHz stereo", "flac", "ogg", "mp3", "m4a")
BROKEN_EVERY = 20
INGEST = """
import json, sys
from unfused.config import AudioConfig, IngestConfig
from unfused.corpora import read as listed
from unfused.stages.reading import read
from unfused.store import Folder
def run(rows, task, total, doing):
    return (task(json.loads(row)) for row in rows)
clips = listed(sys.argv[1]).clips
found = read(clips, AudioConfig(), IngestConfig(), run, Folder.of(sys.argv[2]))
print(sum(len(rows) for rows in found.rows.values()))
"""


@dataclass(frozen=True)
class Sizes:
    num_files: tuple[int, ...] = (1000, 10000)
    hours: float = 12.0


@dataclass
class Memory:
    """GiB at the highest."""

    together: float = 0.0
    of_one: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self, process: int) -> None:
        """Look at a process and all below it, until it has ended."""
        while not self.ended.wait(LOOK_SECONDS):
            self.together = max(self.together, memory_of(process) / 2**30)
            each = [_pss(number) for number in cores.descendants(process)]
            self.of_one = max([self.of_one, *each])


def _pss(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) / 2**20


@contextmanager
def watched(process: subprocess.Popen) -> Iterator[Memory]:
    memory = Memory()
    watcher = threading.Thread(target=memory.watch, args=(process.pid,))
    watcher.start()
    try:
        yield memory
    finally:
        memory.ended.set()
        watcher.join()


def write_files(folder: Path, count: int) -> None:
    """`folder/<class>/<number>.<kind>`: noise of 0.5 to 3 s, one file in twenty cut or no audio."""
    rng = np.random.default_rng(0)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        ending = kind.split()[0]
        path = folder / f"class{number % 10}" / f"{number:06d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds = rng.uniform(0.5, 3)
        write(path, kind, rng.standard_normal(round(seconds * 16000)) / 8)
        if number % BROKEN_EVERY == 0:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 3] if number % 3 else b"no audio" * 99)


def write(path: Path, kind: str, wave: np.ndarray) -> None:
    if kind == "m4a":
        write_m4a(path, wave)
    elif "stereo" in kind:
        soundfile.write(path, np.stack([wave, wave[::-1]], 1), 44100)
    else:
        soundfile.write(path, wave, 16000)


def write_m4a(path: Path, wave: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = wave.astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def inspect(folder: Path) -> tuple[float, Memory]:
    """Seconds and memory of the command, with its start."""
    command = [sys.executable, "-m", "unfused", "inspect", str(folder), "--files", "0", "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with watched(process) as memory:
        process.wait()
    assert process.returncode == 0
    return time.perf_counter() - began, memory


def write_recording(path: Path, hours: float) -> None:
    """Noise at 44.1 kHz in two channels, a minute that comes again and again."""
    minute = np.random.default_rng(0).standard_normal((44100 * 60, 2)).astype(np.float32) / 8
    with soundfile.SoundFile(path, "w", 44100, 2, format="RF64", subtype="PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def ingest(folder: Path) -> tuple[float, int, Memory]:
    """Seconds, segments and memory of one process that ingests a folder as a corpus."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, str(folder), str(folder.with_suffix(".out"))],
        stdout=subprocess.PIPE,
        text=True,
    )
    with watched(process) as memory:
        said, _ = process.communicate()
    return time.perf_counter() - began, int(said), memory


def measure(sizes: Sizes) -> harness.Report:
    rows, seconds, gib = [], {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in sizes.num_files:
            folder = Path(scratch) / f"files{count}"
            write_files(folder, count)
            seconds[count], memory = inspect(folder)
            gib[count] = memory.together
            what = f"inspect, {count} files"
            rows.append([what, f"{seconds[count]:.0f}", f"{memory.together:.2f}", ""])
        folder = Path(scratch) / "night"
        folder.mkdir()
        write_recording(folder / "night.wav", sizes.hours)
        took, segments, memory = ingest(folder)
        what = f"ingest, {sizes.hours:g} hours, {segments} segments"
        rows.append([what, f"{took:.0f}", f"{memory.together:.2f}", f"{memory.of_one:.2f}"])
    few, many = min(gib), max(gib)
    return harness.Report(
        "Collections as people have them",
        ["what", "seconds, with the start", "GiB together", "GiB of the largest process"],
        rows,
        [
            harness.Aim(f"seconds, {many} files", seconds[many], 60, True),
            harness.Aim(f"memory, {many} files beside {few}", gib[many] / gib[few], 1.2, True),
            harness.Aim("MiB of a process, the long recording", memory.of_one * 1024, 400, True),
        ],
        [f"{sizes.hours * 3600 / took:.0f} times as fast as the recording lasts, on one core"],
    )


if __name__ == "__main__":
    harness.main("collection", Sizes(), measure)
