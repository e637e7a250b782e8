"""Labels that spread over neighbours: what the clips without a label tell of those with one.

Every clip is joined to those whose embeddings are nearest, and hands on what it is told until
nothing changes (Zhou et al., "Learning with local and global consistency", NIPS 2003). Where clips
of a class lie in strands that no line divides, as words of several speakers do, this is right far
more often than a probe; where they do not it is worth nothing, which trust finds out.

Axes: N training clips, M of them that are joined, B clips, D embedding, P components, k neighbours,
C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from unfused.probing.probe import mean_and_deviation

if TYPE_CHECKING:
    from scipy import sparse

NUM_COMPONENTS = 128
"""Principal components in which clips are near each other, of embeddings that have more."""
MAX_CLIPS = 10_000
"""That are joined; others hear what those say that are nearest."""
KEPT = 0.9
"""Share that a clip takes from its neighbours in a step; the rest is its own label (alpha)."""
ITERATIONS = 50
"""Steps; what is missing then of the limit is .9 to the fiftieth."""
STEEPNESS = 2.0
"""A neighbour as far off as the k-th one is on average counts exp(-2)."""
AT_ONCE = 1024
"""Clips whose neighbours are sought in one product."""


@dataclass(frozen=True)
class Near:
    """The neighbours of clips.

    Attributes:
        places: (B, k) among the joined clips.
        weights: (B, k), 1 in all for each clip.
    """

    places: np.ndarray
    weights: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> Near:
        return Near(self.places[rows], self.weights[rows])

    def average(self, said: np.ndarray) -> np.ndarray:
        """What the joined clips say (..., M, C), as these clips hear it (..., B, C)."""
        total = 0.0
        for number in range(self.places.shape[1]):
            share = self.weights[:, number, None]
            total = total + share * said[..., self.places[:, number], :].astype(np.float32)
        return total


@dataclass(frozen=True)
class Neighbours:
    """Joined clips, by one teacher's embeddings.

    Attributes:
        mean: (D,) of them.
        basis: (D, P), from embeddings less their mean to components.
        rows: (M, P) float16, of length 1.
        reach: mean distance of the k-th neighbour.
        count: k.
    """

    mean: np.ndarray
    basis: np.ndarray
    rows: np.ndarray
    reach: float
    count: int

    @classmethod
    def of(cls, embeddings: np.ndarray, count: int) -> Neighbours:
        """Clips (M, D) joined to `count` others each, or to all where there are fewer."""
        count = min(count, len(embeddings) - 1)
        mean, std = mean_and_deviation(embeddings)
        scale = 1 / std
        basis = _principal((embeddings - mean) * scale) * scale[:, None]
        # Contiguous, for safetensors writes an array as it lies in memory.
        basis = np.ascontiguousarray(basis, np.float32)
        rows = _unit((embeddings - mean) @ basis)
        far = np.concatenate([far[:, -1] for _, far in _nearest(rows, rows, count + 1)])
        return cls(mean, basis, rows.astype(np.float16), max(float(far.mean()), 1e-6), count)

    def near(self, embeddings: np.ndarray) -> Near:
        """The neighbours of clips (B, D); a joined clip is its own nearest one."""
        rows, units = self.rows.astype(np.float32), _unit((embeddings - self.mean) @ self.basis)
        places, weights = [], []
        for some, far in _nearest(units, rows, self.count):
            weight = self._weight(far)
            places.append(some.astype(np.int32))
            weights.append((weight / weight.sum(1, keepdims=True)).astype(np.float32))
        return Near(np.concatenate(places), np.concatenate(weights))

    def spread(self, told: np.ndarray) -> np.ndarray:
        """What every joined clip is taken for once all have handed on what they are told.

        Args:
            told: (M, C) float32, one-hot labels, zeros for a clip that is told none.

        Returns:
            (M, C) probabilities; the same for all classes where nothing arrives.
        """
        heard = told
        for _ in range(ITERATIONS):
            heard = KEPT * (self._joined @ heard) + (1 - KEPT) * told
        found = heard + 1e-12
        return found / found.sum(1, keepdims=True)

    def arrays(self) -> dict[str, np.ndarray]:
        settings = np.array([self.reach, self.count], np.float32)
        return {"mean": self.mean, "basis": self.basis, "rows": self.rows, "settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Neighbours:
        reach, count = arrays["settings"].tolist()
        return cls(arrays["mean"], arrays["basis"], arrays["rows"], reach, int(count))

    def _weight(self, far: np.ndarray) -> np.ndarray:
        return np.exp(-STEEPNESS * (far / self.reach) ** 2) + 1e-12

    @cached_property
    def _joined(self) -> sparse.csr_matrix:
        """The normalised adjacency (M, M): joined are two of which one is near the other."""
        from scipy import sparse

        clips, rows = len(self.rows), self.rows.astype(np.float32)
        found = list(_nearest(rows, rows, self.count + 1))
        to = np.concatenate([places for places, _ in found]).ravel()
        weight = self._weight(np.concatenate([far for _, far in found])).ravel()
        fro = np.repeat(np.arange(clips), len(to) // clips)
        weight[to == fro] = 0
        table = sparse.csr_matrix((weight, (fro, to)), shape=(clips, clips))
        table = table.maximum(table.T)
        degree = np.asarray(table.sum(1)).ravel()
        scale = sparse.diags(1 / np.sqrt(np.maximum(degree, 1e-12)))
        return (scale @ table @ scale).tocsr().astype(np.float32)


def _nearest(
    units: np.ndarray, rows: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of some clips (B, P) after others the places (b, count) of the nearest of `rows` (M, P), near
    ones first, and how far (b, count) those are; all are of length 1."""
    for begin in range(0, len(units), AT_ONCE):
        same = units[begin : begin + AT_ONCE].astype(np.float32) @ rows.T.astype(np.float32)
        some = np.argpartition(-same, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(same, some, 1)
        order = np.argsort(-found, axis=1, kind="stable")
        far = np.sqrt(np.maximum(2 - 2 * np.take_along_axis(found, order, 1), 0))
        yield np.take_along_axis(some, order, 1), far


def _unit(rows: np.ndarray) -> np.ndarray:
    """(B, P), each of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _principal(scaled: np.ndarray) -> np.ndarray:
    """The directions (D, P) in which centred rows (M, D) differ most; all, where they are few."""
    from sklearn.utils.extmath import randomized_svd

    width = scaled.shape[1]
    if width <= NUM_COMPONENTS:
        return np.eye(width)
    wanted = min(NUM_COMPONENTS, len(scaled) - 1)
    return randomized_svd(scaled, wanted, random_state=0)[2].T


@dataclass(frozen=True)
class Spread:
    """A classifier of embeddings: what the nearest joined clips were taken for.

    Attributes:
        neighbours: the joined clips.
        said: (M, C) float16 what each was taken for.
    """

    neighbours: Neighbours
    said: np.ndarray

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (B, D) to class probabilities (B, C)."""
        return self.neighbours.near(embeddings).average(self.said)
