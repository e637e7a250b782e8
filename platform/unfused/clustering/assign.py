"""Nearest centroids, a batch at a time.

The rule of this room: memory is bounded by the batch and `CHUNK`, whatever K is.

Axes: B batch, P components, K clusters.
"""

from __future__ import annotations

import numpy as np

CHUNK = 1 << 22
"""Distances held at once (16 MiB in float32)."""


def assign(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of every row, and by how much it is the nearest.

    Args:
        x: (B, P) float32.
        centroids: (K, P) float32, K >= 2.

    Returns:
        Labels (B,) int32 and confidence (B,) float32 in [0, 1]: the relative margin
        (d2 - d1) / d2 of the distances to the nearest and the second nearest centroid. 1 is on a
        centroid, 0 is halfway between two.

    Raises:
        ValueError: fewer than two centroids, or rows of another width.
    """
    if centroids.ndim != 2 or len(centroids) < 2:
        raise ValueError(f"Assignment needs two centroids or more, not {centroids.shape}; raise K.")
    if x.ndim != 2 or x.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"Rows of shape {x.shape} do not fit centroids of shape {centroids.shape}; "
            "whiten them with the same model first."
        )
    labels = np.empty(len(x), dtype=np.int32)
    confidence = np.empty(len(x), dtype=np.float32)
    step = max(1, CHUNK // max(centroids.shape))
    for low in range(0, len(x), step):
        part = slice(low, low + step)
        labels[part], confidence[part] = _assign(x[part], centroids)
    return labels, confidence


def _assign(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = np.einsum("kp,kp->k", centroids, centroids) - 2 * (x @ centroids.T)
    rivals = np.sort(np.argpartition(scores, 1, axis=1)[:, :2], axis=1)
    # The expanded form only finds the two: near a centroid it has no digits left for a distance.
    distances = np.linalg.norm(x[:, None] - centroids[rivals], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")
    nearest, second = np.take_along_axis(distances, order, axis=1).T
    margin = (second - nearest) / np.maximum(second, np.finfo(np.float32).tiny)
    return np.take_along_axis(rivals, order, axis=1)[:, 0], margin
