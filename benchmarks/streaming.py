"""Ray Data into Ray Train, against a loop over one tensor that holds every waveform.

    python benchmarks/streaming.py --num-clips 512 --seconds 1 10

Same model, objective, front end, precision, threads and allocator. A worker keeps a small share of
the clips at hand (`kept`); the path of a share that is too large for that is measured on the same
clips as if none could be kept (`streamed`). `memory, beside Ray` is the hand-written loop while a
Ray Train run of this machine waits for work: what Ray's own processes take of the cores, whatever
feeds the training.

Every epoch counts, from the first batch on, and a streamed epoch is several blocks of clips
(`BLOCK`), so that most of the reading falls into the time that is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
import numpy as np
import peers
import torch
from processes import READING, Seconds, between, processor_seconds

from unfused import runtime, shards, training
from unfused.config import EncoderConfig, RunOptions, preset
from unfused.events import EpochDone, Event, Stream
from unfused.pipeline import open_cluster
from unfused.stages.pretrain import PretrainJob
from unfused.store import Artifact, Folder

PATHS = {"streamed": 0, "kept": 2**62}
"""Bytes of clips that a worker may keep; streamed comes first, while the warm-up's readers live."""
BLOCK = 4 * 2**20
"""Bytes of a block and of a window of the shuffle; a run has 16 and 128 MiB, and more clips."""
BESIDE = "memory, beside Ray"
CONTESTANTS = ("memory", BESIDE, *PATHS)
COLUMNS = {
    "first batch": "first batch after, s",
    "between epochs": "between epochs, with the checkpoint, s",
    "waiting": "share of the time spent waiting",
    "training cores": "cores: training",
    "reading cores": "reading",
    "other cores": "Ray and driver",
}
NICENESS = "RAY_worker_niceness"
"""Ray's workers step back (15) for whatever else a machine does; here all are equal."""
Found = dict[tuple[str, float], dict[str, float]]
"""Figures by contestant and seconds of a clip."""


@dataclass(frozen=True)
class Sizes:
    num_clips: int = 384
    seconds: tuple[float, ...] = (1.0, 10.0)
    embedding_dim: int = 2048
    epochs: int = 4
    repetitions: int = 2


@dataclass(frozen=True)
class Told:
    """The end of an epoch, when it was told, and what all processes had computed by then."""

    at: float
    event: EpochDone
    spent: Seconds


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
        shards.KEPT_BYTES, shards.BLOCK_BYTES, shards.WINDOW_BYTES = self.kept, BLOCK, BLOCK
        return self.job.run(worker)


def beside_and_through_ray(sizes: Sizes) -> Found:
    """The hand-written loop beside a Ray Train run that waits, and then that run on every path."""
    os.environ[NICENESS] = "0"
    options = RunOptions()
    hardware = runtime.probe(options)
    config = runtime.resolve(preset("recommended"), hardware)
    told: dict[str, list[Told]] = {}
    stream = Stream()

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            now = Told(time.perf_counter(), event, processor_seconds())
            told.setdefault(event.node, []).append(now)

    stream.subscribe(keep)
    found: Found = {}
    with (
        tempfile.TemporaryDirectory() as place,
        open_cluster(options, hardware, stream, Folder.of(place) / "work") as ray,
    ):
        root = Path(place)

        def train(name: str, part: Artifact, kept: int, epochs: int) -> None:
            job = PretrainJob(
                name,
                part,
                EncoderConfig(embedding_dim=sizes.embedding_dim),
                config.pretrain.model_copy(update={"epochs": epochs}),
                Folder.of(root / name),
                Folder.of(root / "checkpoints" / name),
            )
            ray.session.run([Keeping(job, kept)])
            while len(told.get(name, [])) < epochs:
                time.sleep(0.01)

        for seconds in sizes.seconds:
            part = write_part(root / f"{seconds:g}", waves(sizes.num_clips, seconds))
            train(f"warm up {seconds:g}", part, PATHS["streamed"], epochs=1)
            for path, kept in PATHS.items():
                name = f"{path} {seconds:g}"
                began = time.perf_counter()
                train(name, part, kept, sizes.epochs)
                found[path, seconds] = _figures(told[name], began, sizes.num_clips)
        found |= in_memory(sizes, BESIDE)
    return found


