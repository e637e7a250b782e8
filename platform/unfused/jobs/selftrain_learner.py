"""What a student of soft labels learns in a step.

Clips whose labels are known are left out at first, so that a head for each fold, which learns from
the probes that were not told that fold, says how right the student is on clips that it was not
told. In the last epochs they join every batch with their labels.

Axes: N training clips, n labelled clips, B clips of a batch, F mel bands, T frames, D embedding, C
classes, K folds, P components of what a teacher embeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfused import training
from unfused.audio.samples import Cut
from unfused.config import ScoringConfig, SelftrainConfig
from unfused.data import ClipCache
from unfused.jobs.features import Matching
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import POOLINGS, on_device

LABELLED_SHARE = 4
"""Clips of a batch for every labelled one that joins it."""
MOST_LEFT_OUT = 0.5
"""Share of all clips that may be left out; where more have labels they are learned at once, and
nothing is measured."""


@dataclass(frozen=True)
class SoftLabels:
    """What is known of the classes of clips.

    Attributes:
        said: (1 + K, N, C) what all probes say together, and those that were not told a fold.
        folds: (N,) int8, the fold that a labelled clip is left out in; -1 of all others.
        clips: (n,) that are labelled, ascending.
        ids: (n,) their classes.
    """

    said: Tensor
    folds: Tensor
    clips: Tensor
    ids: Tensor


class SelftrainLearner(training.Learner):
    """Soft labels, the teachers' embeddings, and FixMatch's consistency.

    Args:
        encoder: the student.
        labels: of all clips.
        matched: what teachers embed (N, P), each with its weight.
        waves: at least the labelled clips.
        config: of the loss.
        scoring: how the labelled clips are scored that were left out.
    """

    right: Tensor
    """Share of right ones among the labelled clips that were left out; nan until that is known."""

    def __init__(
        self,
        encoder: ClipEncoder,
        labels: SoftLabels,
        matched: Sequence[tuple[Tensor, float]],
        waves: ClipCache,
        config: SelftrainConfig,
        scoring: ScoringConfig,
    ) -> None:
        super().__init__()
        self.clip_encoder, self.config = encoder, config
        self.augment = encoder.augmentation(config.augment)
        self.labels, self.waves = labels, waves
        self.cut, self.pool = (
            Cut(encoder.audio.crop_samples, scoring.num_crops),
            POOLINGS[scoring.pooling],
        )
        width, num_classes = encoder.embedding_dim, labels.said.shape[2]
        self.head = LinearClassifier(width, num_classes)
        self.fold_heads = LinearClassifier(width, num_classes * (len(labels.said) - 1))
        self.matching = Matching(width, matched)
        self.register_buffer("right", torch.tensor(float("nan")))
        self._told = False

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """In the first of the last epochs, try the student on the clips that were left out."""
        first = self._first_told
        self._told = epoch >= first
        if epoch == first and epoch and len(self.labels.said) > 1:
            self.right.fill_(self._try())
        return {}

    @property
    def _first_told(self) -> int:
        """The first of the epochs that see the labelled clips' labels."""
        if len(self.labels.clips) > MOST_LEFT_OUT * len(self.labels.folds):
            return 0
        epochs, share = self.config.epochs, self.config.supervised_fraction
        return epochs - max(1, round(epochs * share)) if share else epochs

    @torch.no_grad()
    def _try(self) -> float:
        """Accuracy of every fold's head on the clips of its fold."""
        self.eval()
        windows = on_device(
            self.waves.even_windows(self.labels.clips.numpy(), self.cut), self.right.device
        )
        scores = self.pool(
            self.fold_heads(self.clip_encoder.embed_windows(windows.samples)), windows.counts
        ).cpu()
        self.train()
        by_fold = scores.reshape(len(scores), len(self.labels.said) - 1, -1)
        fold = self.labels.folds[self.labels.clips].long()
        guess = by_fold[torch.arange(len(scores)), fold].argmax(1)
        return float((guess == self.labels.ids).float().mean())

    def forward(self, batch: training.Batch) -> Tensor:
        clip, samples = batch["clip"].cpu(), batch["samples"]
        if self._told:
            pick = torch.randint(len(self.labels.clips), (max(1, len(clip) // LABELLED_SHARE),))
            clip = torch.cat([clip, self.labels.clips[pick]])
            samples = torch.cat([samples, self._windows(self.labels.clips[pick]).to(samples)])
        spectrogram = self.clip_encoder.spectrogram(samples)
        share, partner = self._partners(len(clip))
        mixed = _mix_powers(spectrogram, share.to(spectrogram.device), partner)
        features = self.clip_encoder.encode(self.augment(mixed)).clip
        loss = self._label_loss(features, clip, share, partner)
        if self.matching.matched:
            apart = self.matching(features, clip, share, partner).mean()
            loss = loss + self.config.feature_weight * apart
        if self.config.consistency_weight:
            agree = self._consistency(spectrogram, features)
            loss = loss + self.config.consistency_weight * agree
        return loss

    def _windows(self, clips: Tensor) -> Tensor:
        """A random window of each labelled clip."""
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return torch.from_numpy(
            self.waves.random_windows(clips.numpy(), self.cut.num_samples, rng)
        )

    def _partners(self, count: int) -> tuple[Tensor, Tensor]:
        """How much (B,) of which other clip (B,) is mixed into each."""
        return self.config.mix * torch.rand(count), torch.randperm(count)

    def _targets(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """What every head is to say (1 + K, B, C) of clips, and how much that counts (1 + K, B)."""
        labels = self.labels
        target = labels.said[:, clip].clone()
        weight = torch.ones(target.shape[:2]) * self.config.label_weight
        place = torch.searchsorted(labels.clips, clip).clamp_max(len(labels.clips) - 1)
        known = labels.clips[place] == clip
        target[0, known] = functional.one_hot(
            labels.ids[place[known]], target.shape[2]
        ).to(target)
        weight[0, known] = float(self._told)
        # A fold's head is not told the clips of its fold, of which the probes say the truth.
        heads = torch.arange(1, len(weight))[:, None]
        weight[1:][labels.folds[clip][None].long() == heads - 1] = 0
        return target, weight

    def _label_loss(
        self, features: Tensor, clip: Tensor, share: Tensor, partner: Tensor
    ) -> Tensor:
        """Cross-entropy of the head, and of the folds' heads, which move nothing else."""
        target, weight = self._targets(clip)
        target = torch.lerp(target, target[:, partner], share[:, None])
        weight = torch.minimum(weight, weight[:, partner])
        scores = torch.cat([self.head(features), self.fold_heads(features.detach())], 1).float()
        scores = scores.reshape(len(clip), len(target), -1).transpose(0, 1)
        loss = -(target.to(scores) * scores.log_softmax(2)).sum(2) * weight.to(scores)
        return loss.mean(1).sum()

    def _consistency(self, spectrogram: Tensor, features: Tensor) -> Tensor:
        """Cross-entropy of augmented clips against what the head is sure of in the plain ones."""
        with torch.no_grad():
            sure = self.head(self.clip_encoder.encode(spectrogram).clip).float().softmax(1)
        probability, guess = sure.max(1)
        loss = functional.cross_entropy(self.head(features).float(), guess, reduction="none")
        return (loss * (probability >= self.config.consistency_threshold)).mean()


def _mix_powers(spectrogram: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """Log-mel (B, F, T) of the clips' powers with a share (B,) of their partners' (B,)."""
    powers = spectrogram.exp()
    return torch.lerp(powers, powers[partner], share[:, None, None]).log_()
