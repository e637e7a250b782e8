"""One arm's classifiers: from an encoder and the few labels, once for every draw of them.

The draws share out over the workers, each draw whole on one of them, so that the result does not
depend on the number of workers.

Axes: n labelled clips, B clips, C windows of a clip, S samples, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unfused import data, precision, training
from unfused.config import EncoderConfig, FinetuneConfig
from unfused.data import LabelFacts, Labelled, PartFacts, draw_labels, label_ids, truth_in
from unfused.events import Progress
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.scorers import ScorerFacts
from unfused.store import Artifact, Folder

EMBED_CLIPS = 256


def encoder_epochs(num_clips: int, config: FinetuneConfig) -> int:
    """Passes over `num_clips` drawn clips that train everything: few clips many, many clips few."""
    steps = training.num_steps(num_clips, config.batch_size)
    return max(1, min(config.encoder_epochs, config.encoder_max_steps // steps))


@dataclass(frozen=True)
class FinetuneJob:
    """One arm: its encoder, and a classifier for every draw."""

    node: str
    clips: Artifact[PartFacts]
    labels: Artifact[LabelFacts]
    encoder: Artifact | None
    fresh: EncoderConfig | None
    valid: Artifact[PartFacts] | None
    valid_labels: Artifact[LabelFacts] | None
    config: FinetuneConfig
    out: Folder

    def run(self, worker: training.Worker) -> tuple[ScorerFacts, float]:
        """What the classifiers are, and what the job took in seconds."""
        began = time.perf_counter()
        ids = label_ids(self.labels)
        draws = [draw_labels(ids, self.config, r) for r in range(self.config.num_repeats)]
        for repeat in range(worker.rank, len(draws), worker.world):
            labelled = labelled_clips(worker, self.clips, ids, draws)
            _Draw(self, worker.alone(), repeat, labelled).train(draws[repeat])
            if worker.is_first:
                worker.emit(Progress(self.node, repeat + 1, len(draws), "draws"))
        worker.wait()
        return self._facts(draws), time.perf_counter() - began

    def _facts(self, draws: Sequence[np.ndarray]) -> ScorerFacts:
        return ScorerFacts(
            kind="linear",
            classes=self.labels.facts.classes,
            num_repeats=len(draws),
            num_labels=len(draws[0]),
            num_validation_labels=data.num_clips(self.valid) if self.valid else 0,
            num_crops=self.config.num_crops,
            crop_samples=self.start().audio.crop_samples,
        )

    def start(self) -> ClipEncoder:
        """The encoder that every draw starts from."""
        if self.encoder:
            return ClipEncoder.load(self.encoder.folder)
        torch.manual_seed(self.config.seed)
        assert self.fresh is not None
        return ClipEncoder.for_part(self.clips.facts, self.fresh)

    def held_out(self, worker: training.Worker) -> Labelled | None:
        """The labelled validation clips, where the label budget has them."""
        if self.valid is None or self.valid_labels is None:
            return None
        valid, labels = self.valid, self.valid_labels
        every = np.arange(data.num_clips(valid))
        classes = self.labels.facts.classes
        return worker.once(
            ("valid", valid.folder.uri),
            lambda: Labelled(data.ClipCache(valid, every), truth_in(classes, labels)),
        )


def labelled_clips(
    worker: training.Worker,
    clips: Artifact[PartFacts],
    ids: np.ndarray,
    draws: Sequence[np.ndarray],
) -> Labelled:
    """The labelled clips of all draws, streamed once for all arms of a Ray Train run."""
    union = np.unique(np.concatenate(draws))
    return worker.once(
        ("labelled", clips.folder.uri, union.tobytes()),
        lambda: Labelled(data.ClipCache(clips, union), ids),
    )


class _Draw:
    """One draw of the labels: a classifier from the job's encoder."""

    def __init__(
        self, job: FinetuneJob, worker: training.Worker, repeat: int, labelled: Labelled
    ) -> None:
        self.job, self.worker, self.config, self.repeat = job, worker, job.config, repeat
        self.labelled, self.held_out = labelled, job.held_out(worker)
        self.encoder = job.start().to(worker.device)
        self.classes = job.labels.facts.classes
        width = self.encoder.settings.embedding_dim
        head = LinearClassifier(width, len(self.classes), self.config.power)
        self.classifier = ClipClassifier(self.encoder, head, self.classes).to(worker.device)

    def train(self, chosen: np.ndarray) -> None:
        """Train on the clips `chosen` and write the classifier."""
        mode, name = self.config.mode, "encoder"
        if mode != "full":
            self._fit_head(chosen)
        if mode != "linear":
            name = f"encoder-{self.repeat:02d}"
            self._fit_all(chosen)
        if mode != "linear" or self.repeat == 0:
            self.encoder.save(self.job.out, name)
        head = self.classifier.head
        ClipClassifier.save_head(self.job.out, self.repeat, head, self.classes, name)

    def _fit_head(self, chosen: np.ndarray) -> None:
        """Train the head on frozen embeddings (eval mode: no dropout, fixed batch norm)."""
        head = self.classifier.head
        features = head.normalize(self._embed(self.labelled, chosen))
        scale = Standardize.of(features) if self.config.standardize else Standardize.none()
        columns = {
            "features": scale(features),
            "label": self._targets(chosen),
        }
        learner = HeadLearner(head.linear)
        if self.held_out:
            every = np.arange(len(self.held_out.ids))
            valid = scale(head.normalize(self._embed(self.held_out, every)))
            self._fit(learner, columns, self.config, lambda: head.linear(valid))
        else:
            self._fit(learner, columns, self.config)
        scale.fold_into(head.linear)

    def _fit_all(self, chosen: np.ndarray) -> None:
        """Train encoder and head on random windows of the clips."""
        learner = ClassifierLearner(self.classifier, self.labelled, self.config.seed)
        schedule = self.config.model_copy(
            update={
                "epochs": encoder_epochs(len(chosen), self.config),
                "learning_rate": self.config.encoder_learning_rate,
                "weight_decay": self.config.encoder_weight_decay,
            }
        )
        columns = {
            "clip": torch.from_numpy(chosen),
            "label": self._targets(chosen),
        }
        if self.held_out:
            every, valid = np.arange(len(self.held_out.ids)), self.held_out
            self._fit(
                learner,
                columns,
                schedule,
                lambda: self.classifier.head(self._embed(valid, every)),
            )
        else:
            self._fit(learner, columns, schedule)

    def _targets(self, chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(self.labelled.ids[chosen]).long().to(self.worker.device)

    @torch.no_grad()
    def _embed(self, labelled: Labelled, indices: np.ndarray) -> Tensor:
        """Embeddings (n, D) of the clips' evenly spaced windows."""
        self.encoder.eval()
        samples, crops = self.encoder.audio.crop_samples, self.config.num_crops
        embedded = []
        for some in np.array_split(indices, -(-len(indices) // EMBED_CLIPS)):
            windows = torch.from_numpy(labelled.clips.even_windows(some, samples, crops))
            autocast = precision.autocast(self.worker.device, self.config.precision)
            with self.worker.turns, autocast:
                embedded.append(self.encoder.embed(windows.to(self.worker.device)))
        return torch.cat(embedded)

    def _fit(
        self,
        learner: training.Learner,
        columns: training.Batch,
        schedule: FinetuneConfig,
        valid_scores: Callable[[], Tensor] | None = None,
    ) -> None:
        """One fixed schedule; with validation labels the first of the best epochs is kept."""
        stream = training.CachedStream(
            columns, self.config.batch_size, self.config.seed * 1009 + self.repeat
        )
        best = _Best(learner)

        def after_epoch(epoch: int) -> dict[str, float]:
            if valid_scores is None or self.held_out is None:
                return {}
            learner.eval()
            with torch.no_grad():
                guess = valid_scores().argmax(1).cpu().numpy()
            best.offer(float((guess == self.held_out.ids).mean()))
            return {}

        self.worker.fit(
            learner,
            stream,
            schedule,
            node=self.job.node,
            after_epoch=after_epoch,
            quiet=True,
        )
        best.restore()


class _Best:
    """The weights that scored best so far."""

    def __init__(self, learner: training.Learner) -> None:
        self._learner, self._score = learner, -1.0
        self._state: dict[str, Tensor] | None = None

    def offer(self, score: float) -> None:
        if score > self._score:
            self._score = score
            state = self._learner.state_dict()
            self._state = {name: tensor.clone() for name, tensor in state.items()}

    def restore(self) -> None:
        if self._state is not None:
            self._learner.load_state_dict(self._state)


@dataclass(frozen=True)
class Standardize:
    """Zero mean and unit variance for every feature of the labelled clips (n, D).

    The usual affine-free batch norm in front of a linear probe, folded into the head afterwards, so
    that the classifier stays an encoder and one linear layer.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Standardize:
        spread = features.std(0, correction=0)
        return cls(features.mean(0), spread.clamp_min(1e-3 * float(spread.mean()) + 1e-8))

    @classmethod
    def none(cls) -> Standardize:
        """Leave features as they are."""
        return cls(torch.zeros(()), torch.ones(()))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    @torch.no_grad()
    def fold_into(self, linear: nn.Linear) -> None:
        linear.weight.div_(self.std)
        linear.bias.sub_((linear.weight * self.mean).sum(dim=1))


class HeadLearner(training.Learner):
    """A linear layer on fixed features."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, batch: training.Batch) -> Tensor:
        return functional.cross_entropy(self.linear(batch["features"]), batch["label"])


class ClassifierLearner(training.Learner):
    """Encoder and head on random windows of the labelled clips."""

    def __init__(self, classifier: ClipClassifier, labelled: Labelled, seed: int) -> None:
        super().__init__()
        self.classifier, self._clips = classifier, labelled.clips
        self._rng = np.random.default_rng(seed)

    def forward(self, batch: training.Batch) -> Tensor:
        samples = self.classifier.encoder.audio.crop_samples
        windows = self._clips.random_windows(batch["clip"].numpy(), samples, self._rng)
        scores = self.classifier(torch.from_numpy(windows)[:, None].to(batch["label"].device))
        return functional.cross_entropy(scores.float(), batch["label"])
