"""What clustering leaves behind: a model that labels new clips, and a description of the clusters.

The rule of this room: k never changes silently. Clusters that end up empty are dropped by name and
counted, and only fewer than two of them is an error.

Axes: N clips, B batch, D embedding, P components, K clusters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from unfused.clustering.assign import assign
from unfused.clustering.backends import Centroids
from unfused.clustering.whitening import Whitening
from unfused.store import Facts

FORMAT = "unfused.clusters/1"
MIN_POINTS_PER_CENTROID = 39
"""Below this k-means mostly fits noise (the customary bound, from faiss)."""


@dataclass(frozen=True)
class ClusterModel:
    """Embeddings -> pseudo-labels.

    Attributes:
        whitening: fitted on the embeddings of the clips that were clustered.
        centroids: (K, P) float32, in whitened space.
    """

    whitening: Whitening
    centroids: np.ndarray

    @property
    def num_clusters(self) -> int:
        return len(self.centroids)

    def label(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (B, D) -> labels (B,) int32 and confidence (B,) float32, as in `assign`."""
        return assign(self.whitening.transform(embeddings), self.centroids)

    def keep(self, ids: np.ndarray) -> ClusterModel:
        """The model of these clusters alone, renumbered in their order."""
        return replace(self, centroids=self.centroids[ids])

    def soft(self, embeddings: np.ndarray, temperature: float) -> np.ndarray:
        """Embeddings (B, D) to soft pseudo-labels (B, K) float32: the softmax of minus the squared
        distances to the centroids over a temperature above 0."""
        rows = self.whitening.transform(embeddings)
        squares = np.einsum("kp,kp->k", self.centroids, self.centroids)
        # What all clusters of a row share falls out.
        scores = (2 * (rows @ self.centroids.T) - squares) / temperature
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)

    def to_bytes(self) -> bytes:
        """As safetensors: mean, projection, centroids; the rest is JSON in the header."""
        settings = {"normalize": self.whitening.normalize, "explained": self.whitening.explained}
        tensors = {
            "mean": self.whitening.mean,
            "projection": self.whitening.projection,
            "centroids": self.centroids,
        }
        # safetensors writes a view's memory as it lies, whatever its strides say.
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        return save(tensors, metadata={"format": FORMAT, "settings": json.dumps(settings)})

    @classmethod
    def from_bytes(cls, data: bytes) -> ClusterModel:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: not such a file, a tensor is missing or unexpected, or shapes disagree.
        """
        tensors, settings = _read(data)
        mean, projection, centroids = (tensors[name] for name in _TENSORS)
        shapes = f"mean {mean.shape}, projection {projection.shape}, centroids {centroids.shape}"
        dimensions = (mean.ndim, projection.ndim, centroids.ndim)
        if dimensions != (1, 2, 2) or (len(mean), centroids.shape[1]) != projection.shape:
            raise ValueError(
                f"The cluster model's shapes disagree ({shapes}); rebuild the clusters."
            )
        whitening = Whitening(mean, projection, settings["normalize"], settings["explained"])
        return cls(whitening, centroids)


_TENSORS = ("mean", "projection", "centroids")


class Description(Facts):
    """What a clustering came to, as plain data.

    Attributes:
        num_clusters: k as asked for.
        num_nonempty: clusters that hold clips.
        sizes: clips in each non-empty cluster.
        inertia: sum of squared distances over the fitted sample.
        num_iterations: Lloyd iterations.
        points_per_centroid: fitted rows per cluster asked for.
        backend: which k-means.
        version: of its library.
        warnings: sentences a user should see.
    """

    num_clusters: int
    num_nonempty: int
    sizes: tuple[int, ...]
    inertia: float
    num_iterations: int
    points_per_centroid: float
    backend: str
    version: str
    warnings: tuple[str, ...]


def drop_empty(labels: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the clusters that occur 0..K'-1, in their order.

    Args:
        labels: (N,) integers in [0, num_clusters).
        num_clusters: K.

    Returns:
        The new labels (N,) int32, and the ids (K',) int64 that were kept.

    Raises:
        ValueError: a label is out of range, or fewer than two clusters are left.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_clusters:
        raise ValueError(
            f"Labels run from {labels.min()} to {labels.max()}, outside 0..{num_clusters - 1}; "
            "they belong to another clustering."
        )
    kept = np.flatnonzero(np.bincount(labels, minlength=num_clusters))
    _check_enough(len(kept), num_clusters)
    renumber = np.full(num_clusters, -1, dtype=np.int32)
    renumber[kept] = np.arange(len(kept))
    return renumber[labels], kept


def describe(fitted: Centroids, sizes: np.ndarray, *, num_fitted: int) -> Description:
    """Sizes, quality and warnings of a clustering.

    Args:
        fitted: what k-means returned.
        sizes: (K,) clips assigned to each centroid, over all clips (empty ones included).
        num_fitted: rows that k-means was fitted on.

    Raises:
        ValueError: fewer than two clusters hold clips.
    """
    num_clusters, occupied = len(fitted.centroids), sizes[sizes > 0]
    _check_enough(len(occupied), num_clusters)
    points = num_fitted / num_clusters
    return Description(
        num_clusters=num_clusters,
        num_nonempty=len(occupied),
        sizes=tuple(int(size) for size in occupied),
        inertia=fitted.inertia,
        num_iterations=fitted.num_iterations,
        points_per_centroid=points,
        backend=fitted.backend,
        version=fitted.version,
        warnings=_warnings(num_clusters, len(occupied), num_fitted),
    )


def _warnings(num_clusters: int, num_nonempty: int, num_fitted: int) -> tuple[str, ...]:
    found = []
    points = num_fitted / num_clusters
    if points < MIN_POINTS_PER_CENTROID:
        found.append(
            f"k-means saw {points:.0f} points per centroid; {MIN_POINTS_PER_CENTROID} or more give"
            f" steady clusters: {_remedy(num_fitted)}"
        )
    if num_nonempty < num_clusters:
        found.append(
            f"{num_clusters - num_nonempty} of {num_clusters} clusters are empty and were dropped; "
            f"{num_nonempty} are left."
        )
    return tuple(found)


def _remedy(num_fitted: int) -> str:
    """What to set for so many clips."""
    steady = num_fitted // MIN_POINTS_PER_CENTROID
    return f"try cluster.num_clusters={steady}" if steady >= 2 else "add clips"


def _check_enough(num_nonempty: int, num_clusters: int) -> None:
    if num_nonempty < 2:
        raise ValueError(
            f"Only {num_nonempty} of {num_clusters} clusters holds clips, which makes no "
            "pseudo-labels; the embeddings have collapsed: pretrain longer or add clips."
        )


def _read(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
        settings = json.loads(metadata.get("settings", "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"This is not a cluster model ({error}); rebuild the clusters.") from None
    if metadata.get("format") != FORMAT or set(tensors) != set(_TENSORS):
        raise ValueError(
            f"This is not a cluster model (format {metadata.get('format')!r}, tensors "
            f"{', '.join(sorted(tensors))}; expected {FORMAT!r} with {', '.join(_TENSORS)}); "
            "rebuild the clusters."
        )
    return tensors, settings
