"""One arm's classifiers: from an encoder and the few labels, once for every draw of them.

The draws share out over jobs and workers, each draw whole on one of them, so that the result does
not depend on how many there are.

Axes: n labelled clips, W windows of them, B clips, S samples, D embedding, N classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unfused import data, precision, probing, training
from unfused.audio.samples import Cut
from unfused.config import EncoderConfig, FinetuneConfig, num_steps
from unfused.data import LabelFacts, Labelled, PartFacts, all_draws, label_ids, truth_in
from unfused.distributed import sum_over_ranks
from unfused.events import Progress
from unfused.models import pooling
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import POOLINGS, on_device
from unfused.probing import Folds
from unfused.scorers import OfDraws, ScorerFacts
from unfused.store import Artifact, Folder

EMBED_CLIPS = 32
"""Whose windows are in memory at a time: 2,048 at most."""


def encoder_epochs(num_clips: int, config: FinetuneConfig) -> int:
    """Passes over `num_clips` drawn clips that train everything: few clips many, many clips few."""
    steps = num_steps(num_clips, config.batch_size)
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
    repeats: Sequence[int]
    """The draws that this job trains."""

    def run(self, worker: training.Worker) -> OfDraws:
        """What the classifiers are, and how right those of its draws."""
        ids = label_ids(self.labels)
        draws = all_draws(ids, self.config)
        right = torch.zeros(len(draws))
        for repeat in self.repeats[worker.rank :: worker.world]:
            labelled = labelled_clips(worker, self.clips, ids, draws)
            right[repeat] = self._train(worker.alone(), repeat, labelled, draws[repeat])
            worker.emit(Progress(self.node, 1, len(draws), "draws", part=repeat))
        right = sum_over_ranks(right.to(worker.device))
        return self._facts(draws), {repeat: float(right[repeat]) for repeat in self.repeats}

    def _train(
        self, worker: training.Worker, repeat: int, labelled: Labelled, chosen: np.ndarray
    ) -> float:
        """Train and write one draw's classifier; its cross-validated accuracy, or nan."""
        draw = _Draw(self, worker, repeat, labelled, chosen)
        right = self._cross_validated(draw) if self.config.num_folds else math.nan
        draw.train()
        return right

    def _cross_validated(self, draw: _Draw) -> float:
        """Accuracy on labelled clips that are left out: of a probe on the frozen encoder, where
        there is a trained one (what is fine-tuned from it is hardly worse), else of encoders that
        are trained without them; nan where none can be left out."""
        chosen, ids = draw.chosen, draw.labelled.ids[draw.chosen]
        folds = Folds.of(ids, self.config.num_folds, num_repeats=1, seed=draw.repeat)
        if folds.first is None:
            return math.nan
        if self.config.mode != "full":
            rows = pooling.mean(*draw.frozen).cpu().numpy()
            found = probing.fit(rows, ids, len(self.labels.facts.classes), folds)
            return float(found.accuracy or 0.0)
        right = 0
        for number in range(folds.first.max() + 1):
            left = folds.first == number
            one = _Draw(self, draw.worker, draw.repeat, draw.labelled, chosen[~left])
            one.fit()
            right += int((one.guess(chosen[left]) == ids[left]).sum())
        return right / len(ids)

    def _facts(self, draws: Sequence[np.ndarray]) -> ScorerFacts:
        return ScorerFacts(
            kind="linear",
            classes=self.labels.facts.classes,
            num_repeats=len(draws),
            num_labels=len(draws[0]),
            num_validation_labels=data.num_clips(self.valid) if self.valid else 0,
            num_crops=self.config.num_crops,
            crop_samples=self.cut.num_samples,
            pooling=self.config.pooling,
        )

    @property
    def cut(self) -> Cut:
        """The windows of a clip that are scored; their length suits the task."""
        return Cut(self.clips.facts.audio.crop_samples, self.config.num_crops)

    def start(self) -> ClipEncoder:
        """The encoder that every draw starts from, with the task's window from here on."""
        return task_encoder(self.clips.facts, self.encoder, self.fresh, self.config.seed)

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


def task_encoder(
    clips: PartFacts, trained: Artifact | None, fresh: EncoderConfig | None, seed: int
) -> ClipEncoder:
    """A trained encoder with the task's window from here on, or else one with random weights."""
    if trained:
        encoder = ClipEncoder.load(trained.folder)
        window = {"crop_seconds": clips.audio.crop_seconds}
        encoder.audio = encoder.audio.model_copy(update=window)
        return encoder
    torch.manual_seed(seed)
    assert fresh is not None
    return ClipEncoder.for_part(clips, fresh)


def labelled_clips(
    worker: training.Worker,
    clips: Artifact[PartFacts],
    ids: np.ndarray,
    draws: Sequence[np.ndarray],
) -> Labelled:
    """The labelled clips of all draws, streamed once for a job."""
    union = np.unique(np.concatenate(draws))
    return worker.once(
        ("labelled", clips.folder.uri, union.tobytes()),
        lambda: Labelled(data.ClipCache(clips, union), ids),
    )


