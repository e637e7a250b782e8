"""How well scores that need no label rank a search's trials: searches on several tasks and spaces.

Each is a search by validation accuracy (one that is in the folder goes on); the table has the rank
correlation of every other score with it over the trials. A score that is better when it is smaller
(`held_out_loss`) counts with its sign turned.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import harness
from search import Sizes as Search
from search import run, working_folder

from unfused.tuning.metrics import PROXIES

SEARCH = Search()


@dataclass(frozen=True)
class Sizes:
    searches: tuple[str, ...] = (
        "fsdd/digits.csv:distillation",
        "arabic_commands/commands.csv:clustering",
        "esc10/sounds.csv:distillation",
        "esc10/sounds.csv:clustering",
    )
    """Task and space of each."""
    data: str = "../shared/data"
    num_trials: int = SEARCH.num_trials
    settings: str = SEARCH.settings
    folder: str = ""
    """Where the store is kept; a temporary folder if empty."""


def measure(sizes: Sizes) -> harness.Report:
    rows = []
    with working_folder(sizes.folder) as place:
        for search in sizes.searches:
            task, _, space = search.partition(":")
            _, summary = run(
                "search", place,
                "--task", str((harness.ROOT / sizes.data / task).resolve()),
                "--space", str(harness.ROOT / "search_spaces" / f"{space}.py"),
                "--num-trials", str(sizes.num_trials), "--pruner", "none",
                *shlex.split(sizes.settings),
            )  # fmt: skip
            rows.append([task, space, *_scores(summary)])
    header = ["task", "space", "trials", "validation accuracy", *PROXIES]
    notes = [
        "Spearman correlation with validation accuracy over the trials; 1 ranks as labels do",
        f"`{sizes.settings}`",
    ]
    return harness.Report("Scores without labels", header, rows, [], notes)


def _scores(summary: dict) -> list[str]:
    accuracies = [
        trial["scores"]["valid_accuracy"]
        for trial in summary["trials"]
        if trial["state"] == "COMPLETE"
    ]
    found = summary["proxies"]
    spread = f"{min(accuracies):.3f} to {max(accuracies):.3f}"
    return [
        str(len(accuracies)),
        spread,
        *(f"{found[name]:+.2f}" if name in found else "-" for name in PROXIES),
    ]


if __name__ == "__main__":
    harness.main("proxies", Sizes(), measure)
