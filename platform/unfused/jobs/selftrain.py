"""One arm's classifiers: a student of soft labels of all training clips, once for every draw.

The probes on the trusted teachers label all clips (`stages.trust`). The student learns these labels
and, beside them, what the teachers embed. The draws share out over jobs and workers, each draw
whole on one of them, so that the result does not depend on how many there are.

Axes: N training clips, n labelled clips of a draw, C classes, P components of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unfused import data, training
from unfused.config import DrawConfig, EncoderConfig, ScoringConfig, SelftrainConfig
from unfused.data import LabelFacts, Labelled, PartFacts, all_draws, label_ids
from unfused.distributed import sum_over_ranks
from unfused.events import Progress
from unfused.jobs.features import principal
from unfused.jobs.finetune import labelled_clips, task_encoder
from unfused.jobs.selftrain_learner import SelftrainLearner, SoftLabels
from unfused.models.classifier import ClipClassifier
from unfused.probing.facts import TrustFacts, folds_file, labels_file
from unfused.scorers import OfDraws, ScorerFacts
from unfused.store import Artifact, Folder, read_npy


@dataclass(frozen=True)
class SelftrainJob:
    """One arm: a student and its classifier for every draw."""

    node: str
    clips: Artifact[PartFacts]
    labels: Artifact[LabelFacts]
    trust: Artifact[TrustFacts] | None
    """None where no probe labels the clips."""
    embeddings: Mapping[str, Artifact]
    """What the student matches, by teacher."""
    encoder: Artifact | None
    fresh: EncoderConfig
    config: SelftrainConfig
    scoring: ScoringConfig
    draw: DrawConfig
    out: Folder
    checkpoints: Folder
    repeats: Sequence[int]
    """The draws that this job trains."""

    def run(self, worker: training.Worker) -> OfDraws:
        """What the classifiers are, and how right those of its draws."""
        ids = label_ids(self.labels)
        draws = all_draws(ids, self.draw)
        labelled = labelled_clips(worker, self.clips, ids, draws)
        features = {name: principal(self.embeddings[name].folder) for name in self._heard()}
        right = torch.zeros(len(draws))
        for repeat in self.repeats[worker.rank :: worker.world]:
            right[repeat] = self._train(worker.alone(), repeat, draws[repeat], labelled, features)
        right = sum_over_ranks(right.to(worker.device))
        return self._facts(draws), {repeat: float(right[repeat]) for repeat in self.repeats}

    def _train(
        self,
        worker: training.Worker,
        repeat: int,
        chosen: np.ndarray,
        labelled: Labelled,
        features: Mapping[str, Tensor],
    ) -> float:
        """Train and write the student of one draw: its share of right ones of labelled clips that
        it was not told; nan where none could be left out."""
        config = self.config.settled(data.num_clips(self.clips))
        encoder = task_encoder(self.clips.facts, self.encoder, self.fresh, config.seed + repeat)
        known = self._known(repeat, chosen, labelled.ids[chosen])
        matched = self._matched(repeat, features)
        torch.manual_seed(config.seed + repeat)
        learner = SelftrainLearner(encoder, known, matched, labelled.clips, config, self.scoring)
        schedule = config.model_copy(update={"seed": config.seed * 1009 + repeat})
        stream = worker.stream(
            self.clips, num_samples=encoder.audio.crop_samples, training=schedule
        )

        def after_epoch(epoch: int) -> dict[str, float]:
            every = self.draw.num_repeats * config.epochs
            worker.emit(Progress(self.node, epoch + 1, every, "epochs", part=repeat))
            worker.raise_if_cancelled()
            return {}

        kept = self.checkpoints / f"draw-{repeat:02d}"
        worker.fit(
            learner,
            stream,
            schedule,
            node=self.node,
            checkpoints=kept,
            after_epoch=after_epoch,
            quiet=True,
        )
        name = f"encoder-{repeat:02d}"
        encoder.save(self.out, name)
        classes = self.labels.facts.classes
        ClipClassifier.save_head(self.out, repeat, learner.head, classes, name)
        return float(learner.right)

    def _known(self, repeat: int, chosen: np.ndarray, ids: np.ndarray) -> SoftLabels:
        """What one draw knows of the clips' classes."""
        total, classes = data.num_clips(self.clips), len(self.labels.facts.classes)
        said, folds = torch.zeros(1, total, classes), torch.full((total,), -1, dtype=torch.int8)
        if self.trust:
            folder = self.trust.folder
            said = self._sharpened(torch.from_numpy(read_npy(folder, labels_file(repeat))).float())
            folds = torch.from_numpy(read_npy(folder, folds_file(repeat)))
        return SoftLabels(said, folds, torch.from_numpy(chosen), torch.from_numpy(ids).long())

    def _sharpened(self, said: Tensor) -> Tensor:
        """Probabilities (1 + K, N, C) at the temperature, and evened out over the classes."""
        sharp = said.pow(1 / self.config.temperature)
        sharp = sharp / sharp.mean(1, keepdim=True).clamp_min(1e-6).pow(self.config.balance)
        return sharp / sharp.sum(2, keepdim=True)

    def _heard(self) -> list[str]:
        """The teachers that any draw listens to, of those that may be matched."""
        draws = self.trust.facts.draws if self.trust else []
        return [name for name in self.embeddings if any(name in draw.teachers for draw in draws)]

    def _matched(
        self, repeat: int, features: Mapping[str, Tensor]
    ) -> list[tuple[Tensor, float]]:
        """What the trusted teachers embed, and how much each counts, 1 in all."""
        if not self.trust:
            return []
        trusted = self.trust.facts.draws[repeat].teachers
        found = {name: weight for name, weight in trusted.items() if name in features}
        total = sum(found.values())
        return [(features[name], weight / total) for name, weight in found.items()]

    def _facts(self, draws: Sequence[np.ndarray]) -> ScorerFacts:
        return ScorerFacts(
            kind="linear",
            classes=self.labels.facts.classes,
            num_repeats=len(draws),
            num_labels=len(draws[0]),
            num_validation_labels=0,
            num_crops=self.scoring.num_crops,
            crop_samples=self.clips.facts.audio.crop_samples,
            pooling=self.scoring.pooling,
        )
