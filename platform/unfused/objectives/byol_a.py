"""BYOL-A: bootstrap your own latent for audio (arXiv 2103.06695; BYOL itself is arXiv 2006.07733).

An online network (encoder, projector, predictor) predicts from one view what a target network
(encoder, projector) makes of the other; the target's weights are a moving average of the online
ones. There are no negatives. The views of a batch are normalised once more after augmentation,
whose mixing and cropping shift their statistics (section III-B of BYOL-A).

Axes: B clips of this worker in a batch, F mel bands, T frames, D embedding, P projection.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

from unfused.config import Fraction, ProjectorConfig, Units


class Config(ProjectorConfig):
    kind: Literal["byol_a"] = "byol_a"
    """Pre-training objective: one view predicts what a moving average makes of the other."""
    projector_hidden: Units = 4096
    projector_dim: Units = 256
    momentum: Fraction = 0.99
    """Share of the target network that stays at the first step (tau)."""
    final_momentum: Fraction = 0.99
    """Share that stays at the last step, by a cosine between the two; BYOL goes to 1."""


import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unfused.distributed import global_count, sum_over_ranks
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import Projector
from unfused.objectives.protocol import Objective, Setting

EPSILON = 1e-8
"""Added to the variance of a batch: digital silence has none."""


def normalize_views(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both views with mean 0 and variance 1 over all clips, bands and frames of all workers.

    Args:
        first: (B, F, T) log-mel of the first views.
        second: (B, F, T) of the second.
    """
    values = torch.cat([first, second]).double()
    count = global_count(values.numel(), first.device).double()
    mean = sum_over_ranks(values.sum() / count)
    variance = sum_over_ranks((values - mean).square().sum() / count)
    scale = torch.rsqrt(variance + EPSILON)
    return tuple(((view - mean) * scale).to(view.dtype) for view in (first, second))


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos of each row (BYOL, equation 2): two (B, P) to (B,), in [0, 4]."""
    return 2 - 2 * cosine_similarity(prediction, target, dim=1)


class ByolA(Objective):
    """Online and target network, and the symmetric loss between them.

    The target gets no gradient; its batch norm and dropout run as the online network's do.

    Args:
        encoder: that is trained; the target starts as a copy of it.
        projector: D -> P.
        predictor: P -> P.
        momentum: of the target at the first step, in [0, 1].
        final_momentum: at the last.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        projector: Projector,
        predictor: Projector,
        *,
        momentum: float,
        final_momentum: float,
    ) -> None:
        super().__init__()
        self.projector, self.predictor = projector, predictor
        self.momentum, self.final_momentum = momentum, final_momentum
        target = {"encoder": copy.deepcopy(encoder), "projector": copy.deepcopy(projector)}
        self.target = nn.ModuleDict(target).requires_grad_(False)

    def encode(self, encoder: ClipEncoder, *views: Tensor) -> tuple[Tensor, ...]:
        """Clip vectors (B, D): of both views by the online encoder, then by the target's."""
        views = normalize_views(*views)
        online = tuple(encoder.encode_normalized(view).clip for view in views)
        with torch.no_grad():
            target = tuple(self.target["encoder"].encode_normalized(v).clip for v in views)
        return online + target

    def forward(  # type: ignore[override]
        self,
        first: Tensor,
        second: Tensor,
        target_first: Tensor,
        target_second: Tensor,
        clip: Tensor,
    ) -> Tensor:
        """Mean over clips of both distances: each view's prediction to the other one's target.

        Args:
            first: (B, D) embeddings of the first view by the online encoder.
            second: (B, D) of the second.
            target_first: (B, D) of the first view by the target encoder.
            target_second: (B, D) of the second.
            clip: (B,) int64, index of each clip.
        """
        guesses = self.predictor(self.projector(first)), self.predictor(self.projector(second))
        project = self.target["projector"]
        with torch.no_grad():
            targets = project(target_first), project(target_second)
        with torch.autocast(first.device.type, enabled=False):
            both = distance(guesses[0].float(), targets[1].float()) + distance(
                guesses[1].float(), targets[0].float()
            )
            return sum_over_ranks(both.sum() / global_count(len(clip), both.device))

    @torch.no_grad()
    def after_step(self, encoder: ClipEncoder, progress: float) -> None:
        """Move the target's weights towards the online ones (BYOL, equation 1)."""
        kept = self.target_momentum(progress)
        online = nn.ModuleDict({"encoder": encoder, "projector": self.projector})
        for ours, theirs in zip(self.target.parameters(), online.parameters(), strict=True):
            ours.lerp_(theirs, 1 - kept)

    def target_momentum(self, progress: float) -> float:
        """Share of the target that stays, `progress` of the way through training."""
        left = (1 + math.cos(math.pi * progress)) / 2
        return self.final_momentum - (self.final_momentum - self.momentum) * left


def build(config: Config, setting: Setting) -> Objective:
    """See `unfused.objectives.build`."""
    widths = config.projector_hidden, config.projector_dim
    return ByolA(
        setting.encoder,
        Projector(setting.embedding_dim, *widths),
        Projector(config.projector_dim, *widths),
        momentum=config.momentum,
        final_momentum=config.final_momentum,
    )
