"""Which k-means runs: one signature, three implementations.

The rule of this room: a backend is chosen by what the run has (a GPU first, then cuML), never by
whether an import happens to work, and is imported only when used.

Axes: N rows, P components, K clusters.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unfused.config import ConfigError

BACKENDS = ("cuml", "torch", "sklearn")


@dataclass(frozen=True)
class Centroids:
    """A fitted k-means.

    Attributes:
        centroids: (K, P) float32.
        inertia: sum over the fitted rows of the squared distance to the nearest centroid.
        num_iterations: Lloyd iterations of the restart that was kept.
        backend: "cuml", "torch" or "sklearn".
        version: of that library.
    """

    centroids: np.ndarray
    inertia: float
    num_iterations: int
    backend: str
    version: str


class Fit(Protocol):
    """k-means of x (N, P) float32: the best of `num_init` starts of `num_iterations` each.

    A start may end early, once it has converged. The same seed gives the same centroids on the same
    machine. Clusters may end up empty.

    Raises:
        ValueError: num_clusters is above N or below 2, or x is not a finite matrix.
    """

    def __call__(
        self, x: np.ndarray, *, num_clusters: int, num_iterations: int, seed: int, num_init: int
    ) -> Centroids: ...


def resolve(name: str, num_gpus: int, has_cuml: bool) -> str:
    """The backend that `name` stands for here: auto is cuml on a GPU that has it, torch elsewhere.

    Raises:
        ConfigError: an unknown name, or cuml where it cannot run.
    """
    if name == "auto":
        return "cuml" if num_gpus > 0 and has_cuml else "torch"
    if name not in BACKENDS:
        raise ConfigError(
            f"There is no clustering backend {name!r}; choose auto, {', '.join(BACKENDS)}."
        )
    if name == "cuml" and num_gpus <= 0:
        raise ConfigError(
            "cluster.backend=cuml needs a GPU and this run has none; use auto or torch."
        )
    if name == "cuml" and not has_cuml:
        raise ConfigError(
            "cluster.backend=cuml needs cuML, which is not installed here; "
            "install unfused[gpu], or use auto or torch."
        )
    return name


def get(name: str) -> Fit:
    """The k-means of a resolved backend name.

    Raises:
        ConfigError: the name is unknown, or still auto.
    """
    if name not in BACKENDS:
        raise ConfigError(f"{name!r} is not one of {', '.join(BACKENDS)}; resolve() it first.")
    return importlib.import_module(f"unfused.clustering.{name}_backend").fit


def check(x: np.ndarray, num_clusters: int) -> None:
    """Refuse what no backend can cluster, in the same words for all.

    Raises:
        ValueError: num_clusters is above N or below 2, or x is not a finite matrix.
    """
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(
            f"k-means needs a finite (rows, width) matrix, not one of shape {x.shape}."
        )
    if num_clusters < 2:
        raise ValueError(
            f"cluster.num_clusters={num_clusters} makes no pseudo-labels; use 2 or more."
        )
    if num_clusters > len(x):
        raise ValueError(
            f"cluster.num_clusters={num_clusters} is more than the {len(x)} clips to cluster; "
            "lower it, or add clips."
        )


def seed32(seed: int) -> int:
    """`seed` in the range that NumPy and cuML accept, [0, 2^32)."""
    return seed % 2**32
