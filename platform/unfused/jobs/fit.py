"""One arm's scorers without an encoder: fitted to the clips of every draw of the labels.

The draws share out over the workers, as those of fine-tuning do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from unfused import training
from unfused.config import DrawConfig, ScorerConfig
from unfused.config.choices import plugin
from unfused.data import LabelFacts, PartFacts, all_draws, label_ids
from unfused.distributed import sum_over_ranks
from unfused.jobs.finetune import labelled_clips
from unfused.scorers import ScorerFacts, measured
from unfused.store import Artifact, Folder


@dataclass(frozen=True)
class FitJob:
    """One arm: a scorer for every draw."""

    node: str
    clips: Artifact[PartFacts]
    labels: Artifact[LabelFacts]
    config: ScorerConfig
    draw: DrawConfig
    out: Folder

    def run(self, worker: training.Worker) -> ScorerFacts:
        """What the scorers are."""
        ids, classes = label_ids(self.labels), self.labels.facts.classes
        draws = all_draws(ids, self.draw)
        labelled = labelled_clips(worker, self.clips, ids, draws)
        fit = plugin(self.config.room, self.config.kind).fit
        right = torch.zeros(len(draws))
        for repeat in range(worker.rank, len(draws), worker.world):
            waves = [labelled.clips[i] for i in draws[repeat]]
            rate = self.clips.facts.audio.sample_rate
            fitted = fit(self.config, waves, ids[draws[repeat]], len(classes), rate)
            fitted.save(self.out, repeat)
            right[repeat] = getattr(fitted, "cross_validated", math.nan)
        right = sum_over_ranks(right.to(worker.device)).tolist()
        return ScorerFacts(
            kind=self.config.kind,
            classes=classes,
            num_repeats=len(draws),
            num_labels=len(draws[0]),
            num_validation_labels=0,
            cross_validated=measured(right),
        )
