"""k-means in plain PyTorch, on any device; also spherical k-means over all training workers.

The rule of this room: no more than `CHUNK` distances exist at once, and every random draw comes
from a seeded generator on the CPU, so that devices and ranks agree on it.

Axes: N rows, P components, D embedding, K clusters, B rows in a chunk, M candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from unfused.clustering.backends import Centroids, check, seed32
from unfused.distributed import add_over_ranks

CHUNK = 1 << 20
"""Distances held at once on CPU (4 MiB in float32): more would leave the cache."""
GPU_CHUNK = 1 << 22
SEEDING_ROWS = 8
"""Rows per cluster in the pool that the first centroids come from."""
MIN_SEEDING_ROWS = 2048
"""Rows in that pool at least; where there are no more in all, it is all of them."""
SPLIT = 1 / 1024
"""Relative change that parts the two halves of a split cluster."""


class _Run(NamedTuple):
    centroids: Tensor
    inertia: float
    num_iterations: int


@torch.no_grad()
def fit(
    x: np.ndarray,
    *,
    num_clusters: int,
    num_iterations: int,
    seed: int,
    num_init: int,
    device: str | None = None,
) -> Centroids:
    """See `backends.Fit`; by default on the GPU where there is one.

    Starts from k-means++ on a random pool of the rows, on which the first half of the iterations is
    spent as well (Bradley & Fayyad 1998, "Refining initial points for k-means clustering"): at a
    thousand clusters the second half then ends where twenty iterations on all rows would. Stops
    early once no label changes. An empty cluster moves to the row farthest from its own.
    """
    check(x, num_clusters)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.as_tensor(np.asarray(x, dtype=np.float32), device=device)
    # The expanded distance |c|^2 - 2xc loses digits far from the origin.
    offset = rows.mean(dim=0)
    rows = rows - offset
    generator = torch.Generator().manual_seed(seed32(seed))
    runs = (_start(rows, num_clusters, num_iterations, generator) for _ in range(num_init))
    best = min(runs, key=lambda run: run.inertia)
    centroids = (best.centroids + offset).cpu().numpy()
    return Centroids(centroids, best.inertia, best.num_iterations, "torch", torch.__version__)


@torch.no_grad()
def spherical_kmeans(
    x: Tensor,
    *,
    num_clusters: int,
    num_iterations: int,
    generator_seed: int,
    start: int = 0,
    centroids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """k-means by cosine similarity (Dhillon & Modha 2001), over all ranks where there are any.

    With torch.distributed initialised every rank calls this with its own rows and all get the same
    centroids: those of one process that holds all rows, up to rounding. An empty cluster takes half
    of the largest one (its centroid, changed by 1/1024 either way).

    Args:
        x: (N_local, D) float32 unit rows, on the device that the process group reduces on; N_local
            may differ between ranks.
        num_clusters: K.
        num_iterations: updates of the centroids.
        generator_seed: of the rows that become the first centroids; the same on all ranks.
        start: position of this rank's first row in the order of all rows.
        centroids: (K, D) to start from instead.

    Returns:
        Unit centroids (K, D) and the labels (N_local,) int64 of this rank's rows under them.

    Raises:
        ValueError: on all ranks: K is above the number of rows, or the ranks' rows do not follow
            each other without gap or overlap.
    """
    if centroids is None:
        centroids = _pick_rows(x, start, num_clusters, generator_seed)
    for _ in range(num_iterations):
        sums, counts = _sums(x, _nearest(x, centroids), num_clusters)
        add_over_ranks(sums)
        add_over_ranks(counts)
        centroids = normalize(_split_largest(normalize(sums), counts)).to(x.dtype)
    return centroids, _nearest(x, centroids)


def _start(x: Tensor, num_clusters: int, num_iterations: int, generator: torch.Generator) -> _Run:
    """One start: seed on the pool, then Lloyd's iterations on the pool and on all rows."""
    order = torch.randperm(len(x), generator=generator)
    pool = x[order[: max(MIN_SEEDING_ROWS, SEEDING_ROWS * num_clusters)].to(x.device)]
    centroids, spent = _plus_plus(pool, num_clusters, generator), 0
    if len(pool) < len(x):
        refined = _lloyd(pool, centroids, num_iterations // 2)
        centroids, spent = refined.centroids, num_iterations // 2
    run = _lloyd(x, centroids, num_iterations - spent)
    return run._replace(num_iterations=spent + run.num_iterations)


def _lloyd(x: Tensor, centroids: Tensor, num_iterations: int) -> _Run:
    labels = _nearest(x, centroids)
    iteration = 0
    while iteration < num_iterations:
        iteration += 1
        sums, counts = _sums(x, labels, len(centroids))
        means = (sums / counts.clamp(min=1)[:, None]).to(x.dtype)
        centroids = _move_empty(x, labels, centroids, means, counts)
        previous, labels = labels, _nearest(x, centroids)
        if torch.equal(labels, previous):
            break
    inertia = float(_residuals(x, centroids, labels).sum(dtype=torch.float64))
    return _Run(centroids, inertia, iteration)


def _plus_plus(pool: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """First centroids (K, P) by greedy k-means++ (Arthur & Vassilvitskii 2007, section 7).

    Each is the best of 2 + ln K rows drawn by squared distance to the centroids so far.
    """
    num_trials = 2 + int(math.log(num_clusters))
    squares = pool.square().sum(dim=1)
    first = torch.randint(len(pool), (1,), generator=generator)
    chosen = [pool[first.to(pool.device)]]
    closest = _squared_distances(pool, squares, chosen[0])[0].clamp_(min=0)
    for _ in range(num_clusters - 1):
        weights = closest.cpu()
        weights = weights if weights.any() else torch.ones_like(weights)
        drawn = torch.multinomial(weights, num_trials, replacement=True, generator=generator)
        candidates = pool[drawn.to(pool.device)]
        left = _squared_distances(pool, squares, candidates)
        best = int(torch.minimum(left, closest, out=left).sum(dim=1).argmin())
        closest = left[best].clamp_(min=0)
        chosen.append(candidates[best : best + 1])
    return torch.cat(chosen)


def _squared_distances(x: Tensor, squares: Tensor, candidates: Tensor) -> Tensor:
    """(M, N) squared distances of all rows, of squared lengths (N,), to candidates (M, P).

    Rounding may leave them a little below zero.
    """
    offsets = candidates.square().sum(dim=1)[:, None] + squares
    return offsets.addmm_(candidates, x.T, alpha=-2)


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Labels (N,) int64 of the nearest centroids; of equals the first."""
    offsets = centroids.square().sum(dim=1)
    chunks = x.split(_chunk(x, len(centroids)))
    return torch.cat([torch.addmm(offsets, c, centroids.T, alpha=-2).argmin(dim=1) for c in chunks])


def _chunk(x: Tensor, width: int) -> int:
    """Rows at a time of which each makes `width` values."""
    return max(1, (GPU_CHUNK if x.is_cuda else CHUNK) // width)


def _sums(x: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Sums (K, P) float64 and counts (K,) int64 of the rows of each cluster."""
    sums = x.new_zeros(num_clusters, x.shape[1], dtype=torch.float64)
    size = _chunk(x, max(num_clusters, x.shape[1]) if x.is_cuda else x.shape[1])
    for rows, ids in zip(x.split(size), labels.split(size), strict=True):
        if x.is_cuda:
            # index_add_ on CUDA adds in any order, which no seed can repeat.
            sums += one_hot(ids, num_clusters).to(x.dtype).T @ rows
        else:
            sums += x.new_zeros(sums.shape).index_add_(0, ids, rows)
    return sums, torch.bincount(labels, minlength=num_clusters)


def _residuals(x: Tensor, centroids: Tensor, labels: Tensor) -> Tensor:
    """Squared distance (N,) of every row to its own centroid."""
    size = _chunk(x, x.shape[1])
    parts = zip(x.split(size), labels.split(size), strict=True)
    return torch.cat([(rows - centroids[ids]).square().sum(dim=1) for rows, ids in parts])


def _move_empty(x: Tensor, labels: Tensor, old: Tensor, means: Tensor, counts: Tensor) -> Tensor:
    """`means`, with those of empty clusters on the rows that are worst served by the `old` ones."""
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = x[_residuals(x, old, labels).topk(len(empty)).indices]
    return means


def _split_largest(centroids: Tensor, counts: Tensor) -> Tensor:
    """Give every empty cluster half of the largest one; the same on all ranks."""
    sizes = [float(count) for count in counts.tolist()]
    wave = torch.full_like(centroids[0], SPLIT)
    wave[1::2] *= -1
    for empty in [cluster for cluster, size in enumerate(sizes) if size == 0]:
        donor = max(range(len(sizes)), key=sizes.__getitem__)
        centroids[empty] = centroids[donor] * (1 + wave)
        centroids[donor] *= 1 - wave
        sizes[empty] = sizes[donor] = sizes[donor] / 2
    return centroids


def _pick_rows(x: Tensor, start: int, num_clusters: int, seed: int) -> Tensor:
    """Distinct random rows (K, D) of all ranks' rows, the same on all ranks."""
    total = int(add_over_ranks(torch.tensor([len(x)], device=x.device)))
    if num_clusters > total:
        raise ValueError(
            f"{num_clusters} clusters need as many rows, and there are {total}; lower K."
        )
    generator = torch.Generator().manual_seed(seed32(seed))
    ids = torch.randperm(total, generator=generator)[:num_clusters].to(x.device) - start
    mine = (ids >= 0) & (ids < len(x))
    picked = x.new_zeros(num_clusters, x.shape[1])
    picked[mine] = x[ids[mine]]
    owners = add_over_ranks(mine.long())
    if not bool((owners == 1).all()):
        raise ValueError(
            f"The ranks' rows do not tile 0..{total} (this one says {start}..{start + len(x)}); "
            "give each rank a contiguous block and its start."
        )
    return add_over_ranks(picked)
