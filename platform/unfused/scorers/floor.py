"""The floor: log-mel statistics of the whole clip and logistic regression, what a second gives.

Nothing is learned from clips without a label. Whatever an arm of minutes scores stands above this
or was not worth it.

Axes: S samples of a clip, P statistics, N classes, R draws of the labels.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unfused.config import ScorerConfig


class Config(ScorerConfig):
    kind: Literal["floor"] = "floor"


import torch
from safetensors import torch as safetensors
from torch import Tensor

from unfused.audio.statistics import front_end, statistics
from unfused.probing.probe import for_every_class, num_folds_for
from unfused.scorers.protocol import ScorerFacts
from unfused.store import Folder

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 7))
"""Inverse regularisation among which cross-validation chooses."""
FOLDS = 5


@dataclass(frozen=True)
class Regression:
    """Logistic regression on standardised statistics, for one draw of the labels.

    Attributes:
        mean, std: (P,) of the statistics of the labelled clips.
        weight: (N, P).
        bias: (N,).
        sample_rate: Hz, of the clips.
        strength: inverse regularisation that was chosen.
        cross_validated: accuracy on labelled clips that were left out; nan where none could be.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    sample_rate: int
    strength: float
    cross_validated: float = math.nan

    def scores(self, features: Tensor) -> Tensor:
        """Statistics (B, P) to scores (B, N)."""
        return (features - self.mean) / self.std @ self.weight.T + self.bias

    def save(self, folder: Folder, repeat: int) -> None:
        """Write the classifier of one draw."""
        tensors = {name: getattr(self, name) for name in ("mean", "std", "weight", "bias")}
        settings = {"sample_rate": self.sample_rate, "strength": self.strength}
        folder.write(f"floor-{repeat:02d}.safetensors", safetensors.save(tensors))
        folder.write(f"floor-{repeat:02d}.json", json.dumps(settings, indent=2).encode())

    @classmethod
    def load(cls, folder: Folder, repeat: int) -> Regression:
        """Read what `save` wrote."""
        tensors = safetensors.load(folder.read(f"floor-{repeat:02d}.safetensors"))
        return cls(**tensors, **folder.read_json(f"floor-{repeat:02d}.json"))


def fit(
    config: Config, waves: Sequence[np.ndarray], labels: np.ndarray, num_classes: int, rate: int
) -> Regression:
    """A classifier from the labelled clips of one draw.

    Args:
        config: has nothing to say.
        waves: int16 clips (S,), each of its own length.
        labels: (n,) class ids; every class has a clip.
        num_classes: N.
        rate: Hz, of the clips.
    """
    log_mel = front_end(rate)
    features = torch.stack([statistics(torch.from_numpy(w.copy()), log_mel) for w in waves])
    mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    rows = ((features - mean) / std).double().numpy()
    strength, accuracy = choose_strength(rows, labels)
    model = regression(strength).fit(rows, labels)
    weight, bias = map(_tensor, for_every_class(model, num_classes))
    return Regression(mean, std, weight, bias, rate, strength, accuracy)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float()


def regression(strength: float):
    """scikit-learn's, multinomial."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000)


def choose_strength(rows: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The inverse regularisation that cross-validation among the labelled clips prefers, and the
    accuracy that it has there.

    The strongest of equals; where every class has a single clip, the one in the middle, and nan.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    folds = num_folds_for(labels, FOLDS)
    if folds < 2:
        return STRENGTHS[len(STRENGTHS) // 2], math.nan
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Of classes with a single clip, which counts as wrong when it is left out.
        warnings.simplefilter("ignore", UserWarning)
        scores = [cross_val_score(regression(c), rows, labels, cv=split).mean() for c in STRENGTHS]
    return STRENGTHS[int(np.argmax(scores))], float(max(scores))


class FloorScorer:
    """The classifiers of all draws; a clip's statistics serve all of them."""

    def __init__(self, draws: Sequence[Regression]) -> None:
        self.draws = draws
        self._log_mel = front_end(draws[0].sample_rate)

    def to(self, device: torch.device) -> FloorScorer:
        """It stays on CPU, where it takes a millisecond a clip."""
        return self

    @torch.inference_mode()
    def scores(self, clips: Sequence[Tensor]) -> Tensor:
        """Whole int16 clips (S,), B of them, to scores (R, B, N)."""
        features = self.embeddings(clips)["embedding"]
        return torch.stack([one.scores(features) for one in self.draws])

    @torch.inference_mode()
    def embeddings(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """The statistics."""
        rows = [statistics(clip.cpu(), self._log_mel) for clip in clips]
        return {"embedding": torch.stack(rows)}


def load(folder: Folder, facts: ScorerFacts) -> FloorScorer:
    """See `unfused.scorers.load`."""
    return FloorScorer([Regression.load(folder, repeat) for repeat in range(facts.num_repeats)])


def files(folder: Folder, repeat: int) -> list[str]:
    """See `unfused.scorers.files`."""
    return [f"floor-{repeat:02d}.{suffix}" for suffix in ("json", "safetensors")]
