"""One student: a randomly initialised encoder learns the pseudo-labels and from itself.

Axes: B clips, S samples, F mel bands, T frames, K clusters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unfused import losses, training
from unfused.config import DistillConfig, EncoderConfig
from unfused.data import PartFacts
from unfused.distributed import global_count, sum_over_ranks
from unfused.models import weights
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.student import Logits, StudentHeads
from unfused.store import Artifact, Folder, read_npy


@dataclass(frozen=True)
class DistillJob:
    """One student."""

    node: str
    clips: Artifact[PartFacts]
    clusters: tuple[Artifact, ...]
    """One or more clusterings of the clips."""
    encoder: EncoderConfig
    config: DistillConfig
    out: Folder
    checkpoints: Folder

    def run(self, worker: training.Worker) -> tuple[training.Fitted, float]:
        """How the epochs went, and what the job took in seconds."""
        torch.manual_seed(self.config.seed)
        encoder = ClipEncoder.for_part(self.clips.facts, self.encoder)
        heads = [student_heads(encoder, found, self.config) for found in self.clusters]
        ids = [read_npy(found.folder, "labels.npy") for found in self.clusters]
        labels = torch.from_numpy(np.stack(ids)).long().to(worker.device)
        learner = DistillLearner(encoder, heads, labels, self.config)
        stream = worker.stream(
            self.clips, num_samples=encoder.audio.crop_samples, training=self.config
        )
        began = time.perf_counter()
        fitted = worker.fit(
            learner, stream, self.config, node=self.node, checkpoints=self.checkpoints
        )
        if worker.is_first:
            encoder.save(self.out)
            for number, head in enumerate(heads, start=1):
                self.out.write(heads_file(number), weights.save(head))
        return fitted, time.perf_counter() - began


def student_heads(
    encoder: ClipEncoder, clusters: Artifact, config: DistillConfig
) -> StudentHeads:
    """Heads for one clustering, whose artifact is the one home of their number."""
    number = clusters.facts.num_nonempty
    return StudentHeads(encoder.encoder, number, config.head_width or None)


def heads_file(number: int) -> str:
    """Where the heads of a clustering are kept; the first is number 1."""
    return f"heads{f'-{number}' if number > 1 else ''}.safetensors"


class DistillLearner(training.Learner):
    """Pseudo-labels for the deep and shallow heads, and the deep head for the shallow ones.

    Args:
        encoder: the student.
        heads: one for each clustering, whose losses are averaged.
        labels: (number of clusterings, N) pseudo-labels of all clips.
        config: the loss and the augmentation.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        heads: Sequence[StudentHeads],
        labels: Tensor,
        config: DistillConfig,
    ) -> None:
        super().__init__()
        self.clip_encoder, self.heads, self.config = encoder, nn.ModuleList(heads), config
        self.augment = encoder.augmentation(config.augment)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, batch: training.Batch) -> Tensor:
        spectrogram = self.augment(self.clip_encoder.spectrogram(batch["samples"]))
        features = self.clip_encoder.encode(spectrogram)
        count = global_count(len(batch["clip"]), batch["clip"].device)
        targets = self.labels[:, batch["clip"]]
        found = [
            self._loss(head(features), of, count)
            for head, of in zip(self.heads, targets, strict=True)
        ]
        return sum_over_ranks(torch.stack(found).mean())

    def _loss(self, logits: Logits, targets: Tensor, count: Tensor) -> Tensor:
        config = self.config
        return losses.unfused_loss(
            logits.deep.float(),
            tuple(shallow.float() for shallow in logits.shallow),
            targets,
            shallow_weight=config.shallow_weight,
            kl_weight=config.kl_weight,
            cosine_weight=config.cosine_weight,
            temperature=config.temperature,
            detach_teacher=config.detach_teacher,
            scale_by_temperature=config.scale_kl,
            denominator=count,
        ).total
