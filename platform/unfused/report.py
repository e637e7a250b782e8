"""Tables and numbers of a finished run, read back from the store.

The rule of this room: every number comes from an artifact's manifest; nothing is computed twice.
"""

from __future__ import annotations

import statistics
from itertools import chain
from typing import Any

import numpy as np

from unfused.arms import ARMS, chosen
from unfused.config import flatten
from unfused.pipeline import Plan, Ref, Step
from unfused.store import read_npy

INGESTED = ("corpus", "task")


def summarize(plan: Plan) -> dict[str, Any]:
    """The summary of a finished plan: arms, pseudo-labels, stages and clips."""
    return {
        "config": {k: _plain(v) for k, v in flatten(plan.request.config).items()},
        "scored_on": plan.request.config.evaluate.split,
        "num_scored": _num_scored(plan),
        "num_classes": len(_classifiers(plan)[0].classes),
        "labels_per_draw": _labels_per_draw(plan),
        "chance": 1 / len(_classifiers(plan)[0].classes),
        "arms": {arm: _arm(plan, arm) for arm in plan.request.config.arms},
        "chosen": _chosen(plan),
        "trust": _trust(plan),
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
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
    }
    estimates = [facts.cross_validated for facts in _facts(plan, ARMS[arm].classifier)]
    return {
        **scores,
        "cross_validated": None if None in estimates else _spread([*chain(*estimates)]),
        "classes": runs[0].classes,
        "confusion": _total(runs),
    }


def _num_scored(plan: Plan) -> int:
    """Clips that are scored, of all folds together."""
    request = plan.request
    arm = ARMS[request.config.arms[0]]
    runs = _facts(plan, arm.scores(request.config.evaluate.split))
    return sum(facts.num_clips for facts in runs) // request.seeds


def chosen_by_draw(plan: Plan) -> list[str]:
    """The arm that cross-validation over the labelled clips chooses, for every draw of every
    repetition; no other label has a say in it."""
    found: list[str] = []
    for prefix in plan.repetitions:
        facts = {
            arm: plan.steps[f"{prefix}{ARMS[arm].classifier}"].facts
            for arm in plan.request.config.arms
        }
        estimates = {arm: one.cross_validated for arm, one in facts.items()}
        one = next(iter(facts.values()))
        found += chosen(estimates, one.num_repeats, one.num_labels)
    return found


def _chosen(plan: Plan) -> dict[str, Any]:
    """What the chosen arms score, and by how much more than each arm on the same draws."""
    by_draw, split = chosen_by_draw(plan), plan.request.config.evaluate.split
    facts = {arm: _facts(plan, ARMS[arm].scores(split)) for arm in plan.request.config.arms}

    def scores(name: str) -> dict[str, list[float]]:
        return {arm: [v for one in runs for v in getattr(one, name)] for arm, runs in facts.items()}

    right, balanced = scores("accuracy"), scores("balanced_accuracy")
    accuracy = [right[arm][draw] for draw, arm in enumerate(by_draw)]
    return {
        "by_draw": by_draw,
        "accuracy": _spread(accuracy),
        "balanced_accuracy": _spread([balanced[arm][n] for n, arm in enumerate(by_draw)]),
        "ahead_of": {arm: paired(accuracy, values) for arm, values in right.items()},
    }


def paired(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """The mean difference of values that belong together in pairs, and its 95 % interval (Student's
    t); none of a single pair."""
    differences = np.subtract(ours, theirs)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"mean": mean, "interval": None}
    from scipy.special import stdtrit

    half = float(stdtrit(count - 1, 0.975) * differences.std(ddof=1)) / count**0.5
    return {"mean": mean, "interval": [mean - half, mean + half]}


def _trust(plan: Plan) -> dict[str, Any]:
    """By teacher: cross-validated accuracy and weight of its probe, mean over draws."""
    draws = [draw for facts in _facts(plan, "trust") for draw in facts.draws]
    if not draws:
        return {}
    names = draws[0].weights
    return {
        name: {
            "accuracy": _mean([draw.accuracy[name] for draw in draws]),
            "weight": _mean([draw.weights[name] for draw in draws]),
        }
        for name in names
    }


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else statistics.fmean(values)


def _spread(values: list[float]) -> dict[str, Any]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": sd, "values": values}


def _total(runs: list[Any]) -> list[list[int]]:
    """The confusion matrix summed over draws and repetitions (rows are true classes)."""
    matrices = [matrix for facts in runs for matrix in facts.confusion]
    return sum(np.array(matrix) for matrix in matrices).tolist()


def _classifiers(plan: Plan) -> list[Any]:
    """The facts of every arm's classifiers in the first repetition."""
    return [_facts(plan, ARMS[arm].classifier)[0] for arm in plan.request.config.arms]


def _labels_per_draw(plan: Plan) -> dict[str, int]:
    """How many labels a draw looks at, those of validation clips counted."""
    found = _classifiers(plan)
    valid = max(facts.num_validation_labels for facts in found)
    return {"train": found[0].num_labels, "valid": valid}


def _pseudo_labels(plan: Plan) -> dict[str, Any]:
    """What the clusters are, and their mutual information with the labels they never saw."""
    found = []
    for prefix in plan.repetitions:
        step = plan.pseudo_labels(prefix)
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
