"""What the classifiers of several arms say of the same clips.

Axes: N clips, B clips at a time, R repeated draws of the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfused import data, scorers, training
from unfused.config import EvaluateConfig
from unfused.data import PartFacts
from unfused.distributed import sum_over_ranks
from unfused.scorers import Scorer, ScorerFacts
from unfused.store import Artifact


@dataclass(frozen=True)
class Predictions:
    """What the classifiers of one arm say of all clips.

    Attributes:
        ids: (N, R) predicted classes.
        probability: (N, R) of the predicted class.
    """

    ids: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class EvaluateJob:
    """Classifiers of every arm that see the same of the same clips, which are read once for all."""

    clips: Artifact[PartFacts]
    classifiers: Mapping[str, Artifact[ScorerFacts]]
    config: EvaluateConfig

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those whose classifiers these are."""
        return tuple(self.classifiers)

    def run(self, worker: training.Worker) -> dict[str, Predictions]:
        """Predictions by node; every worker predicts its share of the clips."""
        found = {
            node: scorers.load(one.folder, one.facts).to(worker.device)
            for node, one in self.classifiers.items()
        }
        total = data.num_clips(self.clips)
        shapes = {node: (total, one.facts.num_repeats) for node, one in self.classifiers.items()}
        ids = {node: torch.zeros(shape, dtype=torch.int32) for node, shape in shapes.items()}
        sure = {node: torch.zeros(shape) for node, shape in shapes.items()}
        for clip, given in self._given(worker):
            rows = torch.from_numpy(clip.copy())
            for node, scorer in found.items():
                ids[node][rows], sure[node][rows] = predict(scorer, given)
        return {
            node: Predictions(_of_all(worker, ids[node]), _of_all(worker, sure[node]))
            for node in found
        }

    def _given(self, worker: training.Worker) -> Iterator[tuple[np.ndarray, Any]]:
        """What the scorers take of this worker's share of the clips, a block at a time."""
        facts = next(iter(self.classifiers.values())).facts
        if facts.cut is None:
            return worker.whole_clips(self.clips, self.classifiers, self.config.batch_size)
        return worker.even_windows(
            self.clips,
            self.classifiers,
            cut=facts.cut,
            clips_per_block=self.config.batch_size,
        )


def predict(scorer: Scorer, given: Any) -> tuple[Tensor, Tensor]:
    """Predicted ids (B, R) int32 and their probabilities (B, R), on CPU."""
    scores = scorer.scores(given).float()
    ids = scores.argmax(2)
    probability = scores.softmax(2).gather(2, ids[..., None])[..., 0]
    return ids.T.int().cpu(), probability.T.cpu()


def _of_all(worker: training.Worker, table: Tensor) -> np.ndarray:
    return sum_over_ranks(table.to(worker.device)).cpu().numpy()
