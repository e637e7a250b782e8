"""What the chosen classifier says of the clips that it was scored on, as tables and a picture.

The rule of this file: all of it is of one classifier, the one that is registered, and of clips that
it is scored on once.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from unfused.arms import ARMS
from unfused.pipeline import Plan, Step
from unfused.stages.evaluate import PREDICTIONS_FILE
from unfused.stages.ingest import CLIPS_FILE

MOST_CLIPS = 10_000
"""That MLflow's page of a table is given; the store has all."""
NAMED_CLASSES = 40
"""More are not legible on a picture."""


@dataclass(frozen=True)
class Said:
    """What a classifier says of N clips of C classes."""

    arm: str
    split: str
    classes: list[str]
    truth: np.ndarray
    """(N,) indices of classes."""
    predicted: np.ndarray
    """(N,) likewise."""
    probability: np.ndarray
    """(N,) of what is predicted."""
    paths: list[str]
    """N, of the clips' files."""

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) clips; rows are true classes."""
        matrix = np.zeros((len(self.classes),) * 2, int)
        np.add.at(matrix, (self.truth, self.predicted), 1)
        return matrix

    def per_class(self) -> dict[str, list[Any]]:
        """Precision, recall, F1 and support of every class; 0 where none is divided by none."""
        matrix = self.confusion
        right, said, true = np.diag(matrix), matrix.sum(0), matrix.sum(1)
        scores = {
            "precision": right / np.maximum(said, 1),
            "recall": right / np.maximum(true, 1),
            "f1": 2 * right / np.maximum(said + true, 1),
        }
        rounded = {name: np.round(values, 4).tolist() for name, values in scores.items()}
        return {"class": self.classes, **rounded, "support": true.tolist()}

    def predictions(self) -> dict[str, list[Any]]:
        """Every clip with its label, what is predicted and how sure that is."""
        names, most = np.array(self.classes, object), MOST_CLIPS
        return {
            "path": self.paths[:most],
            "label": names[self.truth[:most]].tolist(),
            "predicted": names[self.predicted[:most]].tolist(),
            "probability": np.round(self.probability[:most], 4).tolist(),
            "right": (self.truth == self.predicted)[:most].tolist(),
        }

    def as_json(self) -> dict[str, Any]:
        """All that is shown of it, as plain data."""
        arrays = {"truth": self.truth.tolist(), "predicted": self.predicted.tolist()}
        first = {"probability": self.probability[:MOST_CLIPS].tolist()}
        first["paths"] = self.paths[:MOST_CLIPS]
        return {"arm": self.arm, "split": self.split, "classes": self.classes, **arrays, **first}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Said:
        """What `as_json` wrote."""
        arrays = {"truth": int, "predicted": int, "probability": float}
        return cls(**{**found, **{k: np.asarray(found[k], of) for k, of in arrays.items()}})

    def picture(self) -> bytes:
        """The confusion matrix as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        matrix, count = self.confusion, len(self.classes)
        side = float(np.clip(0.4 * count + 2, 4, 12))
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), "Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="true", title=f"{self.arm}, {self.split} clips")
        if count <= NAMED_CLASSES:
            axes.set_xticks(range(count), self.classes, rotation=90)
            axes.set_yticks(range(count), self.classes)
            for row, column in np.argwhere(matrix):
                dark = matrix[row, column] > matrix[row].sum() / 2
                color = "white" if dark else "black"
                number = f"{matrix[row, column]}"
                axes.text(column, row, number, ha="center", va="center", color=color)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()


def said(plan: Plan, arm: str) -> Said:
    """What an arm's first classifier says, in every fold, of the first seed.

    Args:
        plan: finished.
        arm: one of its arms.
    """
    split = plan.request.config.evaluate.split
    prefixes = plan.repetitions[:: plan.request.seeds]
    steps = [plan.steps[f"{prefix}{ARMS[arm].scores(split)}"] for prefix in prefixes]
    tables = [_read(plan, step, PREDICTIONS_FILE) for step in steps]
    classes = list(steps[0].facts.classes)
    columns = {
        name: np.concatenate([table[name].to_numpy() for table in tables])
        for name in ("label", "draw_0", "probability_0")
    }
    paths = [path for step in steps for path in _paths(plan, step, split)]
    return Said(arm, split, classes, *columns.values(), paths)


def _paths(plan: Plan, scored: Step, split: str) -> list[str]:
    """Of the clips that a node scores, in their order."""
    ingest = plan.steps[scored.node.inputs["clips"].node]
    table = _read(plan, ingest, CLIPS_FILE, filters=[("split", "=", split)])
    return table.sort_by("clip")["path"].to_pylist()


def _read(plan: Plan, step: Step, name: str, **only: Any) -> Any:
    folder = plan.folder(step)
    return pq.read_table(f"{folder.path}/{name}", filesystem=folder.filesystem, **only)