def _figures(epochs: list[Told], began: float, num_clips: int) -> dict[str, float]:
    """Figures of a run of several epochs."""
    first, last = epochs[0], epochs[-1]
    seconds = [num_clips / one.event.clips_per_second for one in epochs]
    waits = [one.event.first_wait_seconds for one in epochs]
    in_epochs = sum(seconds) - waits[0]
    # An epoch is told when its checkpoint is written.
    writing = statistics.median(np.diff([one.at for one in epochs]) - seconds[1:])
    return {
        "clips/s": num_clips * len(epochs) / in_epochs,
        "first batch": first.at - writing - seconds[0] + waits[0] - began,
        "between epochs": writing + statistics.median(waits[1:]),
        "waiting": (sum(one.event.wait_seconds for one in epochs) - waits[0]) / in_epochs,
        **_cores(between(first.spent, last.spent), last.at - first.at, "train worker"),
    }


def _cores(spent: Counter[str], elapsed: float, trainer: str) -> dict[str, float]:
    """Processors that were busy, on average, with the training, with reading and with the rest."""
    mine, reading = spent[trainer] / elapsed, spent[READING] / elapsed
    return {
        "training cores": mine,
        "reading cores": reading,
        "other cores": spent.total() / elapsed - mine - reading,
    }


def in_memory(sizes: Sizes, name: str = "memory") -> Found:
    runtime.prepare_process()
    config = runtime.resolve(preset("recommended"), runtime.probe(RunOptions()))
    found: Found = {}
    for seconds in sizes.seconds:
        clips = torch.from_numpy(waves(sizes.num_clips, seconds))
        loop = peers.InMemoryLoop(clips, config.pretrain, sizes.embedding_dim)
        loop.epoch()
        began, before = time.perf_counter(), processor_seconds()
        spent = sum(sizes.num_clips / loop.epoch() for _ in range(sizes.epochs))
        cores = between(before, processor_seconds())
        cores = _cores(cores, time.perf_counter() - began, "driver")
        found[name, seconds] = {"clips/s": sizes.num_clips * sizes.epochs / spent, **cores}
    return found


def _in_process(of: str, sizes: Sizes) -> Found:
    """What a process of its own finds."""
    command = [sys.executable, __file__, "--child", of, json.dumps(asdict(sizes))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {(name, seconds): f for name, seconds, f in json.loads(done.stdout.splitlines()[-1])}


def measure(sizes: Sizes) -> harness.Report:
    if sizes.epochs < 2:
        raise SystemExit("The time between epochs needs at least two: --epochs 2")
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
            rows.append([f"{seconds:g} s", name, harness.spread(rates), f"{ratio:.2f}"])
            rows[-1] += [f"{middle[key]:.2f}" if key in middle else "-" for key in COLUMNS]
            if name in PATHS:
                aims.append(harness.Aim(f"{seconds:g} s clips, {name} / memory", ratio, 0.9))
    return harness.Report(
        "Streaming, steady state",
        ["clips", "path", "clips/s", "ratio", *COLUMNS.values()],
        rows,
        aims,
        [
            f"pre-training, d = {sizes.embedding_dim}, {sizes.epochs} epochs of"
            f" {sizes.num_clips} clips; cores: those that were busy on average, from"
            " the end of the first epoch to that of the last"
        ],
    )


def _child(of: str, sizes: Sizes) -> None:
    found = in_memory(sizes) if of == "memory" else beside_and_through_ray(sizes)
    print(json.dumps([[*who, figures] for who, figures in found.items()]))
    runtime.leave(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Sizes(**json.loads(sys.argv[3])))
    else:
        harness.main("streaming", Sizes(), measure)
