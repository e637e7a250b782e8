"""What it costs that every file is known by its digest and every page of a table by its checksum.

    python benchmarks/verifying.py

Taking clips in (decoding, summing up, writing shards) with and without digests and checksums, and
an epoch's windows read from the shards with and without looking at them, in turns; both as shares
of what the work takes without. An epoch is read once where clips are kept, and in full by every
epoch where they are not; so its cost is told as a share of training on them as well.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow.parquet as pq
import soundfile

sys.path[:0] = [str(harness.ROOT / "platform")]

from unfused import data  # noqa: E402
from unfused.config import AudioConfig, IngestConfig  # noqa: E402
from unfused.data import part, windows, writer  # noqa: E402
from unfused.stages import shards  # noqa: E402
from unfused.store import Artifact, Folder, Work  # noqa: E402

CLIPS_PER_SECOND = 140
"""What a core trains on (see docs/performance.md)."""


@dataclass(frozen=True)
class Sizes:
    clips: int = 1000
    seconds: float = 1.0
    rate: int = 16000
    rounds: int = 7


def main() -> None:
    harness.main("verifying", Sizes(), measure)


def measure(sizes: Sizes) -> harness.Report:
    with tempfile.TemporaryDirectory() as name:
        return _measure(sizes, Path(name))


def _measure(sizes: Sizes, folder: Path) -> harness.Report:
    recordings = _write_clips(sizes, folder / "clips")
    taken = harness.alternate(
        {
            "with": lambda: _take_in(recordings, Work(str(folder / "with"))),
            "without": lambda: _without(lambda: _take_in(recordings, Folder(str(folder / "out")))),
        },
        sizes.rounds,
    )
    found = _part(sizes, folder / "with")
    read = harness.alternate(
        {"with": lambda: _epoch(found), "without": lambda: _without(lambda: _epoch(found))},
        sizes.rounds,
    )
    rows = []
    for what, times in (("take clips in", taken), ("read an epoch", read)):
        cost = harness.ratio(times, "with", "without") - 1
        rows.append([what, *(harness.spread(times[one]) for one in ("with", "without")),
                     f"{cost:+.1%}"])  # fmt: skip
    extra = (np.median(read["with"]) - np.median(read["without"])) * CLIPS_PER_SECOND / sizes.clips
    rows.append(["the same, as a share of training on it", "", "", f"{extra:+.2%}"])
    aims = [
        harness.Aim("cost of taking clips in", harness.ratio(taken, "with", "without") - 1, 0.02,
                    at_most=True),
        harness.Aim("cost of an epoch that is streamed", float(extra), 0.02, at_most=True),
    ]  # fmt: skip
    header = ["seconds", "verified", "not", "cost"]
    return harness.Report("Verification", header, rows, aims)


def _write_clips(sizes: Sizes, folder: Path) -> tuple[shards.Recording, ...]:
    folder.mkdir()
    rng, found = np.random.default_rng(0), []
    for number in range(sizes.clips):
        path = folder / f"{number}.flac"
        wave = 0.1 * rng.standard_normal(int(sizes.seconds * sizes.rate))
        soundfile.write(path, wave, sizes.rate)
        span = (number, None, None)
        found.append(shards.Recording(str(path), str(number), path.stat().st_size, (span,)))
    return tuple(found)


def _take_in(recordings: tuple[shards.Recording, ...], folder: Folder) -> float:
    cutting = shards.Cutting.of(IngestConfig(), is_corpus=False)
    shard = shards.Shard("train", 0, recordings, AudioConfig(), cutting, folder, True)
    began = time.perf_counter()
    shards.decode_shard(shard.plain())
    return time.perf_counter() - began


def _part(sizes: Sizes, folder: Path) -> Artifact[Any]:
    facts = data.PartFacts(
        digest="part",
        shards=[sizes.clips],
        seconds=sizes.clips * sizes.seconds,
        durations=[sizes.seconds] * 5,
        audio=AudioConfig().settled(),
    )
    return Artifact(Folder(str(folder)), "part", facts)


def _epoch(found: Artifact[Any]) -> float:
    began = time.perf_counter()
    for piece in windows.slices(found, range(part.num_clips(found)), 128):
        windows.random_block(piece, 15200, seed=0)
    return time.perf_counter() - began


def _without(run: Any) -> float:
    """Run with neither digests nor checksums."""
    kept = writer.create_table, windows.opened_table, shards.Work
    writer.create_table, windows.opened_table, shards.Work = pq.ParquetWriter, _opened, Folder
    try:
        return run()
    finally:
        writer.create_table, windows.opened_table, shards.Work = kept


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    with folder.open(name) as source, pq.ParquetFile(source) as file:
        yield file


if __name__ == "__main__":
    main()
