"""`unfused predict` over many files: its speed beside the embedding of a run and beside the same
model on samples in memory, and its memory as the files grow; and over one that lasts for hours.

    python benchmarks/predicting.py --num-clips 2000 20000 --hours 0.25 4

Files are generated, a second each. The first peer is the stage `embed` of a run on the fewer of
them, with an encoder of the model's kind: what its clips take on a worker, which has a core, times
the cores. It reads them from shards, decoded. The second is as many processes as there are cores,
on one thread each, which score clips that they hold in memory and read nothing. The speed of
`predict` is what more files take longer, so that neither Ray's start nor the model's loading
counts; memory is that of all its processes together, at its highest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import soundfile
from collection import write_recording

sys.path[:0] = [str(harness.ROOT / "platform"), str(harness.ROOT / "tests")]

from small_classifier import random_classifier, write_model  # noqa: E402
from unfused import cores  # noqa: E402
from unfused.cores.memory import memory_of  # noqa: E402
from unfused.store import Folder  # noqa: E402

LOOK_SECONDS = 0.5
PEER = """
import sys, time
import numpy as np
from unfused import cores
cores.prepare_process(threads=1)
import unfused
model = unfused.load(sys.argv[1])
waves = list((np.random.default_rng(0).standard_normal((64, 16000)) * 3000).astype(np.int16))
model.probabilities(waves)
print("ready", flush=True)
sys.stdin.readline()
began, done = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[2]):
    model.probabilities(waves)
    done += len(waves)
print(done / (time.perf_counter() - began), flush=True)
"""

RUN = (
    "arms=[unfused]", "teachers.also=[statistics]", "pretrain.epochs=1", "distill.epochs=1",
    "finetune.labels_per_class=5", "finetune.mode=linear", "finetune.num_folds=0",
)  # fmt: skip
"""Of a run whose embedding is measured: as little of the rest as there may be."""


@dataclass(frozen=True)
class Sizes:
    num_clips: tuple[int, ...] = (2000, 20000)
    hours: tuple[float, ...] = (0.25, 4.0)
    embedding_dim: int = 2048
    peer_seconds: float = 20.0


@dataclass(frozen=True)
class Found:
    """Of one call of `predict`."""

    seconds: float
    gib: float


def write_clips(folder: Path, count: int) -> None:
    folder.mkdir()
    noise = (np.random.default_rng(0).standard_normal(16000 + count) * 3000).astype(np.int16)
    for number in range(count):
        soundfile.write(folder / f"{number:06d}.wav", noise[number : number + 16000], 16000)


def predict(model: Path, clips: Path) -> Found:
    """Label a file, or all files of a folder, with a program of its own."""
    out = clips.with_suffix(".parquet")
    command = [
        sys.executable,
        "-m",
        "unfused",
        "predict",
        str(model),
        str(clips),
        "--out",
        str(out),
    ]
    began, most = time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=clips.parent, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(LOOK_SECONDS)
    assert process.returncode == 0
    return Found(time.perf_counter() - began, most / 2**30)


def embedding(clips: Path, embedding_dim: int) -> float:
    """Clips a second that a run embeds on all cores, were there as many teachers."""
    files, root = sorted(clips.glob("*.wav")), clips.parent
    rows = [f"{file},{number % 2}" for number, file in enumerate(files)]
    (root / "task.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    settings = [*RUN, f"encoder.embedding_dim={embedding_dim}"]
    command = [
        sys.executable,
        str(harness.ROOT / "pipelines" / "full.py"),
        "--task", "task.csv", "--store", "store", "--summary", "summary.json", *settings,
    ]  # fmt: skip
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    stages = json.loads((root / "summary.json").read_text())["stages"]
    seconds = next(one["seconds"] for one in stages if one["name"] == "embed")
    return len(files) / seconds * cores.available_cpus()


def peer(model: Path, seconds: float) -> float:
    """Clips a second of processes that read nothing, one for each core."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PEER, str(model), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(cores.available_cpus())
    ]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return sum(float(one.communicate()[0]) for one in started)


def measure(sizes: Sizes) -> harness.Report:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        classifier = random_classifier(Folder.of(root / "classifier"), sizes.embedding_dim)
        write_model(Folder.of(root / "model"), classifier)
        before = peer(root / "model", sizes.peer_seconds)
        found = {}
        for count in sizes.num_clips:
            write_clips(root / str(count), count)
            found[count] = predict(root / "model", root / str(count))
        embedded = embedding(root / str(min(found)), sizes.embedding_dim)
        nights = {}
        for hours in sizes.hours:
            write_recording(root / f"{hours:g}.wav", hours)
            nights[hours] = predict(root / "model", root / f"{hours:g}.wav")
        after = peer(root / "model", sizes.peer_seconds)
    few, many = min(found), max(found)
    speed = (many - few) / (found[many].seconds - found[few].seconds)
    memory = (before + after) / 2
    named = {f"{count} files": one for count, one in found.items()}
    named |= {f"{hours:g} hours in one": one for hours, one in nights.items()}
    rows = [[name, f"{one.seconds:.0f}", f"{one.gib:.2f}"] for name, one in named.items()]
    short, long = min(nights), max(nights)
    return harness.Report(
        "Labelling many files",
        ["what", "seconds, with the start", "GiB of all processes"],
        rows,
        [
            harness.Aim("speed beside the embedding of a run", speed / embedded, 0.9),
            harness.Aim("speed beside clips in memory", speed / memory, 0.9),
            harness.Aim(
                f"memory, {many} files beside {few}", found[many].gib / found[few].gib, 1.2, True
            ),
            harness.Aim(
                f"memory, {long:g} hours beside {short:g}",
                nights[long].gib / nights[short].gib,
                1.2,
                True,
            ),
        ],
        [
            f"{speed:.0f} files/s; a run embeds {embedded:.0f} clips/s; in memory {before:.0f}"
            f" clips/s before and {after:.0f} after"
        ],
    )


if __name__ == "__main__":
    harness.main("predicting", Sizes(), measure)
