"""Evaluate: score every arm's classifiers on the held-out clips, once.

The rule of this room: it is the only stage with an edge to the test clips.

Axes: B clips, C windows of a clip, S samples, R repeated draws of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unfused import runtime, shards
from unfused.config import EvaluateConfig
from unfused.events import Progress
from unfused.models.classifier import ClipClassifier
from unfused.stages import Build, Facts, pool_needs
from unfused.stages.ingest import truth_in
from unfused.store import Folder

needs = pool_needs


def run(builds: Sequence[Build], cluster: runtime.Cluster) -> list[Facts]:
    """Score builds that share their clips in one pass."""
    results: dict[str, Facts] = {}
    by_clips: dict[tuple, list[Build]] = {}
    for build in builds:
        settings = build.inputs["classifier"].facts
        same = (build.inputs["clips"].folder.uri, settings["num_crops"], settings["crop_samples"])
        by_clips.setdefault(same, []).append(build)
    for (_, crops, samples), group in by_clips.items():
        results |= _score(group, cluster, num_crops=crops, num_samples=samples)
    return [results[build.node] for build in builds]


def _score(
    builds: Sequence[Build], cluster: runtime.Cluster, *, num_crops: int, num_samples: int
) -> dict[str, Facts]:
    config: EvaluateConfig = builds[0].config["evaluate"]  # type: ignore[assignment]
    clips = builds[0].inputs["clips"]
    total = shards.num_clips(clips)
    settings = {
        "classifiers": {
            build.node: (build.inputs["classifier"].folder, build.inputs["classifier"].facts)
            for build in builds
        }
    }
    rows = shards.map_with_actors(
        shards.slices(clips, range(total), config.batch_size),
        partial(shards.even_windows, num_samples=num_samples, num_crops=num_crops),
        Scorer,
        settings,
        num_gpus=min(1, runtime.gpus_per_worker(cluster.options, cluster.hardware)),
    )
    repeats = {b.node: b.inputs["classifier"].facts["num_repeats"] for b in builds}
    predicted = {node: np.zeros((total, count), np.int32) for node, count in repeats.items()}
    for done, row in enumerate(rows, start=1):
        for node, table in predicted.items():
            table[row["clip"]] = row[node]
        if done % 64 == 0 or done == total:
            for build in builds:
                cluster.stream.emit(Progress(build.node, done, total))
    return {build.node: _report(build, predicted[build.node]) for build in builds}


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


class Scorer:
    """An actor that holds every arm's classifiers and predicts blocks of windows.

    Draws that share an encoder (linear fine-tuning) share its embeddings.
    """

    def __init__(self, classifiers: Mapping[str, tuple[Folder, Mapping[str, Any]]]) -> None:
        runtime.prepare_process()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.groups = {
            node: ClipClassifier.load_all(folder, facts["num_repeats"])
            for node, (folder, facts) in classifiers.items()
        }

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        windows = torch.from_numpy(batch["samples"].copy()).to(self.device)
        found = {"clip": batch["clip"]}
        with torch.inference_mode():
            for node, groups in self.groups.items():
                found[node] = np.stack(
                    [column for group in groups for column in self._predict(group, windows)], 1
                )
        return found

    def _predict(self, group: list[ClipClassifier], windows: torch.Tensor) -> list[np.ndarray]:
        """Predicted ids (B,) of the draws that share an encoder."""
        embedding = group[0].encoder.to(self.device).eval().embed(windows)
        heads = [classifier.head.to(self.device) for classifier in group]
        return [head(embedding).argmax(1).int().cpu().numpy() for head in heads]
