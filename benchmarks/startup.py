"""What a pipeline costs before it does any work: Ray, workers, imports, MLflow.

    python benchmarks/startup.py --num-clips 48

The whole program runs all four arms on a few short clips with one epoch a stage, in a fresh store
and a fresh MLflow database, and then again with every stage a hit. Beside it each part of a start
by itself (`alone`), one after the other: in a run they overlap.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from frontend import write_clips

from unfused import runtime
from unfused.config import RunOptions
from unfused.events import Stream
from unfused.store import Folder

PROGRAM = [sys.executable, str(harness.ROOT / "pipelines" / "full.py")]
SMALL = (
    "rounds=1",
    "encoder.embedding_dim=64",
    "pretrain.epochs=1",
    "pretrain.batch_size=16",
    "cluster.num_clusters=4",
    "distill.epochs=1",
    "distill.batch_size=16",
    "finetune.labels_per_class=2",
    "finetune.epochs=2",
    "finetune.encoder_epochs=1",
    "selftrain.epochs=1",
)
IMPORTS = ("torch", "ray", "ray.data", "ray.train.torch", "mlflow", "unfused.pipeline")


@dataclass(frozen=True)
class Sizes:
    num_clips: int = 48
    repetitions: int = 1


def write_task(folder: Path, count: int, seconds: float = 1.0) -> Path:
    """A manifest of two classes in three splits."""
    lines = ["path,label,split"]
    for number, path in enumerate(write_clips(folder, count, seconds, 16000)):
        split = ("train", "train", "train", "train", "valid", "test")[number // 2 % 6]
        lines.append(f"{path.name},{'ab'[number % 2]},{split}")
    (folder / "task.csv").write_text("\n".join(lines) + "\n")
    return folder / "task.csv"


def pipeline(folder: Path, *arguments: str) -> tuple[float, dict]:
    """Seconds and summary of a run in `folder`."""
    command = [*PROGRAM, *arguments, "--summary", "summary.json"]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=_alone_here(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, json.loads((folder / "summary.json").read_text())


def _alone_here() -> dict[str, str]:
    """The environment, without what leads to somebody's cluster or server."""
    return {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}


@dataclass(frozen=True)
class Nothing:
    """A job without work."""

    node: str = "nothing"

    def run(self, worker: object) -> dict:
        return {}


def start_seconds() -> dict[str, float]:
    """Seconds of each part of a start, in a process that has imported what it needs."""
    import ray.data
    import ray.train.torch  # noqa: F401 (imported before the clock runs)

    from unfused import tracking, training  # noqa: F401
    from unfused.pipeline import open_backend

    options, found = RunOptions(), {}
    hardware = runtime.probe(options)
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        found[name] = time.perf_counter() - last
        last = time.perf_counter()

    with tempfile.TemporaryDirectory() as place:
        with open_backend(options, hardware, Stream(), Folder.of(place) / "work") as one:
            lap("Ray")
            one.pool.run([Nothing()])
            lap("Ray Train's worker, with its imports")
            one.pool.run([Nothing()])
            lap("the next batch of jobs")
        lap("the end of both")
        database = Path(place) / "mlflow.db"
        tracker = tracking.Tracker(f"sqlite:///{database}", "start", place)
        tracker.describe(timeout=120.0)
        lap("MLflow, with its import and a new database")
        tracker.close()
        if not database.exists():
            raise SystemExit("MLflow did not start.")
    return found


def import_seconds(module: str) -> float:
    """Seconds that a fresh process takes to import a module."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began


def measure(sizes: Sizes) -> harness.Report:
    cold, cached, stages = [], [], {}
    for _ in range(sizes.repetitions):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            task = write_task(folder, sizes.num_clips)
            seconds, summary = pipeline(folder, "--task", str(task), *SMALL)
            cold.append(seconds)
            for name, spent in _by_stage(summary).items():
                stages.setdefault(name, []).append(spent)
            stages.setdefault("outside the stages", []).append(
                seconds - sum(_by_stage(summary).values())
            )
            cached.append(pipeline(folder, "--task", str(task), *SMALL)[0])
    rows = [[f"in {name}", harness.spread(values)] for name, values in stages.items()]
    rows += [
        ["whole run, cold", harness.spread(cold)],
        ["whole run, every stage a hit", harness.spread(cached)],
    ]
    rows += [[f"alone: {name}", harness.spread([spent])] for name, spent in _alone().items()]
    rows += [
        [f"python -c 'import {name}'", harness.spread([import_seconds(name) for _ in range(3)])]
        for name in IMPORTS
    ]
    aims = [
        harness.Aim("cold, s", statistics.median(cold), 25, at_most=True),
        harness.Aim("every stage a hit, s", statistics.median(cached), 3, at_most=True),
    ]
    said = f"all four arms on {sizes.num_clips} clips of 1 s, one epoch each: next to no work"
    return harness.Report("Start-up", ["what", "seconds"], rows, aims, [said])


def _alone() -> dict[str, float]:
    command = [sys.executable, __file__, "--alone"]
    done = subprocess.run(command, env=_alone_here(), check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def _by_stage(summary: dict) -> dict[str, float]:
    """Wall seconds of every stage; nodes of one stage share them out."""
    found: dict[str, float] = {}
    for stage in summary["stages"]:
        name = stage["name"].partition("/")[0]
        found[name] = found.get(name, 0.0) + stage["seconds"]
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["--alone"]:
        print(json.dumps(start_seconds()))
        runtime.leave(0)
    else:
        harness.main("startup", Sizes(), measure)
