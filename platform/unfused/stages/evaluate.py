"""Evaluate: score every arm's classifiers on the held-out clips, once.

The rule of this file: it is the only stage with an edge to the test clips.

Axes: N clips, R repeated draws of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from unfused import data
from unfused.data import truth_in
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Facts, Folder, write_table

if TYPE_CHECKING:
    from unfused.jobs.evaluate import Predictions

PREDICTIONS_FILE = "predictions.parquet"
"""Index, digest and class of every clip; by draw the predicted class and its probability."""


class EvaluateFacts(Facts):
    """The scores of one arm."""

    accuracy: list[float]
    """Of every draw."""
    balanced_accuracy: list[float]
    """Mean recall of the classes that have clips in the split, likewise."""
    macro_f1: list[float]
    confusion: list[list[list[int]]]
    """Of every draw; rows are true classes."""
    classes: list[str]
    num_clips: int
    split: str


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    """Score builds that see the same of the same clips in one pass."""
    from unfused.jobs.evaluate import EvaluateJob

    by_clips: dict[tuple, list[Build]] = {}
    for build in builds:
        same = (build.inputs["clips"].folder.uri, build.inputs["classifier"].facts.cut)
        by_clips.setdefault(same, []).append(build)
    jobs = [
        EvaluateJob(
            group[0].inputs["clips"],
            {build.node: build.inputs["classifier"] for build in group},
            group[0].config["evaluate"],
        )
        for group in by_clips.values()
    ]
    predicted: dict[str, Predictions] = {}
    for tables in workers.run(jobs):
        predicted |= tables
    return [Built(_report(build, predicted[build.node])) for build in builds]


def _report(build: Build, predicted: Predictions) -> EvaluateFacts:
    """The scores of every draw; the predictions are kept."""
    classes = build.inputs["classifier"].facts.classes
    truth = truth_in(classes, build.inputs["labels"])
    write_predictions(build.out, data.digests(build.inputs["clips"]), truth, predicted)
    return EvaluateFacts(
        **scores(truth, predicted.ids, len(classes)),
        classes=classes,
        num_clips=len(truth),
        split=build.config["evaluate"].split,
    )


def scores(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, list[Any]]:
    """Accuracies, macro-F1 and confusion matrix of every draw.

    Args:
        truth: (N,) classes.
        predicted: (N, R) likewise.
        num_classes: of the label map; balanced accuracy is over those that `truth` has.
    """
    draws = [confusion(truth, draw, num_classes) for draw in predicted.T]
    present = np.unique(truth)
    return {
        "accuracy": [float(table.trace() / table.sum()) for table in draws],
        "balanced_accuracy": [
            float(np.mean((table.diagonal() / table.sum(1).clip(1))[present])) for table in draws
        ],
        "macro_f1": [float(np.mean(f1_by_class(table))) for table in draws],
        "confusion": [table.tolist() for table in draws],
    }


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes): clips of every true class, by the class that they are taken for."""
    pairs = truth.astype(np.int64) * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def f1_by_class(table: np.ndarray) -> np.ndarray:
    """(classes,): the harmonic mean of precision and recall; 0 of a class that nobody names."""
    return 2 * table.diagonal() / (table.sum(0) + table.sum(1)).clip(1)


def write_predictions(
    out: Folder, digests: Sequence[str], truth: np.ndarray, predicted: Predictions
) -> None:
    columns: dict[str, Any] = {"clip": np.arange(len(truth)), "digest": digests, "label": truth}
    for repeat in range(predicted.ids.shape[1]):
        columns[f"draw_{repeat}"] = predicted.ids[:, repeat]
        columns[f"probability_{repeat}"] = predicted.probability[:, repeat]
    write_table(out, PREDICTIONS_FILE, pa.table(columns))


STAGE = Stage(version=6, facts=EvaluateFacts, access=Workers, run=run, together=True)
