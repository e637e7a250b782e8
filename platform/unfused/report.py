"""Tables and numbers of a finished run, read back from the store.

The rule of this room: every number comes from an artifact's manifest; nothing is computed twice.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from unfused.arms import ARMS
from unfused.config import flatten
from unfused.pipeline import Plan, Ref, Step
from unfused.store import read_npy

INGESTED = ("corpus", "task")


def summarize(plan: Plan) -> dict[str, Any]:
    """The summary of a finished plan: arms, pseudo-labels, stages and clips."""
    return {
        "config": {k: _plain(v) for k, v in flatten(plan.request.config).items()},
        "scored_on": plan.request.config.evaluate.split,
        "labels_per_draw": _labels_per_draw(plan),
        "arms": {arm: _arm(plan, arm) for arm in plan.request.config.arms},
        "pseudo_labels": _pseudo_labels(plan),
        "stages": [_stage(step) for step in plan.steps.values()],
        "clips": _clips(plan),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _facts(plan: Plan, name: str) -> list[Any]:
    """The facts of a node in every repetition."""
    steps = [plan.steps.get(f"{prefix}{name}") for prefix in plan.repetitions]
    return [step.facts for step in steps if step and step.manifest]


def _arm(plan: Plan, arm: str) -> dict[str, Any]:
    runs = _facts(plan, ARMS[arm].scores(plan.request.config.evaluate.split))
    scores = {
        name: _spread([value for facts in runs for value in getattr(facts, name)])
        for name in ("accuracy", "macro_f1")
    }
    return {**scores, "classes": runs[0].classes, "confusion": _total(runs)}


def _spread(values: list[float]) -> dict[str, Any]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": sd, "values": values}


def _total(runs: list[Any]) -> list[list[int]]:
    """The confusion matrix summed over draws and repetitions (rows are true classes)."""
    matrices = [matrix for facts in runs for matrix in facts.confusion]
    return sum(np.array(matrix) for matrix in matrices).tolist()


def _labels_per_draw(plan: Plan) -> dict[str, int]:
    """How many labels a draw looks at, those of validation clips counted."""
    found = [_facts(plan, ARMS[arm].classifier)[0] for arm in plan.request.config.arms]
    valid = max(facts.num_validation_labels for facts in found)
    return {"train": found[0].num_labels, "valid": valid}


def _pseudo_labels(plan: Plan) -> dict[str, Any]:
    """What the clusters are, and their mutual information with the labels they never saw."""
    found = []
    for prefix in plan.repetitions:
        step = plan.steps.get(f"{prefix}cluster")
        if step is None:
            return {}
        facts = step.facts
        clusters = read_npy(plan.folder(step), "labels.npy")
        truth = plan.artifact(_train_labels(plan, prefix))
        nmi = mutual_information(read_npy(truth.folder, "labels.npy"), clusters)
        found.append((facts.num_clusters, facts.num_nonempty, nmi))
    return {
        "num_clusters": found[0][0],
        "num_nonempty": found[0][1],
        "nmi": statistics.fmean(nmi for _, _, nmi in found),
    }


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised mutual information of two labellings, as scikit-learn's (whose import takes longer
    than a whole report).

    Args:
        one, other: (N,) integers.

    Returns:
        In [0, 1]: mutual information in the mean of both entropies; 1 where both are one class.
    """
    _, rows = np.unique(one, return_inverse=True)
    _, columns = np.unique(other, return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1 / len(rows))
    both, first, second = (_entropy(p) for p in (joint, joint.sum(1), joint.sum(0)))
    return float((first + second - both) / ((first + second) / 2)) if first + second else 1.0


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _train_labels(plan: Plan, prefix: str) -> Ref:
    arm = ARMS[plan.request.config.arms[0]]
    return plan.steps[f"{prefix}{arm.classifier}"].node.inputs["labels"]


def _stage(step: Step) -> dict[str, Any]:
    return {
        "name": step.node.name,
        "key": step.key,
        "status": step.status,
        "seconds": round(step.seconds, 2),
        "resumed_from_epoch": step.resumed_from_epoch,
    }


def _clips(plan: Plan) -> dict[str, Any]:
    """Clips read and quarantined; without a corpus of its own the task's train clips are it."""
    counts = {}
    for step in plan.steps.values():
        if step.node.stage == "ingest" and step.manifest:
            counts.setdefault(step.node.name.rpartition("/")[2], step.facts.clips.model_dump())
    none = {"read": 0, "quarantined": 0}
    return {name: counts.get(name, none) for name in INGESTED}
