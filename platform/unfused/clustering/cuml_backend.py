"""k-means by RAPIDS cuML, on one GPU.

The rule of this room: cuML is imported inside functions alone (the import takes seconds, and on a
machine without a GPU it succeeds and fails only later), and NumPy goes in and comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unfused.clustering.backends import Centroids, check, seed32


def build(*, num_clusters: int, num_iterations: int, seed: int, num_init: int) -> Any:
    """The unfitted `cuml.cluster.KMeans`; needs cuML, but no GPU yet.

    Seeding is k-means|| (Bahmani et al. 2012, "Scalable k-means++").
    """
    from cuml.cluster import KMeans

    return KMeans(
        n_clusters=num_clusters,
        init="scalable-k-means++",
        n_init=num_init,
        max_iter=num_iterations,
        random_state=seed32(seed),
        output_type="numpy",
    )


def fit(
    x: np.ndarray, *, num_clusters: int, num_iterations: int, seed: int, num_init: int
) -> Centroids:
    """See `backends.Fit`; x is copied to the GPU whole."""
    check(x, num_clusters)
    import cuml

    estimator = build(
        num_clusters=num_clusters, num_iterations=num_iterations, seed=seed, num_init=num_init
    )
    estimator.fit(np.ascontiguousarray(x, dtype=np.float32))
    return Centroids(
        np.asarray(estimator.cluster_centers_, dtype=np.float32),
        float(estimator.inertia_),
        int(estimator.n_iter_),
        "cuml",
        cuml.__version__,
    )
