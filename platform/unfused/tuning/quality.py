"""How good a trial's student is, judged from outside the stages that train it.

The rule of this room: a stage that must not see labels does not see them here either. What is
judged is read back from the store: a checkpoint between two epochs, artifacts at the end.

Axes: n clips, S samples, D embedding, N classes, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfused import clustering, data, training
from unfused.arms import Arm
from unfused.audio.samples import Cut, Windows
from unfused.config import Config
from unfused.data import draw_labels, label_ids, truth_in
from unfused.jobs.distill import heads_file, student_heads
from unfused.jobs.finetune import Standardize
from unfused.models import weights
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import on_device
from unfused.pipeline import Plan, Ref
from unfused.precision import autocast
from unfused.store import Artifact, Folder

MAX_CLIPS = 1024
"""A judgement looks at no more clips than this, evenly spaced over a part,"""
MAX_BYTES = 256 * 2**20
"""nor at more windows than this, were all clips as long as the longest."""
BATCH_CLIPS = 128
CPU = torch.device("cpu")
RIDGE = 0.1
"""L2 penalty of the probe, as a share of the mean squared norm of its features."""


class Probe:
    """Validation accuracy of a quick linear probe on a half-trained student.

    One draw of the few labels and the validation clips are read once; a probe is then an embedding
    of both and one ridge regression, the same for every trial whatever its loss means.

    Args:
        plan: of the trial, with ingested clips.
        prefix: of the repetition whose student is probed.
        arm: whose student it is.
    """

    def __init__(self, plan: Plan, prefix: str, arm: Arm) -> None:
        config = plan.request.config
        self.config = config
        inputs = plan.steps[f"{prefix}{arm.classifier}"].node.inputs
        self.clips, labels = plan.artifact(inputs["clips"]), plan.artifact(inputs["labels"])
        scored = plan.steps[f"{prefix}{arm.scores('valid')}"].node.inputs
        valid, valid_labels = plan.artifact(scored["clips"]), plan.artifact(scored["labels"])
        ids = label_ids(labels)
        chosen = draw_labels(ids, config.finetune, 0)
        self.cut = Cut(self.clips.facts.audio.crop_samples, config.finetune.num_crops)
        some = spread(valid, self.cut)
        self.num_classes = len(labels.facts.classes)
        self.windows = self._windows(self.clips, chosen), self._windows(valid, some)
        self.targets = ids[chosen], truth_in(labels.facts.classes, valid_labels)[some]

    def _windows(self, part: Artifact, indices: np.ndarray) -> Windows[Tensor]:
        return on_device(data.windows_of(part, indices, self.cut), CPU)

    def score(self, checkpoints: Folder) -> float | None:
        """Accuracy in [0, 1] of the newest checkpoint; None where it has just been replaced."""
        encoder = ClipEncoder.for_part(self.clips.facts, self.config.student)
        state = training.Checkpoints(checkpoints).newest_model()
        if state is None:
            return None
        name = "clip_encoder."
        mine = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
        encoder.load_state_dict(mine)
        head = LinearClassifier(1, 1, self.config.finetune.power)
        precision = self.config.embed.precision
        few, valid = (
            head.normalize(embed(encoder, windows, precision)) for windows in self.windows
        )
        scale = Standardize.of(few)
        weight = ridge(scale(few), torch.from_numpy(self.targets[0]).long(), self.num_classes)
        guess = (add_bias(scale(valid)) @ weight).argmax(1).numpy()
        return float((guess == self.targets[1]).mean())


def spread(part: Artifact, cut: Cut) -> np.ndarray:
    """Indices of some clips of a part, evenly spaced, as many as are looked at."""
    total = data.num_clips(part)
    most = min(total, MAX_CLIPS, data.clips_within(MAX_BYTES, part, cut))
    return np.unique(np.linspace(0, total - 1, most).round().astype(int))


@torch.inference_mode()
def embed(
    encoder: ClipEncoder, windows: Windows[Tensor], precision: str, layer: str = "last"
) -> Tensor:
    """Embeddings (n, D) of the windows of n clips."""
    with autocast(CPU, precision):
        return encoder.eval().embed(windows, layer)


def add_bias(features: Tensor) -> Tensor:
    """(n, D) -> (n, D + 1) with a column of ones."""
    return torch.cat([features, torch.ones(len(features), 1)], 1)


def ridge(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Least squares on one-hot targets with an L2 penalty, in its dual form: (D + 1, N)."""
    x = add_bias(features)
    gram = x @ x.T
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() * len(x) ** 0.5)
    return x.T @ torch.linalg.solve(gram, functional.one_hot(targets, num_classes).float())


