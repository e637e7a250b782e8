"""Ray Data into Ray Train, against a loop over one tensor that holds every waveform.

    python benchmarks/streaming.py --num-clips 512 --seconds 1 10

Same model, objective, front end, precision, threads and allocator. A worker keeps a small share of
the clips at hand (`kept`); the path of a share that is too large for that is measured on the same
clips by UNFUSED_KEPT_MIB=0 (`streamed`). `memory, beside Ray` is the hand-written loop while a
Ray Train run of this machine waits for work: what Ray's own processes take of the cores, whatever
feeds the training. Each contestant runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import harness
import numpy as np
import peers
import torch

from unfused import runtime, shards, training
from unfused.config import EncoderConfig, RunOptions, preset
from unfused.events import EpochDone, Event, Stream
from unfused.stages.pretrain import PretrainJob
from unfused.store import Artifact, Folder

PATHS = {"kept": "512", "streamed": "0"}
BESIDE = "memory, beside Ray"
RAY_NICENESS = 15
"""Of Ray's workers."""


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


def through_ray(sizes: Sizes, seconds: float) -> dict[str, float]:
    """Pre-train with a real Ray Train run; the figures of its epochs."""
    options = RunOptions()
    hardware = runtime.probe(options)
    config = runtime.resolve(preset("recommended"), hardware)
    told: list[EpochDone] = []
    stream = Stream()

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            told.append(event)

    stream.subscribe(keep)
    with tempfile.TemporaryDirectory() as place, runtime.connect(options, hardware, stream) as ray:
        root = Path(place)
        part = write_part(root / "part", waves(sizes.num_clips, seconds))
        ray.session = training.Session(ray, Folder.of(root / "work"))
        ray.session.start()
        job = PretrainJob(
            "pretrain",
            part,
            EncoderConfig(embedding_dim=sizes.embedding_dim),
            config.pretrain.model_copy(update={"epochs": sizes.epochs}),
            Folder.of(root / "out"),
            Folder.of(root / "checkpoints"),
        )
        ray.session.run([job])
        ray.session.close()
    later = told[1:]
    return {
        "clips/s": statistics.median(event.clips_per_second for event in later),
        "first batch": told[0].first_wait_seconds,
        "between epochs": statistics.median(event.first_wait_seconds for event in later),
        "waiting": statistics.median(
            event.wait_seconds * event.clips_per_second / sizes.num_clips for event in later
        ),
    }


def in_memory(sizes: Sizes, seconds: float) -> dict[str, float]:
    runtime.prepare_process()
    config = runtime.resolve(preset("recommended"), runtime.probe(RunOptions()))
    clips = torch.from_numpy(waves(sizes.num_clips, seconds))
    loop = peers.InMemoryLoop(clips, config.pretrain, sizes.embedding_dim)
    rates = [loop.epoch() for _ in range(sizes.epochs)]
    return {"clips/s": statistics.median(rates[1:])}


@dataclass(frozen=True)
class Nothing:
    """A job that ends when the workers are there."""

    node = "nothing"

    def run(self, worker: training.Worker) -> dict[str, float]:
        return {}


def beside_ray(sizes: Sizes, seconds: float) -> dict[str, float]:
    """The hand-written loop, as nice as a worker of Ray's, beside one that waits."""
    options = RunOptions()
    hardware, stream = runtime.probe(options), Stream()
    with tempfile.TemporaryDirectory() as place, runtime.connect(options, hardware, stream) as ray:
        ray.session = training.Session(ray, Folder.of(place))
        ray.session.run([Nothing()])
        os.nice(RAY_NICENESS)
        found = in_memory(sizes, seconds)
        ray.session.close()
    return found


def _in_process(path: str, sizes: Sizes, seconds: float, kept: list[dict]) -> float:
    given = json.dumps([path, sizes.num_clips, seconds, sizes.embedding_dim, sizes.epochs])
    environment = os.environ | {"UNFUSED_KEPT_MIB": PATHS.get(path, "0")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--child", given],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    kept.append(found | {"whole": time.perf_counter() - began})
    return found["clips/s"]


def measure(sizes: Sizes) -> harness.Report:
    rows, aims = [], []
    for seconds in sizes.seconds:
        kept: dict[str, list[dict]] = {name: [] for name in ("memory", BESIDE, *PATHS)}
        found = harness.alternate(
            {
                name: partial(_in_process, name, sizes, seconds, figures)
                for name, figures in kept.items()
            },
            sizes.repetitions,
        )
        for name, rates in found.items():
            ratio = harness.ratio(found, name, "memory")
            middle = {
                key: statistics.median(one[key] for one in kept[name]) for key in kept[name][0]
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


def _child(path: str, num_clips: int, seconds: float, embedding_dim: int, epochs: int) -> None:
    sizes = replace(Sizes(), num_clips=num_clips, embedding_dim=embedding_dim, epochs=epochs)
    run = {"memory": in_memory, BESIDE: beside_ray}.get(path, through_ray)
    print(json.dumps(run(sizes, seconds)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*json.loads(sys.argv[2]))
    else:
        harness.main("streaming", Sizes(), measure)
