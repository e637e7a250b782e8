"""Ray Data into Ray Train, against a loop over one tensor that holds every waveform.

    python benchmarks/streaming.py --num-clips 512 --seconds 1 10

Same model, objective, front end, precision, threads and allocator. A worker keeps a small share of
the clips at hand (`kept`); the path of a share that is too large for that is measured on the same
clips as if none could be kept (`streamed`). The loop in memory is a process of its own that knows
no Ray. It takes turns with the paths, seconds apart, since a shared machine is faster in one minute
than in the next; while it runs, all of Ray's processes are stopped (SIGSTOP). In `memory, beside
Ray` they are not: what Ray takes of the cores while its Ray Train run waits for work.

Steady state is from the second epoch on, in every contestant: in the first one, memory and kernels
are made ready. A streamed epoch is several blocks of clips (`BLOCK`), of which a few are read
ahead, so that most of the reading falls into the time that is measured.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
import numpy as np
import peers
import torch
from processes import READING, Seconds, between, processor_seconds

from unfused import cores, data, runtime, training
from unfused.config import RunOptions
from unfused.events import EpochDone, Event, Stream
from unfused.jobs.pretrain import PretrainJob
from unfused.models.encoders import audio_ntt
from unfused.pipeline import open_backend
from unfused.store import Artifact, Folder

PATHS = {"streamed": 0, "kept": 2**62}
"""Bytes of clips that a worker may keep; streamed comes first, while the warm-up's readers live."""
BLOCK = 4 * 2**20
"""Bytes of a block and of a window of the shuffle; a run has 16 and 128 MiB, and more clips."""
BESIDE = "memory, beside Ray"
COLUMNS = {
    "first batch": "first batch after, s",
    "between epochs": "between epochs, with the checkpoint, s",
    "waiting": "share of the time spent waiting",
    "training cores": "cores: training",
    "reading cores": "reading",
    "other cores": "Ray and driver",
}
Found = dict[tuple[str, float], dict[str, float]]
"""Figures by contestant and seconds of a clip."""


@dataclass(frozen=True)
class Sizes:
    num_clips: int = 256
    seconds: tuple[float, ...] = (1.0, 10.0)
    embedding_dim: int = 2048
    epochs: int = 4
    repetitions: int = 4


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