class Judge:
    """Scores of finished students that look at no label (see `metrics`).

    Made for one trial after the other: what it has read for the last one, and pseudo-labels of the
    same clusters, serve the next.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, Any]] = {}

    def scores(self, plan: Plan, student: str) -> dict[str, float]:
        """Of the node `student` of a plan that is built."""
        config = plan.request.config
        node = plan.steps[student].node
        clips, trained = plan.artifact(node.inputs["clips"]), plan.artifact(Ref(student))
        encoder = ClipEncoder.load(trained.folder)
        cut = Cut(clips.facts.audio.crop_samples, config.embed.num_crops)
        windows = self._windows("train", clips, cut)
        embedding = embed(encoder, windows, config.embed.precision)
        scores = {
            "effective_rank": effective_rank(embedding),
            "cluster_stability": cluster_stability(embedding.numpy(), config),
            "student_parameters": float(sum(p.numel() for p in encoder.encoder.parameters())),
        }
        valid = held_out(plan, node.inputs["clips"])
        if valid is None or "clusters" not in node.inputs:
            # Clips that a teacher from outside did not embed have no pseudo-labels here.
            return scores
        windows = self._windows("valid", valid, cut)
        name = node.inputs["clusters"]
        clusters = plan.artifact(name)
        same = f"{valid.folder.uri} {clusters.folder.uri}"
        labels = self._once("labels", same, lambda: pseudo_labels(plan, name, windows))
        heads = student_heads(encoder, clusters, config.distill)
        weights.load(heads, trained.folder.read(heads_file(1)))
        loss = held_out_loss(encoder, heads, windows, labels, config.distill.precision)
        return {**scores, "held_out_loss": loss}

    def _windows(self, role: str, part: Artifact, cut: Cut) -> Windows[Tensor]:
        """Windows of some clips of a part."""

        def read() -> Windows[Tensor]:
            return on_device(data.windows_of(part, spread(part, cut), cut), CPU)

        return self._once(role, f"{part.folder.uri} {cut}", read)

    def _once(self, role: str, key: str, make: Callable[[], Any]) -> Any:
        """What was last made for a role, if that was under the same key."""
        if self._last.get(role, ("", None))[0] != key:
            self._last[role] = (key, make())
        return self._last[role][1]


def held_out(plan: Plan, train: Ref) -> Artifact | None:
    """The validation clips beside the training clips `train`, if the task has any."""
    valid = Ref(train.node, "valid")
    return plan.artifact(valid) if valid.part in plan.steps[train.node].facts.parts else None


def effective_rank(embedding: Tensor) -> float:
    """exp of the entropy of the normalised singular values, in [1, min(n, D)].

    RankMe (Garrido et al., ICML 2023).
    """
    x = embedding.double()
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * torch.log(share + 1e-12)).sum()))


def cluster_stability(embedding: np.ndarray, config: Config) -> float:
    """Normalised mutual information, in [0, 1], of two clusterings that differ in their seed."""
    from sklearn.metrics import normalized_mutual_info_score

    settings = config.cluster
    whitening = clustering.Whitening.fit(
        clustering.Moments.of(embedding),
        num_components=settings.num_components or None,
        whiten=settings.whiten,
        normalize=settings.normalize,
    )
    x = whitening.transform(embedding)
    wanted = settings.num_clusters if isinstance(settings.num_clusters, int) else 64
    labels = []
    for seed in (settings.seed, settings.seed + 1):
        found = clustering.get("torch")(
            x,
            num_clusters=min(wanted, len(x) // 2),
            num_iterations=settings.num_iterations,
            seed=seed,
            num_init=1,
        )
        labels.append(clustering.ClusterModel(whitening, found.centroids).label(embedding)[0])
    return float(normalized_mutual_info_score(*labels))


def pseudo_labels(plan: Plan, clusters: Ref, windows: Windows[Tensor]) -> np.ndarray:
    """Clusters (n,) of new clips: the teacher that was clustered, its whitening, its centroids."""
    embedded = plan.steps[clusters.node].node.inputs["embeddings"]
    teacher = plan.steps[embedded.node].node.inputs["teacher"]
    encoder = ClipEncoder.load(plan.artifact(teacher).folder)
    data = plan.artifact(clusters).folder.read("clusters.safetensors")
    model = clustering.ClusterModel.from_bytes(data)
    layer = plan.artifact(embedded).facts.layer
    precision = plan.request.config.embed.precision
    return model.label(embed(encoder, windows, precision, layer).numpy())[0]


@torch.inference_mode()
def held_out_loss(
    encoder: ClipEncoder,
    heads: torch.nn.Module,
    windows: Windows[Tensor],
    labels: np.ndarray,
    precision: str = "float32",
) -> float:
    """Mean cross-entropy of the deep head on every window of n new clips, divided by log K."""
    encoder.eval()
    with autocast(CPU, precision):
        deep = [heads(encoder(some)).deep.float() for some in windows.samples.split(BATCH_CLIPS)]
    logits = torch.cat(deep)
    targets = torch.from_numpy(labels).long().repeat_interleave(windows.counts)
    loss = functional.cross_entropy(logits, targets)
    return float(loss) / math.log(logits.shape[1])
