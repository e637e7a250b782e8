"""What a search costs beside separate runs of its trials: shared stages are paid for once.

A search in a fresh store, then some of its trials again as separate runs in fresh stores, with the
same settings and the same single arm. Seconds of stages are those that the stages' manifests tell.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import harness

SHARED = ("ingest", "pretrain", "embed", "cluster")


@dataclass(frozen=True)
class Sizes:
    task: str = "../shared/data/fsdd/digits.csv"
    space: str = "search_spaces/distillation.py"
    num_trials: int = 12
    separate: int = 2
    """Trials that are run again on their own."""
    settings: str = (
        "encoder.embedding_dim=256 rounds=1 finetune.mode=linear finetune.labels_per_class=5"
        " finetune.num_repeats=5"
    )
    folder: str = ""
    """Where the search is kept; a temporary folder if empty."""


@contextmanager
def working_folder(path: str) -> Iterator[Path]:
    """The folder of a size that is empty by default."""
    with ExitStack() as stack:
        place = Path(path or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        place.mkdir(parents=True, exist_ok=True)
        yield place


def run(script: str, folder: Path, *arguments: str) -> tuple[float, dict]:
    """Seconds and summary of a command in `folder`."""
    program = [sys.executable, str(harness.ROOT / "pipelines" / f"{script}.py")]
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    began = time.perf_counter()
    with open(folder / "log.txt", "w") as log:
        command = [*program, *arguments, "--summary", "summary.json"]
        subprocess.run(command, cwd=folder, env=kept, check=True, stdout=log)
    return time.perf_counter() - began, json.loads((folder / "summary.json").read_text())


def built_seconds(store: Path) -> dict[str, float]:
    """Seconds of every artifact in a store, summed by stage; earlier rounds count as shared."""
    found: dict[str, float] = {}
    for file in store.glob("*/*/manifest.json"):
        manifest = json.loads(file.read_text())
        stage = manifest["stage"]
        if "round" in manifest["node"]:
            stage = "earlier rounds"
        found[stage] = found.get(stage, 0.0) + manifest["seconds"]
    return found


def measure(sizes: Sizes) -> harness.Report:
    task, space = (str((harness.ROOT / path).resolve()) for path in (sizes.task, sizes.space))
    settings = shlex.split(sizes.settings)
    common = ["--task", task, *settings]
    with working_folder(sizes.folder) as place:
        if (place / "store").exists():
            sys.exit(f"{place} has a store, so its search would cost nothing; give a new folder.")
        searched = ("--space", space, "--num-trials", str(sizes.num_trials), "--pruner", "none")
        whole, summary = run("search", place, *common, *searched)
        seconds = built_seconds(place / "store")
    trials = [trial for trial in summary["trials"] if trial["state"] == "COMPLETE"]
    alone = []
    for trial in trials[: sizes.separate]:
        changes = [f"{key}={value}" for key, value in trial["changes"].items()]
        with tempfile.TemporaryDirectory() as place:
            fixed = ("arms=[unfused]", "evaluate.split=valid")
            alone.append(run("full", Path(place), *common, *changes, *fixed)[0])
    separate = statistics.fmean(alone) * sizes.num_trials
    once = sum(seconds.get(stage, 0.0) for stage in (*SHARED, "earlier rounds"))
    students = seconds["distill"] + seconds["finetune"]
    rows = [
        [f"search of {sizes.num_trials} trials, s", f"{whole:.0f}"],
        ["shared stages, once, s", f"{once:.0f}"],
        ["distill + finetune of all trials, s", f"{students:.0f}"],
        [
            "scoring on validation clips, and the best trial on test clips, s",
            f"{seconds['evaluate']:.0f}",
        ],
        [f"separate run, mean of {len(alone)}, s", f"{statistics.fmean(alone):.0f}"],
        [f"{sizes.num_trials} separate runs, s (multiplied)", f"{separate:.0f}"],
        ["search / separate runs", f"{whole / separate:.2f}"],
    ]
    aims = [
        harness.Aim(
            "search / (shared stages once + distill + finetune of all trials)",
            whole / (once + students),
            1.10,
            at_most=True,
        )
    ]
    said = f"`{sizes.settings}` on {sizes.task}, space {sizes.space}, one trial at a time"
    return harness.Report("Search", ["what", "figure"], rows, aims, [said])


if __name__ == "__main__":
    harness.main("search", Sizes(), measure)
