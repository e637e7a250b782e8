"""Pretrain: teach an encoder from unlabelled clips with one of the objectives.

Axes: B clips, S samples, F mel bands, T frames, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unfused import objectives, shards, training
from unfused.audio.augment import Views
from unfused.config import ConfigError, EncoderConfig, PretrainConfig
from unfused.models.clip_encoder import ClipEncoder
from unfused.runtime import Cluster
from unfused.stages import Build, Facts, training_needs
from unfused.store import Artifact, Folder

needs = training_needs


def check(config: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a corpus that the objective cannot learn from.

    Raises:
        ConfigError: with the remedy.
    """
    pretrain: PretrainConfig = config["pretrain"]
    clips = sum(parts["clips"]["shards"])
    if clips < 2:
        raise ConfigError(f"Pretraining needs at least 2 unlabelled clips; there are {clips}.")
    if pretrain.objective == "decar_v2" and pretrain.num_prototypes > clips:
        raise ConfigError(
            f"pretrain.num_prototypes={pretrain.num_prototypes} is more than the {clips} unlabelled"
            f" clips; set it to {max(2, clips // 4)} or less, or give a larger --corpus."
        )


def run(builds: Sequence[Build], cluster: Cluster) -> list[Facts]:
    jobs = [
        PretrainJob(
            build.node,
            build.inputs["clips"],
            build.config["encoder"],
            build.config["pretrain"],
            build.out,
            build.checkpoints,
        )
        for build in builds
    ]
    return cluster.session.run(jobs)


@dataclass(frozen=True)
class PretrainJob:
    """One teacher."""

    node: str
    clips: Artifact
    encoder: EncoderConfig
    config: PretrainConfig
    out: Folder
    checkpoints: Folder

    def run(self, worker: training.Worker) -> Facts:
        torch.manual_seed(self.config.seed)
        total = shards.num_clips(self.clips)
        rows = shards.rank_rows(total, worker.rank, worker.world)
        encoder = ClipEncoder.for_part(self.clips.facts, self.encoder)
        learner = PretrainLearner(encoder, self.config, rows, total)
        samples = encoder.audio.crop_samples
        stream = worker.stream(self.clips, num_samples=samples, training=self.config)
        began = time.perf_counter()
        metrics = worker.fit(
            learner, stream, self.config, node=self.node, checkpoints=self.checkpoints
        )
        if worker.is_first:
            encoder.save(self.out)
        return {"num_clips": total, **metrics, "own_seconds": time.perf_counter() - began}


class PretrainLearner(training.Learner):
    """Two views of every clip, an encoder and an objective."""

    def __init__(
        self, encoder: ClipEncoder, config: PretrainConfig, rows: range, num_clips: int
    ) -> None:
        super().__init__()
        self.clip_encoder = encoder
        self.views = encoder.augmentation(config.augment, Views)
        self.objective = objectives.build(
            config.objective,
            embedding_dim=encoder.settings.embedding_dim,
            rows=rows,
            num_clips=num_clips,
            options=config,
        )

    @property
    def needs_initial_pass(self) -> bool:  # type: ignore[override]
        return self.objective.needs_initial_pass

    def forward(self, batch: training.Batch) -> Tensor:
        first, second = self.views(self.clip_encoder.spectrogram(batch["samples"]))
        with torch.set_grad_enabled(self.objective.symmetric and torch.is_grad_enabled()):
            one = self.clip_encoder.encode(first).clip
        two = self.clip_encoder.encode(second).clip
        return self.objective(one.float(), two.float(), batch["clip"])

    def observe(self, batch: training.Batch) -> None:
        features = self.clip_encoder(batch["samples"]).clip
        self.objective.observe(features.float(), batch["clip"])

    def start_epoch(self, epoch: int) -> dict[str, float]:
        return self.objective.start_epoch(epoch)

    def rank_state(self) -> dict[str, Tensor]:
        return {**self.objective.rank_state(), **self.views.rank_state()}

    def load_rank_state(self, states: list[dict[str, Tensor]]) -> None:
        self.objective.load_rank_state(states)
        self.views.load_rank_state(states)