class _Draw:
    """One draw of the labels: a classifier from the job's encoder, of the clips `chosen`."""

    def __init__(
        self,
        job: FinetuneJob,
        worker: training.Worker,
        repeat: int,
        labelled: Labelled,
        chosen: np.ndarray,
    ) -> None:
        self.job, self.worker, self.config, self.repeat = job, worker, job.config, repeat
        self.labelled, self.chosen, self.held_out = labelled, chosen, job.held_out(worker)
        self.encoder = job.start().to(worker.device)
        self.classes = job.labels.facts.classes
        width = self.encoder.settings.embedding_dim
        head = LinearClassifier(width, len(self.classes), self.config.power)
        self.classifier = ClipClassifier(self.encoder, head, self.classes).to(worker.device)

    def fit(self) -> None:
        """Train."""
        if self.config.mode != "full":
            self._fit_head()
        if self.config.mode != "linear":
            self._fit_all()

    @cached_property
    def frozen(self) -> tuple[Tensor, Tensor]:
        """What the head takes of the clips' windows (W, D), and how many those are (n,), before
        the encoder is trained."""
        return self._features(self.labelled, self.chosen)

    @torch.no_grad()
    def guess(self, clips: np.ndarray) -> np.ndarray:
        """The classes (n,) of labelled clips."""
        return self._scores(self.labelled, clips).argmax(1).cpu().numpy()

    def train(self) -> None:
        """Train and write the classifier."""
        self.fit()
        mode, name = self.config.mode, "encoder"
        if mode != "linear":
            name = f"encoder-{self.repeat:02d}"
        if mode != "linear" or self.repeat == 0:
            self.encoder.save(self.job.out, name)
        head = self.classifier.head
        ClipClassifier.save_head(self.job.out, self.repeat, head, self.classes, name)

    def _fit_head(self) -> None:
        """Train the head on frozen embeddings (eval mode: no dropout, fixed batch norm).

        Every window is an example, as it is when everything is trained.
        """
        head = self.classifier.head
        features, counts = self.frozen
        scale = Standardize.of(features) if self.config.standardize else Standardize.none()
        columns = {
            "features": scale(features),
            "label": self._targets().repeat_interleave(counts),
        }
        learner = HeadLearner(head.linear)
        if self.held_out:
            every = np.arange(len(self.held_out.ids))
            valid, counts = self._features(self.held_out, every)
            scaled, pool = scale(valid), POOLINGS[self.config.pooling]
            self._fit(learner, columns, self.config, lambda: pool(head.linear(scaled), counts))
        else:
            self._fit(learner, columns, self.config)
        scale.fold_into(head.linear)

    def _fit_all(self) -> None:
        """Train encoder and head on random windows of the clips."""
        learner = ClassifierLearner(self.classifier, self.labelled, self.config.seed)
        schedule = self.config.model_copy(
            update={
                "epochs": encoder_epochs(len(self.chosen), self.config),
                "learning_rate": self.config.encoder_learning_rate,
                "weight_decay": self.config.encoder_weight_decay,
            }
        )
        columns = {
            "clip": torch.from_numpy(self.chosen),
            "label": self._targets(),
        }
        if self.held_out:
            every, valid = np.arange(len(self.held_out.ids)), self.held_out
            self._fit(
                learner,
                columns,
                schedule,
                lambda: self._scores(valid, every),
            )
        else:
            self._fit(learner, columns, schedule)

    def _targets(self) -> Tensor:
        return torch.from_numpy(self.labelled.ids[self.chosen]).long().to(self.worker.device)

    def _scores(self, labelled: Labelled, indices: np.ndarray) -> Tensor:
        """The clips' scores (n, N)."""
        features, counts = self._features(labelled, indices)
        return POOLINGS[self.config.pooling](self.classifier.head.linear(features), counts)

    @torch.no_grad()
    def _features(self, labelled: Labelled, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the head's linear layer takes of the clips' windows (W, D), and how many (n,)."""
        self.encoder.eval()
        features, counts = [], []
        for some in np.array_split(indices, -(-len(indices) // EMBED_CLIPS)):
            windows = on_device(labelled.clips.even_windows(some, self.job.cut), self.worker.device)
            autocast = precision.autocast(self.worker.device, self.config.precision)
            with autocast:
                embedding = self.encoder.embed_windows(windows.samples)
            features.append(self.classifier.head.normalize(embedding))
            counts.append(windows.counts)
        return torch.cat(features), torch.cat(counts)

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
    """Zero mean and unit variance for every feature of the labelled windows (W, D).

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
        scores = self.classifier(torch.from_numpy(windows).to(batch["label"].device))
        return functional.cross_entropy(scores.float(), batch["label"])
