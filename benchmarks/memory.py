"""Peak memory of every process, and the cost, as the clips grow: streaming means flat.

    python benchmarks/memory.py --num-clips 160 320 640 1280 --seconds 40

The whole program ingests, pre-trains, embeds, clusters and distils generated WAV files on a Ray
whose object store is capped, with clips never kept at hand (UNFUSED_KEPT_MIB=0). A
process's memory is what it alone holds (USS): pages of the object store are shared by all and
capped as such.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
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
)
"""Every batch is full at the smallest size: a larger batch is no larger corpus."""
STAGES = ("ingest", "pretrain", "embed", "cluster", "distill")


@dataclass(frozen=True)
class Sizes:
    num_clips: tuple[int, ...] = (160, 320, 640, 1280)
    seconds: float = 40.0
    object_store_mib: int = 76
    """Ray takes no less."""


class Watch:
    """Samples the memory that the driver and the Ray processes that see clips hold alone."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    self._look(process)

    def _look(self, process: Path) -> None:
        try:
            role = _role((process / "cmdline").read_bytes().decode(errors="replace"))
            if not role:
                return
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            return
        alone = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        self.peaks[role] = max(self.peaks.get(role, 0.0), alone / 1024)


def _role(command: str) -> str:
    """What a process is for; empty for those that are not this run's."""
    words = command.replace("\0", " ")
    if "pipelines/full.py" in words:
        return "driver"
    if not words.startswith("ray::") or words.startswith("ray::IDLE"):
        return ""
    name = words.removeprefix("ray::").split()[0].split("(")[0].split(".")[0]
    if "RayTrainWorker" in words:
        return "train worker"
    if "cluster" in name:
        return "clustering"
    return "data task" if "Map" in name or "Read" in name else ""


def run(count: int, sizes: Sizes) -> tuple[dict[str, float], dict[str, float]]:
    """Peak MiB by process, and seconds by stage."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        task = write_task(folder, count, sizes.seconds)
        with Watch() as watch:
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
    return watch.peaks, seconds


def measure(sizes: Sizes) -> harness.Report:
    os.environ |= {
        "UNFUSED_KEPT_MIB": "0",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(sizes.object_store_mib * 2**20),
    }
    return _report([run(count, sizes) for count in sizes.num_clips], sizes)


def _report(found: list[tuple[dict, dict]], sizes: Sizes) -> harness.Report:
    audio = [count * sizes.seconds * 16000 * 2 / 2**20 for count in sizes.num_clips]
    roles = sorted({role for peaks, _ in found for role in peaks})
    rows = [
        [f"{role}, peak MiB", *(f"{peaks.get(role, float('nan')):.0f}" for peaks, _ in found)]
        for role in roles
    ]
    rows += [
        [f"{stage}, s", *(f"{seconds[stage]:.3g}" for _, seconds in found)] for stage in STAGES
    ]
    aims = [
        harness.Aim(
            f"{role}: peak at {audio[-1]:.0f} MiB of audio / at a quarter of it",
            found[-1][0][role] / found[-3][0][role],
            1.15,
            at_most=True,
        )
        for role in roles
        # Clustering holds all embeddings at once, which grow with the clips as they may.
        if role != "clustering" and role in found[-1][0] and role in found[-3][0]
    ]
    aims += [
        harness.Aim(
            f"{stage}: exponent of the seconds over {len(audio)} sizes",
            float(np.polyfit(np.log(audio), np.log([s[stage] for _, s in found]), 1)[0]),
            1.05,
            at_most=True,
        )
        for stage in STAGES
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
            " cluster: without the start of its process"
        ],
    )


if __name__ == "__main__":
    harness.main("memory", Sizes(), measure)
