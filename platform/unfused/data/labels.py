"""The few labels: what a labelled split says of itself, and which of its labels are looked at.

The rule of this file: a draw depends on the labels and on (seed, repeat, class) alone, so that it
is the same for every arm.

Axes: N clips of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfused.config import DrawConfig
from unfused.data.cache import ClipCache
from unfused.store import Artifact, Facts, read_npy


class LabelFacts(Facts):
    """Of the labels of one split."""

    digest: str
    classes: list[str]
    """The label map: a class's id is its place."""
    counts: dict[str, int]
    """Clips of each class."""


def label_ids(labels: Artifact[LabelFacts]) -> np.ndarray:
    """The class (N,) of every clip of a split."""
    return read_npy(labels.folder, "labels.npy")


def truth_in(classes: Sequence[str], labels: Artifact[LabelFacts]) -> np.ndarray:
    """The clips' labels (N,) as ids of a classifier's own label map."""
    to_classifier = np.array([classes.index(name) for name in labels.facts.classes])
    return to_classifier[label_ids(labels)]


def draw_labels(labels: np.ndarray, config: DrawConfig, repeat: int) -> np.ndarray:
    """Indices of the labelled clips of one draw, sorted; the same for every arm.

    Args:
        labels: (N,) class ids.
        config: how many of each class; of one that has fewer all are taken.
        repeat: number of the draw.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng((config.seed, repeat, int(label)))
        chosen.append(rng.permutation(members)[: _budget(len(members), config)])
    return np.sort(np.concatenate(chosen))


def all_draws(labels: np.ndarray, config: DrawConfig) -> list[np.ndarray]:
    """`draw_labels` of every draw."""
    return [draw_labels(labels, config, repeat) for repeat in range(config.num_repeats)]


def short_classes(counts: Mapping[str, int], config: DrawConfig) -> dict[str, int]:
    """The classes that have fewer clips than are to be drawn of each, the rarest first.

    Args:
        counts: training clips of each class.
        config: how many of each class.
    """
    short = {name: n for name, n in counts.items() if n < (config.labels_per_class or 0)}
    return dict(sorted(short.items(), key=lambda item: (item[1], item[0])))


def _budget(available: int, config: DrawConfig) -> int:
    if config.labels_per_class:
        return config.labels_per_class
    return max(1, round((config.label_fraction or 1.0) * available))


@dataclass(frozen=True)
class Labelled:
    """Clips on this worker, and the class of every clip of their split (N,)."""

    clips: ClipCache
    ids: np.ndarray