def write_part(folder: Path, clips: np.ndarray, per_shard: int = 512) -> Artifact[data.PartFacts]:
    """The clips as ingest writes them."""
    sizes = []
    for number, rows in enumerate(np.array_split(clips, -(-len(clips) // per_shard))):
        writer = data.ShardWriter(Folder.of(folder), f"part-{number:05d}.parquet")
        for row in rows:
            writer.add("", row)
        writer.close()
        sizes.append(len(rows))
    facts = data.PartFacts(
        digest="part",
        shards=sizes,
        seconds=clips.size / peers.AUDIO.sample_rate,
        durations=[clips.shape[1] / peers.AUDIO.sample_rate] * 5,
        audio=peers.AUDIO,
        log_mel_mean=-7.0,
        log_mel_std=4.0,
    )
    return Artifact(Folder.of(folder), facts.digest, facts)


@dataclass(frozen=True)
class Keeping:
    """A job whose worker keeps so many bytes of clips at hand."""

    job: PretrainJob
    kept: int

    @property
    def node(self) -> str:
        return self.job.node

    def run(self, worker: training.Worker) -> tuple[training.Fitted, float]:
        data.part.KEPT_BYTES = self.kept
        data.stream.BLOCK_BYTES = data.stream.WINDOW_BYTES = BLOCK
        return self.job.run(worker)


class Memory:
    """The loop in memory, in a process that knows no Ray."""

    def __init__(self, sizes: Sizes) -> None:
        command = [sys.executable, __file__, "--child", json.dumps(asdict(sizes))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def number(self) -> int:
        return self._process.pid

    def clips_per_second(self, seconds: float) -> float:
        """Of clips of so many seconds."""
        assert self._process.stdin and self._process.stdout
        print(seconds, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def _serve_memory(sizes: Sizes) -> None:
    """The child of `Memory`: a line in, a line out."""
    cores.prepare_process()
    config = runtime.resolve(peers.contrast(), runtime.probe(RunOptions()))
    loops = {}
    for line in sys.stdin:
        seconds = float(line)
        if seconds not in loops:
            clips = torch.from_numpy(waves(sizes.num_clips, seconds))
            loops[seconds] = peers.InMemoryLoop(clips, config.pretrain, sizes.embedding_dim)
            loops[seconds].epoch()
        spent = sum(sizes.num_clips / loops[seconds].epoch() for _ in range(sizes.epochs))
        print(sizes.num_clips * sizes.epochs / spent, flush=True)


@contextmanager
def stopped(but: int) -> Iterator[None]:
    """All processes below this one stand still, but for process number `but`."""
    numbers = set(processor_seconds()) - {os.getpid(), but}
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGCONT)


def race(sizes: Sizes) -> list[Found]:
    """Figures of every round."""
    memory = Memory(sizes)
    options = RunOptions()
    hardware = runtime.probe(options)
    config = runtime.resolve(peers.contrast(), hardware)
    told: dict[str, list[Told]] = {}
    stream = Stream()

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            now = Told(time.perf_counter(), event, processor_seconds())
            told.setdefault(event.node, []).append(now)

    stream.subscribe(keep)
    with (
        tempfile.TemporaryDirectory() as place,
        open_backend(options, hardware, stream, Folder.of(place) / "work") as backend,
    ):
        root = Path(place)

        def train(name: str, part: Artifact, kept: int, epochs: int) -> None:
            job = PretrainJob(
                name,
                part,
                (),
                audio_ntt.Config(embedding_dim=sizes.embedding_dim),
                config.pretrain.model_copy(update={"epochs": epochs}),
                Folder.of(root / name),
                Folder.of(root / "checkpoints" / name),
            )
            backend.pool.run([Keeping(job, kept)])
            while len(told.get(name, [])) < epochs:
                time.sleep(0.01)

        parts = {}
        for seconds in sizes.seconds:
            parts[seconds] = write_part(root / f"{seconds:g}", waves(sizes.num_clips, seconds))
            train(f"warm up {seconds:g}", parts[seconds], PATHS["streamed"], epochs=1)
            memory.clips_per_second(seconds)
        rounds: list[Found] = []
        for turn in range(sizes.repetitions):
            found: Found = {}
            for seconds, part in parts.items():
                for path, kept in PATHS.items():
                    with stopped(but=memory.number):
                        rate = memory.clips_per_second(seconds)
                    name = f"{path} {seconds:g} {turn}"
                    began = time.perf_counter()
                    train(name, part, kept, sizes.epochs)
                    found[path, seconds] = {
                        **_figures(told[name], began, sizes.num_clips),
                        "memory": rate,
                    }
                rate = memory.clips_per_second(seconds)
                found[BESIDE, seconds] = {
                    "clips/s": rate,
                    "memory": found["kept", seconds]["memory"],
                }
            rounds.append(found)
        memory.close()
    return rounds


def _figures(epochs: list[Told], began: float, num_clips: int) -> dict[str, float]:
    """Figures of a run of several epochs."""
    first, last = epochs[0], epochs[-1]
    seconds = [num_clips / one.event.clips_per_second for one in epochs]
    waits = [one.event.first_wait_seconds for one in epochs]
    steady = sum(seconds[1:])
    # An epoch is told when its checkpoint is written.
    writing = statistics.median(np.diff([one.at for one in epochs]) - seconds[1:])
    return {
        "clips/s": num_clips * (len(epochs) - 1) / steady,
        "first batch": first.at - writing - seconds[0] + waits[0] - began,
        "between epochs": writing + statistics.median(waits[1:]),
        "waiting": sum(one.event.wait_seconds for one in epochs[1:]) / steady,
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


def measure(sizes: Sizes) -> harness.Report:
    if sizes.epochs < 2:
        raise SystemExit("The time between epochs needs at least two: --epochs 2")
    rows, aims = [], []
    rounds = race(sizes)
    for seconds in sizes.seconds:
        ceiling = [one[path, seconds]["memory"] for one in rounds for path in PATHS]
        rows.append([f"{seconds:g} s", "memory", harness.spread(ceiling), "1.00"])
        rows[-1] += ["-"] * len(COLUMNS)
        for name in (BESIDE, *PATHS):
            figures = [one[name, seconds] for one in rounds]
            rates = [one["clips/s"] for one in figures]
            ratios = [one["clips/s"] / one["memory"] for one in figures]
            rows.append([f"{seconds:g} s", name, harness.spread(rates), harness.spread(ratios)])
            for key in COLUMNS:
                found = [one[key] for one in figures if key in one]
                rows[-1].append(f"{statistics.median(found):.2f}" if found else "-")
            if name in PATHS:
                what = f"{seconds:g} s clips, {name} / memory"
                aims.append(harness.Aim(what, statistics.median(ratios), 0.9))
    return harness.Report(
        "Streaming, steady state",
        ["clips", "path", "clips/s", "ratio to the turn before", *COLUMNS.values()],
        rows,
        aims,
        [
            f"pre-training, d = {sizes.embedding_dim}, {sizes.epochs} epochs of"
            f" {sizes.num_clips} clips, {sizes.repetitions} rounds; cores: those that were busy on"
            " average, from the end of the first epoch to that of the last"
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _serve_memory(Sizes(**json.loads(sys.argv[2])))
    else:
        harness.main("streaming", Sizes(), measure)
        runtime.leave(0)
