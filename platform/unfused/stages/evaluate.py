"""Evaluate: score every arm's classifiers on the held-out clips, once.

The rule of this room: it is the only stage with an edge to the test clips.

Axes: B clips, C windows of a clip, S samples, R repeated draws of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from unfused import runtime, shards, training
from unfused.config import EvaluateConfig
from unfused.models.classifier import ClipClassifier
from unfused.objectives.gather import sum_over_ranks
from unfused.stages import Build, Facts, training_needs
from unfused.stages.ingest import truth_in
from unfused.store import Artifact, Folder

needs = training_needs


def run(builds: Sequence[Build], cluster: runtime.Cluster) -> list[Facts]:
    """Score builds that share their clips in one pass."""
    by_clips: dict[tuple, list[Build]] = {}
    for build in builds:
        settings = build.inputs["classifier"].facts
        same = (build.inputs["clips"].folder.uri, settings["num_crops"], settings["crop_samples"])
        by_clips.setdefault(same, []).append(build)
    jobs = [
        EvaluateJob(
            group[0].inputs["clips"],
            {build.node: build.inputs["classifier"] for build in group},
            group[0].config["evaluate"],
        )
        for group in by_clips.values()
    ]
    predicted: dict[str, np.ndarray] = {}
    for tables in cluster.session.run(jobs):
        predicted |= tables
    return [_report(build, predicted[build.node]) for build in builds]


@dataclass(frozen=True)
class EvaluateJob:
    """Classifiers of every arm that see the same windows of the same clips, read once for all.

    Draws that share an encoder (linear fine-tuning) share its embeddings.
    """

    clips: Artifact
    classifiers: Mapping[str, Artifact]
    config: EvaluateConfig

    def run(self, worker: training.Worker) -> dict[str, np.ndarray]:
        """Predicted ids (N, R) by node; every worker predicts its share of the clips."""
        total = shards.num_clips(self.clips)
        facts = next(iter(self.classifiers.values())).facts
        groups = {
            node: [
                [one.to(worker.device).eval() for one in group]
                for group in ClipClassifier.load_all(found.folder, found.facts["num_repeats"])
            ]
            for node, found in self.classifiers.items()
        }
        predicted = {
            node: torch.zeros(total, found.facts["num_repeats"], dtype=torch.int32)
            for node, found in self.classifiers.items()
        }
        for clip, windows in worker.even_windows(
            self.clips,
            self.classifiers,
            num_samples=facts["crop_samples"],
            num_crops=facts["num_crops"],
            clips_per_block=self.config.batch_size,
        ):
            for node, table in predicted.items():
                with worker.turns:
                    table[torch.from_numpy(clip.copy())] = predict(groups[node], windows).cpu()
        return {
            node: sum_over_ranks(table.to(worker.device)).cpu().numpy()
            for node, table in predicted.items()
        }


@torch.inference_mode()
def predict(groups: Sequence[Sequence[ClipClassifier]], windows: Tensor) -> Tensor:
    """Ids (B, R) of windows (B, C, S) by the classifiers of every draw, in order.

    Args:
        groups: as `ClipClassifier.load_all` has them, in evaluation mode.
        windows: int16, on their device.
    """
    columns = []
    for group in groups:
        embedding = group[0].encoder.embed(windows)
        columns += [one.head(embedding).argmax(1) for one in group]
    return torch.stack(columns, 1).int()


def _report(build: Build, predicted: np.ndarray) -> Facts:
    """Accuracy, macro-F1 and confusion matrix of every draw; predictions (N, R) are kept."""
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    classes = build.inputs["classifier"].facts["classes"]
    truth = truth_in(classes, build.inputs["labels"])
    columns = list(predicted.T)
    every = np.arange(len(classes))
    _write_predictions(build.out, truth, predicted)
    return {
        "accuracy": [float(accuracy_score(truth, column)) for column in columns],
        "macro_f1": [
            float(f1_score(truth, column, labels=every, average="macro", zero_division=0))
            for column in columns
        ],
        "confusion": [confusion_matrix(truth, c, labels=every).tolist() for c in columns],
        "classes": classes,
        "num_clips": len(truth),
        "split": build.config["evaluate"].split,  # type: ignore[attr-defined]
    }


def _write_predictions(out: Folder, truth: np.ndarray, predicted: np.ndarray) -> None:
    columns = {"label": truth} | {f"draw_{r}": column for r, column in enumerate(predicted.T)}
    out.filesystem.create_dir(out.path, recursive=True)
    with out.filesystem.open_output_stream(f"{out.path}/predictions.parquet") as sink:
        pq.write_table(pa.table(columns), sink)
