"""The fixed input and the runs whose numbers are held, as a user starts them.

The rule of this file: nothing here depends on the machine. Clips come from a seed, the program has
one core, since sums depend on the number of threads, and its libraries use what every x86-64
processor has.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000
CLASSES = {"low": 300, "mid": 600, "high": 1200}
"""Hertz of the middle of a class; neighbours overlap, so that no arm is right everywhere."""
SPLITS = {"train": 12, "valid": 3, "test": 6}
"""Clips of a class."""
PLAIN_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
"""Has torch, oneDNN, MKL, NumPy and OpenBLAS compute the same way on every x86-64 processor."""

SMALL = (
    *(f"{name}.precision=float32" for name in ("pretrain", "embed", "finetune")),
    *(f"{name}.precision=float32" for name in ("bootstrap", "distill", "selftrain")),
    "cluster.backend=torch",
    "cluster.num_components=8",
    "encoder.embedding_dim=32",
    "pretrain.batch_size=12",
    "pretrain.projector_hidden=64",
    "pretrain.projector_dim=32",
    "distill.batch_size=12",
    "selftrain.batch_size=12",
    "selftrain.epochs=2",
    "selftrain.augment.filter_db=0",
    "teachers.judging=[]",
    "finetune.labels_per_class=3",
    "finetune.num_repeats=2",
)
RUNS = {
    "recommended": (
        "rounds=2",
        "clusterings=2",
        "pretrain.epochs=6",
        "cluster.num_clusters=6",
        "bootstrap.epochs=4",
        "bootstrap.batch_size=12",
        "distill.epochs=4",
        "finetune.epochs=20",
        "finetune.encoder_epochs=3",
    ),
    "faithful": (
        "--preset",
        "faithful",
        "pretrain.epochs=4",
        "pretrain.num_prototypes=8",
        "pretrain.augment.mixup_bank=16",
        "distill.epochs=4",
        "finetune.epochs=10",
        "arms=[unfused]",
    ),
    "barlow_twins": (
        "pretrain.objective=barlow_twins",
        "pretrain.epochs=3",
        "finetune.mode=full",
        "finetune.encoder_epochs=3",
        "arms=[teacher]",
    ),
}
"""What is added to `SMALL`: every stage, objective and mode of fine-tuning is in one of them."""


def write_task(folder: Path) -> Path:
    """Write the clips and their manifest, which it returns."""
    rng = np.random.default_rng(16)
    rows = []
    for label, hertz in CLASSES.items():
        for split, count in SPLITS.items():
            for number in range(count):
                name = f"{split}-{label}-{number}.wav"
                soundfile.write(folder / name, _clip(rng, hertz), RATE, subtype="PCM_16")
                rows.append((name, label, split))
    with open(folder / "task.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "task.csv"


def _clip(rng: np.random.Generator, hertz: float) -> np.ndarray:
    """A tone with an overtone and noise, of .5 to 1.4 seconds: float64 (S,)."""
    seconds, pitch = rng.uniform(0.5, 1.4), hertz * rng.uniform(0.6, 1.7)
    angle = 2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(angle) + rng.uniform(0, 0.6) * np.sin(2 * angle)
    return rng.uniform(0.1, 0.4) * wave + 0.02 * rng.standard_normal(len(wave))


def run_all(folder: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Run the program once for each of `RUNS`, all on one store, as many at a time as fit.

    Yields:
        The run's name, the store, and the summary.
    """
    task, free = write_task(folder), Queue[int]()
    cores = sorted(os.sched_getaffinity(0))
    for core in cores:
        free.put(core)

    def run(name: str) -> dict[str, Any]:
        summary, core = folder / f"{name}.json", free.get()
        asked = ("--task", str(task), *SMALL, *RUNS[name], "--summary", str(summary))
        try:
            _run(folder, core, *asked)
        finally:
            free.put(core)
        return json.loads(summary.read_text())

    with ThreadPoolExecutor(len(cores)) as pool:
        for name, summary in zip(RUNS, pool.map(run, RUNS), strict=True):
            yield name, folder / "store", summary


def _run(folder: Path, core: int, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / "full.py"), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def environment() -> dict[str, str]:
    """Of the program: what a person has set for Ray, the store or the clever parts is left out."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "UNFUSED_"))}
    kept.pop("PYTHONPATH", None)
    return kept | {"MLFLOW_TRACKING_URI": ""} | PLAIN_PROCESSOR
