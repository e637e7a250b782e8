"""Peak memory of every process, and the cost, as the clips grow: streaming means flat.

    python benchmarks/memory.py --num-clips 160 320 640 1280 --seconds 40

The whole program ingests, pre-trains, embeds, clusters and distils generated WAV files on a Ray
whose object store is capped, with clips never kept at hand (UNFUSED_KEPT_MIB=0). A process's memory
is what it alone holds (USS): pages of the object store that several have mapped are capped as such.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
from processes import MemoryWatch
from startup import pipeline, write_task

SMALL = (
    "arms=[unfused]",
    "rounds=1",
    "encoder.embedding_dim=256",
    "pretrain.epochs=2",
    "embed.batch_size=64",
    "cluster.num_clusters=16",
    "distill.epochs=1",
    "finetune.labels_per_class=5",
    "finetune.epochs=5",
    "finetune.encoder_epochs=1",
    "evaluate.batch_size=16",
)
"""Every batch is full at the smallest size: a larger batch is no larger corpus."""
STAGES = ("ingest", "pretrain", "embed", "cluster", "distill")
GROWING = ("ingest", "pretrain", "embed", "distill")
"""Those whose seconds say how they grow: so few clips are clustered in no time (clustering.py has
the growth of k-means)."""


@dataclass(frozen=True)
class Sizes:
    num_clips: tuple[int, ...] = (160, 320, 640, 1280)
    seconds: float = 40.0
    object_store_mib: int = 76
    """Ray takes no less than 75."""


def run(count: int, sizes: Sizes) -> tuple[MemoryWatch, dict[str, float]]:
    """Memory by process, and seconds by stage."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        task = write_task(folder, count, sizes.seconds)
        with MemoryWatch("pipelines/full.py") as watch:
            _, summary = pipeline(folder, "--task", str(task), *SMALL)
        (manifest,) = (folder / "store" / "cluster").glob("*/manifest.json")
        clustered = json.loads(manifest.read_text())["facts"]["clustering_seconds"]
    seconds = {
        stage["name"].partition("/")[0]: stage["seconds"]
        for stage in summary["stages"]
        if stage["name"].partition("/")[0] in STAGES
    }
    # A process may be at hand or have to start: seconds that say nothing of the clips.
    seconds["cluster"] = clustered
    return watch, seconds


def measure(sizes: Sizes) -> harness.Report:
    if len(sizes.num_clips) < 3:
        raise SystemExit("Growth is held against the size before the last but one: name 3 or more.")
    os.environ |= {
        "UNFUSED_KEPT_MIB": "0",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(sizes.object_store_mib * 2**20),
    }
    return _report([run(count, sizes) for count in sizes.num_clips], sizes)


def _report(found: list[tuple[MemoryWatch, dict[str, float]]], sizes: Sizes) -> harness.Report:
    audio = [count * sizes.seconds * 16000 * 2 / 2**20 for count in sizes.num_clips]
    quarter, largest = found[-3][0], found[-1][0]
    roles = sorted({role for watch, _ in found for role in watch.peaks})
    rows = [
        [
            f"{role}, peak MiB",
            *(f"{watch.peaks.get(role, float('nan')):.0f}" for watch, _ in found),
        ]
        for role in roles
    ]
    rows += [
        [f"{stage}, s", *(f"{seconds[stage]:.3g}" for _, seconds in found)] for stage in STAGES
    ]
    aims, notes = [], []
    for role in roles:
        if not quarter.peaks.get(role) or not largest.peaks.get(role):
            continue
        growth = largest.peaks[role] / quarter.peaks[role]
        what = f"{role}: peak at {audio[-1]:.0f} MiB of audio / at a quarter of it"
        aims.append(harness.Aim(what, growth, 1.15, at_most=True))
        if not aims[-1].met:
            notes.append(f"{role}, MiB at a quarter and at all: {_kinds(role, quarter, largest)}")
    aims += [
        harness.Aim(
            f"{stage}: exponent of the seconds over {len(audio)} sizes",
            float(np.polyfit(np.log(audio), np.log([s[stage] for _, s in found]), 1)[0]),
            1.05,
            at_most=True,
        )
        for stage in GROWING
    ]
    allowed = sizes.object_store_mib
    aims.append(harness.Aim("audio / object store", audio[-1] / allowed, 20))
    return harness.Report(
        "Memory as the clips grow",
        ["", *(f"{size:.0f} MiB of audio" for size in audio)],
        rows,
        aims,
        [
            f"object store of {allowed} MiB; clips of {sizes.seconds:g} s, none kept at hand;"
            " cluster: without the start of its process",
            *notes,
        ],
    )


def _kinds(role: str, *watches: MemoryWatch) -> str:
    """What the peaks of a process consisted of."""
    kinds = sorted({kind for watch in watches for kind in watch.kinds[role]})
    return ", ".join(
        f"{kind} {' and '.join(f'{watch.kinds[role][kind]:.0f}' for watch in watches)}"
        for kind in kinds
    )


if __name__ == "__main__":
    harness.main("memory", Sizes(), measure)
