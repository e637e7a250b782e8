"""What a search came to: a table of its trials, what mattered, and pictures.

The rule of this room: everything is read from the study, so that a search that went on after a
restart is reported whole.
"""

from __future__ import annotations

import csv
import io
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from unfused.config import shown
from unfused.secrets import hidden_in
from unfused.store import Folder
from unfused.tuning.metrics import METRICS, PROXIES
from unfused.tuning.space import Space
from unfused.tuning.study import completed, ended

BEST = 5
MIN_TRIALS = 4
"""Fewer say nothing of what mattered."""
SHARED_SECONDS = "shared_seconds"
"""What a study notes of the stages that its searches built for all trials."""
NUMBERS = ("hits", "built", "seconds", "saved_seconds")


def report(study: optuna.Study, space: Space, best: FrozenTrial) -> dict[str, Any]:
    """The study as plain data; its summary is written beside the pictures."""
    trials = [_row(trial) for trial in ended(study)]
    saved = sum(row.get("saved_seconds", 0.0) for row in trials)
    return {
        "study": study.study_name,
        "objectives": dict(space.objectives),
        "trials": trials,
        "best": {**_row(best), "line": line(best.params)},
        "front": [trial.number for trial in study.best_trials],
        "leaders": [trial.number for trial in leaders(study)],
        "importances": importances(study, space),
        "proxies": proxies(study),
        # Somebody has paid once for what all trials found.
        "saved_seconds": round(max(0.0, saved - study.user_attrs.get(SHARED_SECONDS, 0.0)), 1),
    }


def line(changes: Mapping[str, Any]) -> str:
    """A trial's changes as the command line takes them."""
    return shlex.join(f"{key}={shown(value)}" for key, value in changes.items())


def _row(trial: FrozenTrial) -> dict[str, Any]:
    said = trial.user_attrs
    row = {"number": trial.number, "state": trial.state.name, "changes": dict(trial.params)}
    if trial.state == TrialState.COMPLETE:
        row["values"] = list(trial.values)
    kept = ("scores", *NUMBERS, "failed")
    return row | {name: said[name] for name in kept if name in said}


def leaders(study: optuna.Study) -> list[FrozenTrial]:
    """The best trials by the first objective, the best first."""
    return sorted(completed(study), key=_cost(study))[:BEST]


def importances(study: optuna.Study, space: Space) -> dict[str, float]:
    """Share of each setting in what the first objective depends on; {} for too few trials."""
    done = completed(study)
    if len(done) < MIN_TRIALS or len({trial.values[0] for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, target=_cost(study))
    return {name: float(value) for name, value in found.items()}


def _cost(study: optuna.Study) -> Callable[[FrozenTrial], float]:
    """The first objective, lower is better: what Optuna's importances take any target for."""
    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    return lambda trial: sign * trial.values[0]


def _target(which: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[which]


def proxies(study: optuna.Study) -> dict[str, float]:
    """Spearman correlation of every proxy with validation accuracy over the trials.

    Signed so that 1 ranks trials as the labels do.
    """
    from scipy.stats import spearmanr

    found = {}
    for name in PROXIES:
        scored = [trial.user_attrs["scores"] for trial in completed(study)]
        pairs = [(s[name], s["valid_accuracy"]) for s in scored if {name, "valid_accuracy"} <= {*s}]
        columns = list(zip(*pairs, strict=True))
        if len(pairs) < MIN_TRIALS or any(len(set(column)) < 2 for column in columns):
            continue
        sign = 1 if METRICS[name].better == "maximize" else -1
        found[name] = round(sign * float(spearmanr(*columns).statistic), 3)
    return found


def save(folder: Folder, study: optuna.Study, space: Space, result: Mapping[str, Any]) -> list[str]:
    """Write search.json, trials.csv and the pictures; returns the names of the files."""
    files = {"trials.csv": _csv(result["trials"]), **dict(_pictures(study, space))}
    for name, data in files.items():
        folder.write(name, data)
    folder.write_json("search.json", hidden_in(result))
    return ["search.json", *files]


def _csv(trials: list[dict[str, Any]]) -> bytes:
    keys = list(dict.fromkeys(key for row in trials for key in row["changes"]))
    scores = list(dict.fromkeys(name for row in trials for name in row.get("scores", {})))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["number", "state", *keys, *scores, *NUMBERS, "failed"])
    for row in trials:
        table.writerow(
            [row["number"], row["state"]]
            + [row["changes"].get(key, "") for key in keys]
            + [row.get("scores", {}).get(name, "") for name in scores]
            + [row.get(name, "") for name in (*NUMBERS, "failed")]
        )
    return text.getvalue().encode()


def _pictures(study: optuna.Study, space: Space) -> Iterator[tuple[str, bytes]]:
    """History, importances and slices of every objective, and the front of two."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as plots

    if len(completed(study)) < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for which, name in enumerate(space.objectives):
            about = {"target": _target(which), "target_name": name}
            ending = f"-{name}" if which else ""
            yield f"history{ending}.png", _png(plots.plot_optimization_history(study, **about))
            yield f"slice{ending}.png", _png(plots.plot_slice(study, **about))
        if importances(study, space):
            about = {"target": _cost(study), "target_name": next(iter(space.objectives))}
            yield "importance.png", _png(plots.plot_param_importances(study, **about))
        if len(space.objectives) > 1:
            names = list(space.objectives)
            yield "front.png", _png(plots.plot_pareto_front(study, target_names=names))


def _png(axes: Any) -> bytes:
    """The figure that some axes are in, as a file; slices come as several axes."""
    import matplotlib.pyplot as plt

    first = axes.flat[0] if hasattr(axes, "flat") else axes
    figure = first.figure
    if hasattr(axes, "flat"):
        figure.set_size_inches(4.0 * axes.size, 4.0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
