"""k-means by scikit-learn: the reference that the others are held to."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from unfused.clustering.backends import Centroids, check, seed32


def fit(
    x: np.ndarray, *, num_clusters: int, num_iterations: int, seed: int, num_init: int
) -> Centroids:
    """See `backends.Fit`; on one OpenMP thread, since several add up in any order."""
    check(x, num_clusters)
    estimator = KMeans(
        num_clusters, n_init=num_init, max_iter=num_iterations, random_state=seed32(seed)
    )
    with threadpool_limits(limits=1, user_api="openmp"):
        estimator.fit(np.asarray(x, dtype=np.float32))
    return Centroids(
        estimator.cluster_centers_.astype(np.float32),
        float(estimator.inertia_),
        int(estimator.n_iter_),
        "sklearn",
        sklearn.__version__,
    )
