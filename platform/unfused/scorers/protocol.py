"""What an arm ends in: something that scores clips, with one classifier for every draw of labels.

The rule of this room: a scorer needs no Ray and no store beyond the folder that it is loaded from,
so that it works wherever the folder is.

Axes: B clips, W windows of clips, S samples, R repeated draws, N classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from unfused.audio.samples import Cut, Windows
from unfused.config import NumCrops, Pooling
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
    num_repeats: Annotated[int, Field(ge=1)]
    """Draws of the labels, each with a classifier."""
    num_labels: int
    """Training labels that a draw looks at."""
    num_validation_labels: int
    num_crops: NumCrops = 1
    """Evenly spaced windows of a clip that a score is of; auto: as many as cover it."""
    crop_samples: int | None = None
    """Samples of a window; None where a scorer is given whole clips."""
    cross_validated: list[float] | None = None
    """Accuracy of every draw on labelled clips that were left out while others taught; none where
    that was not, or could not be, measured."""
    pooling: Pooling = "mean"
    """How the scores of a clip's windows become the clip's."""

    @property
    def cut(self) -> Cut | None:
        """How a clip is cut into windows; None where a scorer is given whole clips."""
        return Cut(self.crop_samples, self.num_crops) if self.crop_samples else None


def measured(accuracies: Sequence[float]) -> list[float] | None:
    """What `ScorerFacts.cross_validated` is where nan stands for what could not be measured."""
    return None if any(math.isnan(one) for one in accuracies) else list(accuracies)


OfDraws = tuple[ScorerFacts, Mapping[int, float]]
"""What one arm's classifiers are, and by draw, of some draws, their `cross_validated`, or nan."""


def of_all_draws(parts: Sequence[OfDraws]) -> ScorerFacts:
    """The facts of all draws, from those of some each."""
    right = {draw: value for _, some in parts for draw, value in some.items()}
    estimates = measured([right[draw] for draw in sorted(right)])
    return parts[0][0].model_copy(update={"cross_validated": estimates})


class Scorer(Protocol):
    """The classifiers of all draws of one arm."""

    def to(self, device: torch.device) -> Scorer:
        """The scorer, on another device."""

    def scores(self, clips: Windows[Tensor] | Sequence[Tensor]) -> Tensor:
        """Scores (R, B, N) whose softmax is the probability of each class.

        Args:
            clips: int16 on the scorer's device: windows of B clips, or B whole clips (S,) each of
                its own length where `crop_samples` is None.
        """

    def embeddings(self, clips: Windows[Tensor] | Sequence[Tensor]) -> Mapping[str, Tensor]:
        """The vectors (B, D) that clips are judged by in the first draw, by what gives them."""
