"""What an arm ends in: something that scores clips, with one classifier for every draw of labels.

The rule of this room: a scorer needs no Ray and no store beyond the folder that it is loaded from,
so that it works wherever the folder is.

Axes: B clips, C windows of a clip, S samples, R repeated draws, N classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from unfused.store import Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ScorerFacts(Facts):
    """Of the classifiers of one arm."""

    kind: str
    """The file of `scorers/` that loads them."""
    classes: list[str]
    """The label map, in the order of the scores."""
    num_repeats: int
    """Draws of the labels, each with a classifier."""
    num_labels: int
    """Training labels that a draw looks at."""
    num_validation_labels: int
    num_crops: int = 1
    """Evenly spaced windows of a clip that a score is of."""
    crop_samples: int | None = None
    """Samples of a window; None where a scorer is given whole clips."""


class Scorer(Protocol):
    """The classifiers of all draws of one arm."""

    def to(self, device: torch.device) -> Scorer:
        """The scorer, on another device."""

    def scores(self, clips: Tensor | Sequence[Tensor]) -> Tensor:
        """Scores (R, B, N) whose softmax is the probability of each class.

        Args:
            clips: int16 on the scorer's device: windows (B, C, S), or B whole clips (S,) each of
                its own length where `crop_samples` is None.
        """
