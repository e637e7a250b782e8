"""Ray Data into Ray Train, against a loop over one tensor that holds every waveform.

    python benchmarks/streaming.py --num-clips 512 --seconds 1 10

Same model, objective, front end, precision, threads and allocator. A worker keeps a small share of
the clips at hand (`kept`); the path of a share that is too large for that is measured on the same
clips as if none could be kept (`streamed`). `memory, beside Ray` is the hand-written loop while a
Ray Train run of this machine waits for work: what Ray's own processes take of the cores, whatever
feeds the training.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
import numpy as np
import peers
import torch

from unfused import runtime, shards, training
from unfused.config import EncoderConfig, RunOptions, preset
from unfused.events import EpochDone, Event, Stream
from unfused.pipeline import open_cluster
from unfused.stages.pretrain import PretrainJob
from unfused.store import Artifact, Folder

PATHS = {"kept": 512 * 2**20, "streamed": 0}
BESIDE = "memory, beside Ray"
CONTESTANTS = ("memory", BESIDE, *PATHS)
NICENESS = "RAY_worker_niceness"
"""Ray's workers step back (15) for whatever else a machine does; here all are equal."""
Found = dict[tuple[str, float], dict[str, float]]
"""Figures by contestant and seconds of a clip."""


@dataclass(frozen=True)
class Sizes:
    num_clips: int = 512
    seconds: tuple[float, ...] = (1.0, 10.0)
    embedding_dim: int = 2048
    epochs: int = 3
    repetitions: int = 2


def waves(count: int, seconds: float) -> np.ndarray:
    """Noise (N, S) int16: the values cost nothing, the bytes do."""
    rng = np.random.default_rng(0)
    size = (count, round(seconds * peers.AUDIO.sample_rate))
    return rng.integers(-3000, 3000, size, dtype=np.int16)


def write_part(folder: Path, clips: np.ndarray, per_shard: int = 512) -> Artifact:
    """The clips as ingest writes them."""
    sizes = []
    for number, rows in enumerate(np.array_split(clips, -(-len(clips) // per_shard))):
        writer = shards.ShardWriter(Folder.of(folder), f"part-{number:05d}.parquet")
        for row in rows:
            writer.add("", row)
        writer.close()
        sizes.append(len(rows))
    facts = {
        "shards": sizes,
        "seconds": clips.size / peers.AUDIO.sample_rate,
        "audio": peers.AUDIO.model_dump(mode="json"),
        "log_mel_mean": -7.0,
        "log_mel_std": 4.0,
    }
    return Artifact(Folder.of(folder), "part", facts)


@dataclass(frozen=True)
class Keeping:
    """A job whose worker keeps so many bytes of clips at hand."""

    job: PretrainJob
    kept: int

    @property
    def node(self) -> str:
        return self.job.node

    def run(self, worker: training.Worker) -> dict:
        shards.KEPT_BYTES = self.kept
        return self.job.run(worker)


def beside_and_through_ray(sizes: Sizes) -> Found:
    """The hand-written loop beside a Ray Train run that waits, and then that run on every path."""
    os.environ[NICENESS] = "0"
    options = RunOptions()
    hardware = runtime.probe(options)
    config = runtime.resolve(preset("recommended"), hardware)
    told: dict[str, list[EpochDone]] = {}
    stream = Stream()

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            told.setdefault(event.node, []).append(event)

    stream.subscribe(keep)
    found: Found = {}
    with (
        tempfile.TemporaryDirectory() as place,
        open_cluster(options, hardware, stream, Folder.of(place) / "work") as ray,
    ):
        root = Path(place)
        for seconds in sizes.seconds:
            part = write_part(root / f"{seconds:g}", waves(sizes.num_clips, seconds))
            for path, kept in PATHS.items():
                name = f"{path} {seconds:g}"
                job = PretrainJob(
                    name,
                    part,
                    EncoderConfig(embedding_dim=sizes.embedding_dim),
                    config.pretrain.model_copy(update={"epochs": sizes.epochs}),
                    Folder.of(root / name),
                    Folder.of(root / "checkpoints" / name),
                )
                ray.session.run([Keeping(job, kept)])
                found[path, seconds] = _figures(told[name], sizes)
        found |= in_memory(sizes, BESIDE)
    return found


def _figures(epochs: list[EpochDone], sizes: Sizes) -> dict[str, float]:
    later = epochs[1:]
    return {
        "clips/s": statistics.median(event.clips_per_second for event in later),
        "first batch": epochs[0].first_wait_seconds,
        "between epochs": statistics.median(event.first_wait_seconds for event in later),
        "waiting": statistics.median(
            event.wait_seconds * event.clips_per_second / sizes.num_clips for event in later
        ),
    }


def in_memory(sizes: Sizes, name: str = "memory") -> Found:
    runtime.prepare_process()
    config = runtime.resolve(preset("recommended"), runtime.probe(RunOptions()))
    found: Found = {}
    for seconds in sizes.seconds:
        clips = torch.from_numpy(waves(sizes.num_clips, seconds))
        loop = peers.InMemoryLoop(clips, config.pretrain, sizes.embedding_dim)
        rates = [loop.epoch() for _ in range(sizes.epochs)]
        found[name, seconds] = {"clips/s": statistics.median(rates[1:])}
    return found


def _in_process(of: str, sizes: Sizes) -> Found:
    """What a process of its own finds."""
    command = [sys.executable, __file__, "--child", of, json.dumps(asdict(sizes))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {(name, seconds): f for name, seconds, f in json.loads(done.stdout.splitlines()[-1])}


def measure(sizes: Sizes) -> harness.Report:
    rows, aims = [], []
    rounds = [
        _in_process("memory", sizes) | _in_process("ray", sizes) for _ in range(sizes.repetitions)
    ]
    for seconds in sizes.seconds:
        found = {name: [one[name, seconds]["clips/s"] for one in rounds] for name in CONTESTANTS}
        for name, rates in found.items():
            ratio = harness.ratio(found, name, "memory")
            middle = {
                key: statistics.median(one[name, seconds][key] for one in rounds)
                for key in rounds[0][name, seconds]
            }
            rows.append(
                [
                    f"{seconds:g} s",
                    name,
                    harness.spread(rates),
                    f"{ratio:.2f}",
                    *(
                        f"{middle[key]:.2f}" if key in middle else "-"
                        for key in ("first batch", "between epochs", "waiting")
                    ),
                ]
            )
            if name in PATHS:
                aims.append(harness.Aim(f"{seconds:g} s clips, {name} / memory", ratio, 0.9))
    return harness.Report(
        "Streaming, steady state",
        [
            "clips",
            "path",
            "clips/s",
            "ratio",
            "first batch, s",
            "between epochs, s",
            "share of an epoch spent waiting",
        ],
        rows,
        aims,
        [f"pre-training, d = {sizes.embedding_dim}, {sizes.num_clips} clips, first epoch left out"],
    )


def _child(of: str, sizes: Sizes) -> None:
    found = in_memory(sizes) if of == "memory" else beside_and_through_ray(sizes)
    print(json.dumps([[*who, figures] for who, figures in found.items()]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Sizes(**json.loads(sys.argv[3])))
    else:
        harness.main("streaming", Sizes(), measure)
