"""DECAR-v2: DeepCluster-v2 on audio, the teacher of UnFuSeD's released configuration.

Once an epoch, spherical k-means over a memory bank of all clips gives every clip a cluster and
overwrites the prototypes with the centroids (arXiv 2006.09882, appendix on DeepCluster-v2); the
loss asks the second view for the cluster of the first. The bank is shared out: each worker holds
the rows of the clips that it trains on.

Axes: B clips of this worker in a batch, N_local rows of its bank, D embedding, P projection,
K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from unfused.config import ConfigError, ProjectorConfig, Temperature


class Config(ProjectorConfig):
    kind: Literal["decar_v2"] = "decar_v2"
    """Pre-training objective: one view tells the cluster of the other."""
    temperature: Temperature = 0.2
    """Divides the cosine similarities to the prototypes; 1 as published."""
    num_prototypes: Annotated[int, Field(ge=2, le=1_000_000)] = 1024
    """Clusters of the memory bank."""
    kmeans_iterations: Annotated[int, Field(ge=1, le=10000)] = 10
    """Spherical k-means iterations per epoch."""

    def check(self, num_clips: int) -> None:
        """Refuse more prototypes than clips.

        Raises:
            ConfigError: with the remedy.
        """
        if self.num_prototypes > num_clips:
            raise ConfigError(
                f"pretrain.num_prototypes={self.num_prototypes} is more than the {num_clips}"
                f" unlabelled clips; set it to {max(2, num_clips // 4)} or less, or give a larger"
                " --corpus."
            )


import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from unfused.clustering.torch_backend import spherical_kmeans
from unfused.distributed import global_count, sum_over_ranks
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import Projector
from unfused.objectives.protocol import Objective, Setting


class DecarV2(Objective):
    """Prototype classification against the clusters of a memory bank.

    The prototypes follow the centroids and get no gradient. Bank, labels and prototypes are no
    buffers, because DistributedDataParallel would overwrite every worker's with the first one's.
    Only the bank is state: labels and prototypes derive from it when an epoch starts.

    Args:
        projector: D -> P.
        rows: this worker's clips, a contiguous block of all N.
        num_clips: N.
        num_prototypes: K, at most N.
        temperature: divides the cosine similarities, above 0 (1 as published).
        kmeans_iterations: per epoch.
        seed: of the centroids that each epoch's k-means starts from.

    Raises:
        ValueError: K is above N, or `temperature` is not above 0.
    """

    needs_initial_pass = True

    def __init__(
        self,
        projector: Projector,
        *,
        rows: range,
        num_clips: int,
        num_prototypes: int,
        temperature: float,
        kmeans_iterations: int,
        seed: int,
    ) -> None:
        super().__init__()
        if num_prototypes > num_clips:
            raise ValueError(
                f"{num_prototypes} prototypes need at least as many clips, and there are"
                f" {num_clips}; lower num_prototypes."
            )
        if not temperature > 0:
            raise ValueError(f"The prototype temperature must be above 0; got {temperature:g}.")
        self.projector, self.rows, self.num_clips = projector, rows, num_clips
        self.num_prototypes, self.temperature = num_prototypes, temperature
        self.kmeans_iterations, self.seed = kmeans_iterations, seed
        self.bank = torch.zeros(len(rows), projector[-1].out_features)
        self.labels: Tensor | None = None
        self.prototypes: Tensor | None = None

    def encode(self, encoder: ClipEncoder, *views: Tensor) -> tuple[Tensor, Tensor]:
        """The clip vectors of both views; the first one's are remembered and get no gradient."""
        first, second = views
        with torch.no_grad():
            remembered = encoder.encode(first).clip
        return remembered, encoder.encode(second).clip

    def forward(self, first: Tensor, second: Tensor, clip: Tensor) -> Tensor:
        if self.labels is None or self.prototypes is None:
            raise ValueError("DECAR-v2 has no clusters yet; call start_epoch before a step.")
        target = self.labels[clip - self.rows.start]
        guess = self.project(second)
        with torch.autocast(second.device.type, enabled=False):
            scores = guess @ self.prototypes.T / self.temperature
            share = cross_entropy(scores, target, reduction="sum")
            loss = sum_over_ranks(share / global_count(len(clip), share.device))
        self.observe(first, clip)
        return loss

    def project(self, embedding: Tensor) -> Tensor:
        """(B, D) to unit rows (B, P), float32."""
        return normalize(self.projector(embedding).float())

    @torch.no_grad()
    def observe(self, first: Tensor, clip: Tensor) -> None:
        self.bank = self.bank.to(first.device)
        self.bank[clip - self.rows.start] = self.project(first)

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """Cluster the bank.

        Returns:
            `num_nonempty`, how many prototypes have clips, and `similarity`, the clips' mean
            cosine to theirs.
        """
        self.prototypes, self.labels = spherical_kmeans(
            self.bank,
            num_clusters=self.num_prototypes,
            num_iterations=self.kmeans_iterations,
            generator_seed=self.seed + epoch,
            start=self.rows.start,
        )
        sizes = sum_over_ranks(torch.bincount(self.labels, minlength=self.num_prototypes))
        similarity = (self.bank * self.prototypes[self.labels]).sum() / self.num_clips
        return {
            "num_nonempty": float((sizes > 0).sum()),
            "similarity": float(sum_over_ranks(similarity)),
        }

    def rank_state(self) -> dict[str, Tensor]:
        return {"bank": self.bank}

    def load_rank_state(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Restore the bank.

        Raises:
            ValueError: the states hold another number of clips than there are.
        """
        whole = torch.cat([state["bank"].cpu() for state in states])
        if len(whole) != self.num_clips:
            raise ValueError(
                f"The checkpoint's memory bank holds {len(whole)} clips and there are"
                f" {self.num_clips}; start this pre-training afresh."
            )
        mine = whole[self.rows.start : self.rows.stop]
        self.bank = mine.to(self.bank.device, copy=True)


def build(config: Config, setting: Setting) -> Objective:
    """See `unfused.objectives.build`."""
    return DecarV2(
        Projector(setting.embedding_dim, config.projector_hidden, config.projector_dim),
        rows=setting.rows,
        num_clips=setting.num_clips,
        num_prototypes=config.num_prototypes,
        temperature=config.temperature,
        kmeans_iterations=config.kmeans_iterations,
        seed=setting.seed,
    )
