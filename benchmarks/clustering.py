"""k-means on whitened vectors, against scikit-learn and faiss on the same vectors.

    python benchmarks/clustering.py --rows 10000 100000 --clusters 64

All contestants make one start and at most `iterations` updates on all rows (faiss would look at 256
a cluster, the platform's stage at 1,024); MiniBatchKMeans runs as scikit-learn sets it up. A
contestant counts as a rival where its inertia is within 1 % of ours. How our seconds grow with the
rows is fitted over all of `rows` and over `alone`, which has no rivals.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import harness
import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from unfused import clustering, cores

EQUAL = 1.01


@dataclass(frozen=True)
class Sizes:
    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    alone: tuple[int, ...] = (30_000,)
    width: int = 128
    clusters: tuple[int, ...] = (64, 1024)
    iterations: int = 20
    repetitions: int = 2
    repeated_below: float = 1.1e8
    """Problems of more rows x clusters are run once."""
    lloyd_up_to: float = 5e7
    """scikit-learn's KMeans takes part up to so many rows x clusters: minutes beyond."""


def vectors(rows: int, width: int) -> np.ndarray:
    """Unit vectors (N, P) as whitened embeddings look: weak clusters in many directions."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, width), dtype=np.float32)
    x = centres[rng.integers(0, 500, rows)] + 1.5 * rng.standard_normal(
        (rows, width), dtype=np.float32
    )
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def contestants(x: np.ndarray, k: int, iterations: int) -> dict[str, Callable[[], np.ndarray]]:
    """Each returns its centroids (K, P)."""

    def platform() -> np.ndarray:
        fit = clustering.get("torch")
        return fit(x, num_clusters=k, num_iterations=iterations, seed=0, num_init=1).centroids

    def lloyd() -> np.ndarray:
        return KMeans(k, n_init=1, max_iter=iterations, random_state=0).fit(x).cluster_centers_

    def minibatch() -> np.ndarray:
        return MiniBatchKMeans(k, n_init=1, random_state=0).fit(x).cluster_centers_

    def by_faiss() -> np.ndarray:
        kmeans = faiss.Kmeans(
            x.shape[1], k, niter=iterations, seed=0, max_points_per_centroid=len(x)
        )
        kmeans.train(x)
        return kmeans.centroids

    return {
        "unfused (torch)": platform,
        "scikit-learn KMeans": lloyd,
        "scikit-learn MiniBatchKMeans": minibatch,
        "faiss": by_faiss,
    }


def inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    distances, _ = faiss.knn(x, np.ascontiguousarray(centroids, np.float32), 1)
    return float(distances.sum(dtype=np.float64))


def measure(sizes: Sizes) -> harness.Report:
    cores.prepare_process()
    rows, aims, notes = [], [], []
    seconds: dict[int, dict[int, float]] = {k: {} for k in sizes.clusters}
    for count in sizes.rows:
        x = vectors(count, sizes.width)
        for k in sizes.clusters:
            once = count * k > sizes.repeated_below
            found, quality = _race(x, k, sizes, 1 if once else sizes.repetitions)
            best = min(quality.values())
            mine, *others = found
            seconds[k][count] = statistics.median(found[mine])
            equal = [name for name in others if quality[name] <= quality[mine] * EQUAL]
            for name in found:
                ratio = harness.ratio(found, name, mine)
                rows.append(
                    [
                        f"{count:,}",
                        str(k),
                        name,
                        harness.spread(found[name]),
                        f"{quality[name] / best:.4f}",
                        f"{ratio:.2f}",
                    ]
                )
            problem = f"N = {count:,}, k = {k}"
            slowest = min((harness.ratio(found, name, mine) for name in equal), default=np.inf)
            aim = harness.Aim(f"{problem}: best rival of equal inertia, time / ours", slowest, 1)
            aims.append(aim)
            if not aim.met:
                run = contestants(x, k, sizes.iterations)[mine]
                notes.append(f"{problem}, ours by operation: {harness.operations(run)}")
    for k, spent in seconds.items():
        for count in sizes.alone:
            spent[count] = _alone(vectors(count, sizes.width), k, sizes)
        growth = np.polyfit(np.log(list(spent)), np.log(list(spent.values())), 1)[0]
        counts = ", ".join(f"{count:,}" for count in sorted(spent))
        what = f"k = {k}: exponent of our seconds over N = {counts}"
        aims.append(harness.Aim(what, float(growth), 1.05, at_most=True))
    return harness.Report(
        "k-means, seconds (the fewer the better)",
        ["N", "k", "contestant", "seconds", "inertia / best", "time / ours"],
        rows,
        aims,
        [
            f"unit vectors of width {sizes.width}; {sizes.iterations} iterations at most",
            *notes,
        ],
    )


def _alone(x: np.ndarray, k: int, sizes: Sizes) -> float:
    """Our seconds."""
    run = next(iter(contestants(x, k, sizes.iterations).values()))
    return statistics.median(1 / harness.rate(1, run) for _ in range(sizes.repetitions))


def _race(x: np.ndarray, k: int, sizes: Sizes, repetitions: int):
    quality: dict[str, float] = {}

    def timed(name: str, run: Callable[[], np.ndarray]) -> Callable[[], float]:
        def once() -> float:
            began = time.perf_counter()
            centroids = run()
            seconds = time.perf_counter() - began
            quality.setdefault(name, inertia(x, centroids))
            return seconds

        return once

    runs = contestants(x, k, sizes.iterations)
    if len(x) * k > sizes.lloyd_up_to:
        del runs["scikit-learn KMeans"]
    found = harness.alternate({n: timed(n, run) for n, run in runs.items()}, repetitions)
    return found, quality


if __name__ == "__main__":
    harness.main("clustering", Sizes(), measure)
