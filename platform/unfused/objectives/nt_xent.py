"""NT-Xent, the contrastive objective of SimCLR (arXiv 2002.05709, equation 1).

Axes: B clips of all workers, D embedding, P projection.
"""

from __future__ import annotations

from typing import Literal

from unfused.config import ProjectorConfig, Temperature


class Config(ProjectorConfig):
    kind: Literal["nt_xent"] = "nt_xent"
    """Pre-training objective: the contrast of SimCLR between two views of every clip."""
    temperature: Temperature = 0.2
    """Divides the cosine similarities of the contrastive loss."""


import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from unfused.distributed import gather_rows
from unfused.models.heads import Projector
from unfused.objectives.protocol import Objective, Setting


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over both views of -log softmax of the other view among all 2B - 1 other rows.

    Args:
        first: (B, P) projections of the first views, of any length.
        second: (B, P) of the second.
        temperature: divides the cosine similarities, above 0.

    Returns:
        A scalar in nats; 0 without rows.
    """
    both = normalize(torch.cat([first, second]))
    similarity = both @ both.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(both), device=both.device).bool(), -torch.inf)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return cross_entropy(similarity, partner, reduction="sum") / max(1, len(both))


class NTXent(Objective):
    """A projector and `nt_xent` over the whole batch.

    Args:
        projector: D -> P.
        temperature: see `nt_xent`.

    Raises:
        ValueError: `temperature` is not above 0.
    """

    def __init__(self, projector: Projector, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"The contrastive temperature must be above 0; got {temperature:g}.")
        self.projector, self.temperature = projector, temperature

    def forward(self, first: Tensor, second: Tensor, clip: Tensor) -> Tensor:
        one, two = self.projector(first), self.projector(second)
        # bfloat16 has 8 bits: too few for similarities over a small temperature.
        with torch.autocast(first.device.type, enabled=False):
            return nt_xent(gather_rows(one.float()), gather_rows(two.float()), self.temperature)


def build(config: Config, setting: Setting) -> Objective:
    """See `unfused.objectives.build`."""
    widths = config.projector_hidden, config.projector_dim
    return NTXent(Projector(setting.embedding_dim, *widths), config.temperature)
