"""What of a run and its artifacts is a metric, and what a tag.

The rule of this file: a metric is what a person compares runs by; counts that all runs of a task
share are tags, for a page of charts begins with whatever is a metric.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import Any

NO_METRICS = ("config", "arms", "chosen", "chance", "clips", "labels_per_draw", "scores", "stages")
"""Parts of a summary that are told otherwise, or are no numbers to compare by."""
COUNTED = ("chance", "clips", "labels_per_draw")


def headline(summary: Mapping[str, Any]) -> dict[str, float]:
    """How often the chosen arm is right, with the deviation; {} where nothing was chosen.

    It is `test_accuracy`, or `valid_accuracy` where validation clips were scored; beside it stands
    `test_balanced_accuracy`, the mean recall of the classes.
    """
    chosen = summary.get("chosen", {})
    accuracy, balanced = chosen.get("accuracy"), chosen.get("balanced_accuracy")
    if not accuracy:
        return {}
    split = summary.get("scored_on", "test")
    found = {f"{split}_accuracy": accuracy["mean"], f"{split}_accuracy_sd": accuracy.get("sd", 0.0)}
    return found | ({f"{split}_balanced_accuracy": balanced["mean"]} if balanced else {})


def of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that stand behind the headline: every arm's, and what is left of a summary.

    On test clips an arm's are `<arm>.accuracy`, `<arm>.accuracy_sd` and their like; on validation
    clips `<arm>.valid_accuracy`, so that the two are never one column.
    """
    found: dict[str, float] = {}
    of = "valid_" if summary.get("scored_on") == "valid" else ""
    for arm, scores in summary.get("arms", {}).items():
        for name, score in scores.items():
            if isinstance(score, Mapping) and "mean" in score:
                key = f"{arm}.{name if name == 'cross_validated' else of + name}"
                found |= {key: score["mean"], f"{key}_sd": score.get("sd", 0.0)}
    rest = {k: v for k, v in summary.items() if k not in NO_METRICS}
    return {**of_tree(summary.get("scores", {})), **found, **of_tree(rest)}


def counts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Chance, the label budget, and the clips that were read and quarantined, as tags."""
    found = of_tree({name: summary[name] for name in COUNTED if name in summary})
    return {name: f"{value:.10g}" for name, value in found.items()}


def of_tree(tree: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a tree under dotted names; a list of floats (scores of draws) is its mean."""
    found: dict[str, float] = {}
    for name, value in dotted(tree).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
        elif isinstance(value, list) and value and all(isinstance(v, float) for v in value):
            found[name] = statistics.fmean(value)
    return found


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        branch = isinstance(value, Mapping)
        flat |= dotted(value, f"{prefix}{name}.") if branch else {f"{prefix}{name}": value}
    return flat


def legal(key: str) -> str:
    """MLflow refuses a whole batch for one character, and a fact's name may hold a class's name."""
    return re.sub(r"[^\w\-./ ]", "_", key)
