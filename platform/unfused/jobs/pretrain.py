"""One teacher: an encoder and an objective on unlabelled clips.

Axes: B clips, S samples, F mel bands, T frames, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unfused import data, objectives, training
from unfused.audio.augment import Views
from unfused.config import EncoderConfig, PretrainConfig
from unfused.data import PartFacts, read_embeddings
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Artifact, Folder


@dataclass(frozen=True)
class PretrainJob:
    """One teacher."""

    node: str
    clips: Artifact[PartFacts]
    features: tuple[Artifact, ...]
    """Embeddings of the clips that the objective learns."""
    encoder: EncoderConfig
    config: PretrainConfig
    out: Folder
    checkpoints: Folder

    def run(self, worker: training.Worker) -> training.Fitted:
        """How the epochs went."""
        config = self.config.settled(data.num_clips(self.clips))
        torch.manual_seed(config.seed)
        total = data.num_clips(self.clips)
        rows = data.rank_rows(total, worker.rank, worker.world)
        encoder = ClipEncoder.for_part(self.clips.facts, self.encoder)
        features = tuple(map(all_rows, self.features))
        learner = PretrainLearner(encoder, config, rows, total, features)
        samples = encoder.audio.crop_samples
        stream = worker.stream(self.clips, num_samples=samples, training=config)
        fitted = worker.fit(
            learner, stream, config, node=self.node, checkpoints=self.checkpoints
        )
        if worker.is_first:
            encoder.save(self.out)
        return fitted


def all_rows(embeddings: Artifact) -> Tensor:
    """The embeddings (N, P) of all clips, float16."""
    rows = [torch.from_numpy(values).half() for _, values in read_embeddings(embeddings.folder)]
    return torch.cat(rows)


class PretrainLearner(training.Learner):
    """The views of every clip, an encoder and an objective."""

    def __init__(
        self,
        encoder: ClipEncoder,
        config: PretrainConfig,
        rows: range,
        num_clips: int,
        features: tuple[Tensor, ...] = (),
    ) -> None:
        super().__init__()
        self.clip_encoder = encoder
        self.views = encoder.augmentation(config.augment, Views)
        setting = objectives.Setting(encoder, rows, num_clips, config.seed, features)
        self.objective = objectives.build(config.objective, setting)

    @property
    def needs_initial_pass(self) -> bool:  # type: ignore[override]
        return self.objective.needs_initial_pass

    def forward(self, batch: training.Batch) -> Tensor:
        spectrogram = self.clip_encoder.spectrogram(batch["samples"])
        views = self.views(spectrogram) if self.objective.num_views == 2 else (spectrogram,)
        encoded = self.objective.encode(self.clip_encoder, *views)
        return self.objective(*(rows.float() for rows in encoded), batch["clip"])

    def observe(self, batch: training.Batch) -> None:
        features = self.clip_encoder(batch["samples"]).clip
        self.objective.observe(features.float(), batch["clip"])

    def start_epoch(self, epoch: int) -> dict[str, float]:
        return self.objective.start_epoch(epoch)

    def after_step(self, progress: float) -> None:
        self.objective.after_step(self.clip_encoder, progress)
