"""Distill: a randomly initialised student learns the pseudo-labels and from itself.

Axes: B clips, S samples, F mel bands, T frames, K clusters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfused import losses, shards, training
from unfused.config import DistillConfig, EncoderConfig
from unfused.models import weights
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.student import StudentHeads
from unfused.objectives.gather import global_count, sum_over_ranks
from unfused.runtime import Cluster
from unfused.stages import Build, Facts, training_needs
from unfused.store import Artifact, Folder, read_npy

needs = training_needs


def run(builds: Sequence[Build], cluster: Cluster) -> list[Facts]:
    jobs = [
        DistillJob(
            build.node,
            build.inputs["clips"],
            build.inputs["clusters"],
            build.config["encoder"],
            build.config["distill"],
            build.out,
            build.checkpoints,
        )
        for build in builds
    ]
    return cluster.session.run(jobs)


@dataclass(frozen=True)
class DistillJob:
    """One student."""

    node: str
    clips: Artifact
    clusters: Artifact
    encoder: EncoderConfig
    config: DistillConfig
    out: Folder
    checkpoints: Folder

    def run(self, worker: training.Worker) -> Facts:
        torch.manual_seed(self.config.seed)
        encoder = ClipEncoder.for_part(self.clips.facts, self.encoder)
        # The number of heads has one home: the clusters artifact.
        heads = StudentHeads(
            encoder.encoder, self.clusters.facts["num_nonempty"], self.config.head_width or None
        )
        labels = torch.from_numpy(read_npy(self.clusters.folder, "labels.npy")).long()
        learner = DistillLearner(encoder, heads, labels.to(worker.device), self.config)
        stream = worker.stream(
            self.clips, num_samples=encoder.audio.crop_samples, training=self.config
        )
        began = time.perf_counter()
        metrics = worker.fit(
            learner, stream, self.config, node=self.node, checkpoints=self.checkpoints
        )
        if worker.is_first:
            encoder.save(self.out)
            self.out.write("heads.safetensors", weights.save(heads))
        total = shards.num_clips(self.clips)
        return {"num_clips": total, **metrics, "own_seconds": time.perf_counter() - began}


class DistillLearner(training.Learner):
    """Pseudo-labels for the deep and shallow heads, and the deep head for the shallow ones."""

    def __init__(
        self, encoder: ClipEncoder, heads: StudentHeads, labels: Tensor, config: DistillConfig
    ) -> None:
        super().__init__()
        self.clip_encoder, self.heads, self.config = encoder, heads, config
        self.augment = encoder.augmentation(config.augment)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, batch: training.Batch) -> Tensor:
        spectrogram = self.augment(self.clip_encoder.spectrogram(batch["samples"]))
        logits = self.heads(self.clip_encoder.encode(spectrogram))
        config = self.config
        loss = losses.unfused_loss(
            logits.deep.float(),
            tuple(shallow.float() for shallow in logits.shallow),
            self.labels[batch["clip"]],
            shallow_weight=config.shallow_weight,
            kl_weight=config.kl_weight,
            cosine_weight=config.cosine_weight,
            temperature=config.temperature,
            detach_teacher=config.detach_teacher,
            scale_by_temperature=config.scale_kl,
            denominator=global_count(len(batch["clip"]), batch["clip"].device),
        ).total
        return sum_over_ranks(loss)

    def rank_state(self) -> dict[str, Tensor]:
        return self.augment.rank_state()

    def load_rank_state(self, states: list[dict[str, Tensor]]) -> None:
        self.augment.load_rank_state(states)
