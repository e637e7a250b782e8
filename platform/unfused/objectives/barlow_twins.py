"""Barlow Twins: redundancy reduction (arXiv 2103.03230, equations 1 and 2), as in DeLoRes-S.

Axes: B clips of all workers, D embedding, P projection.
"""

from __future__ import annotations

from typing import Literal

from unfused.config import ProjectorConfig, Weight


class Config(ProjectorConfig):
    kind: Literal["barlow_twins"] = "barlow_twins"
    """Pre-training objective: two views agree in columns that do not repeat one another."""
    redundancy_weight: Weight = 0.005
    """Off-diagonal weight (lambda) of the cross-correlation."""


import torch
from torch import Tensor

from unfused.distributed import gather_rows
from unfused.models.heads import Projector
from unfused.objectives.protocol import Objective, Setting

EPSILON = 1e-5
"""Added to the variance of a column, as batch norm does."""


def barlow_twins(first: Tensor, second: Tensor, redundancy_weight: float) -> Tensor:
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, C the views' cross-correlation (P, P).

    Args:
        first: (B, P) projections of the first views.
        second: (B, P) of the second.
        redundancy_weight: lambda, 0 or more.

    Returns:
        A scalar, 0 for views that agree in decorrelated columns.
    """
    correlation = _standardize(first).T @ _standardize(second) / max(1, len(first))
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + redundancy_weight * off_diagonal


def _standardize(x: Tensor) -> Tensor:
    """Columns of (B, P) to mean 0 and variance 1 over the batch."""
    count = max(1, len(x))
    centred = x - x.sum(0) / count
    return centred * torch.rsqrt(centred.square().sum(0) / count + EPSILON)


class BarlowTwins(Objective):
    """A projector and `barlow_twins` over the whole batch.

    Args:
        projector: D -> P.
        redundancy_weight: see `barlow_twins`.

    Raises:
        ValueError: `redundancy_weight` is below 0.
    """

    def __init__(self, projector: Projector, redundancy_weight: float) -> None:
        super().__init__()
        if not redundancy_weight >= 0:
            raise ValueError(f"The redundancy weight is 0 or more; got {redundancy_weight:g}.")
        self.projector, self.redundancy_weight = projector, redundancy_weight

    def forward(self, first: Tensor, second: Tensor, clip: Tensor) -> Tensor:
        one, two = self.projector(first), self.projector(second)
        with torch.autocast(first.device.type, enabled=False):
            views = gather_rows(one.float()), gather_rows(two.float())
            return barlow_twins(*views, self.redundancy_weight)


def build(config: Config, setting: Setting) -> Objective:
    """See `unfused.objectives.build`."""
    widths = config.projector_hidden, config.projector_dim
    return BarlowTwins(Projector(setting.embedding_dim, *widths), config.redundancy_weight)
