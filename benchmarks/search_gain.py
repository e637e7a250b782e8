"""What a search gains: its best trial and the defaults on new seeds.

A search (one of the same folder goes on), then its best trial and the defaults on three new seeds
each: on the validation clips, which chose, and once on the test clips.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import harness
from search import Sizes as Search
from search import run, working_folder

from unfused.config import Config
from unfused.pipeline.request import SEEDED

SEARCH = Search()
FIRST_NEW_SEED = 100


@dataclass(frozen=True)
class Sizes:
    task: str = SEARCH.task
    space: str = SEARCH.space
    num_trials: int = SEARCH.num_trials
    settings: str = SEARCH.settings
    seeds: int = 3
    folder: str = ""
    """Where the store is kept; a temporary folder if empty."""


def measure(sizes: Sizes) -> harness.Report:
    with working_folder(sizes.folder) as place:
        return _measured(sizes, place)


def _measured(sizes: Sizes, place: Path) -> harness.Report:
    task, space = (str((harness.ROOT / path).resolve()) for path in (sizes.task, sizes.space))
    common = ["--task", task, *shlex.split(sizes.settings)]
    searched = ("--space", space, "--num-trials", str(sizes.num_trials), "--pruner", "none")
    _, summary = run("search", place, *common, *searched)
    best = summary["best"]
    seeds = [f"{name}.seed={FIRST_NEW_SEED}" for name in SEEDED]
    new = [*seeds, "--seeds", str(sizes.seeds), "arms=[unfused]"]
    rows = []
    for name, changes in ("defaults", []), (f"trial {best['number']}", shlex.split(best["line"])):
        scores = []
        for split in ("valid", "test"):
            arguments = (*common, *changes, *new, f"evaluate.split={split}")
            accuracy = run("full", place, *arguments)[1]["arms"]["unfused"]["accuracy"]
            scores.append(f"{accuracy['mean']:.3f} ± {accuracy['sd']:.3f}")
        rows.append([name, *scores, " ".join(changes)])
    first = next(t for t in summary["trials"] if t["number"] == 0)
    notes = [
        f"in the search, seed {Config().pretrain.seed}: defaults {_valid(first)},"
        f" trial {best['number']} {_valid(best)} on validation clips",
        f"`{sizes.settings}` on {sizes.task}, space {sizes.space}; mean and deviation over"
        f" {sizes.seeds} seeds x draws of the labels",
    ]
    header = ["settings", "validation", "test", "changes"]
    return harness.Report("Best trial against the defaults", header, rows, [], notes)


def _valid(trial: dict) -> str:
    return f"{trial['scores']['valid_accuracy']:.3f}"


if __name__ == "__main__":
    harness.main("search_gain", Sizes(), measure)
