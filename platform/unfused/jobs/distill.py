"""One student: a randomly initialised encoder learns the pseudo-labels and from itself.

Axes: B clips, S samples, F mel bands, T frames, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unfused import clustering, data, losses, training
from unfused.config import DistillConfig, EncoderConfig
from unfused.data import PartFacts
from unfused.distributed import global_count, sum_over_ranks
from unfused.jobs.features import Matching, principal
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
    embeddings: tuple[Artifact, ...]
    """What each was made of, where the student learns more of that than the nearest centroid."""
    encoder: EncoderConfig
    config: DistillConfig
    out: Folder
    checkpoints: Folder

    def run(self, worker: training.Worker) -> training.Fitted:
        """How the epochs went."""
        config = self.config.settled(data.num_clips(self.clips))
        torch.manual_seed(config.seed)
        encoder = ClipEncoder.for_part(self.clips.facts, self.encoder)
        heads = [student_heads(encoder, found, config) for found in self.clusters]
        learner = DistillLearner(encoder, heads, self._labels(), config, self._matched())
        stream = worker.stream(
            self.clips, num_samples=encoder.audio.crop_samples, training=config
        )
        fitted = worker.fit(
            learner, stream, config, node=self.node, checkpoints=self.checkpoints
        )
        if worker.is_first:
            encoder.save(self.out)
            for number, head in enumerate(heads, start=1):
                self.out.write(heads_file(number), weights.save(head))
        return fitted

    def _labels(self) -> list[Tensor]:
        """The pseudo-labels of every clustering: ids (N,), or soft ones (N, K)."""
        if not self.config.soft_temperature:
            found = [read_npy(one.folder, "labels.npy") for one in self.clusters]
            return [torch.from_numpy(ids).long() for ids in found]
        return [soft_labels(*pair, self.config.soft_temperature) for pair in self._pairs()]

    def _pairs(self) -> Iterator[tuple[Artifact, Artifact]]:
        return zip(self.clusters, self.embeddings, strict=True)

    def _matched(self) -> list[tuple[Tensor, float]]:
        """What each teacher embeds, all with the same weight."""
        if not self.config.feature_weight:
            return []
        folders = list(dict.fromkeys(one.folder for one in self.embeddings))
        return [(principal(folder), 1 / len(folders)) for folder in folders]


def soft_labels(clusters: Artifact, embeddings: Artifact, temperature: float) -> Tensor:
    """Soft pseudo-labels (N, K) float16 of one clustering."""
    model = clustering.ClusterModel.from_bytes(clusters.folder.read("clusters.safetensors"))
    rows = [model.soft(v, temperature) for _, v in data.read_embeddings(embeddings.folder)]
    return torch.from_numpy(np.concatenate(rows)).half()


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
        labels: of every clustering the pseudo-labels of all clips, (N,) ids or (N, K) soft ones.
        config: the loss and the augmentation.
        matched: what teachers embed of all clips (N, P), each with its weight.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        heads: Sequence[StudentHeads],
        labels: Sequence[Tensor],
        config: DistillConfig,
        matched: Sequence[tuple[Tensor, float]] = (),
    ) -> None:
        super().__init__()
        self.clip_encoder, self.heads, self.config = encoder, nn.ModuleList(heads), config
        self.augment = encoder.augmentation(config.augment)
        self.labels, self.matching = labels, Matching(encoder.embedding_dim, matched)

    def forward(self, batch: training.Batch) -> Tensor:
        spectrogram = self.augment(self.clip_encoder.spectrogram(batch["samples"]))
        features = self.clip_encoder.encode(spectrogram)
        count = global_count(len(batch["clip"]), batch["clip"].device)
        clip = batch["clip"].cpu()
        found = [
            self._loss(head(features), self._of(labels, clip).to(count.device), count)
            for head, labels in zip(self.heads, self.labels, strict=True)
        ]
        loss = torch.stack(found).mean()
        if self.config.feature_weight:
            apart = self.matching(features.clip, clip).sum() / count
            loss = loss + self.config.feature_weight * apart
        return sum_over_ranks(loss)

    def _of(self, labels: Tensor, clip: Tensor) -> Tensor:
        found = labels[clip]
        return found.float() if found.is_floating_point() else found

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
