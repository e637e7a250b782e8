"""What several probes together say of a clip: a logarithmic opinion pool.

The pool's scores are the weighted sum of the probes' log-probabilities (Genest and Zidek,
"Combining probability distributions", Statistical Science 1986). The weights are those under which
the labelled clips, each as it was predicted while it was left out, are likeliest: a probe that is
right gets much, one that adds nothing to the others gets none, and one that is too sure of itself
less than it asks for.

Axes: n labelled clips, B clips, T probes, N classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unfused.probing.probe import softmax

FLOOR = 1e-4
"""Least probability: one probe alone cannot rule a class out."""
SHRINK = 0.2
"""L2 penalty on the weights: of two probes that say the same each gets half."""
MAX_WEIGHT = 5.0
LEAST_WEIGHT = 0.02
"""What weighs less is not worth a teacher's time and gets none."""


def weights(held_out: Sequence[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The weight (T,) of every probe, in [0, 5]; all alike where none is worth hearing.

    Args:
        held_out: (n, N) probabilities of every probe for clips that it was not fitted to.
        ids: (n,) classes.
    """
    from scipy.optimize import minimize

    logs = np.stack([opinion(one) for one in held_out])
    rows, count = np.arange(len(ids)), len(held_out)

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        probabilities = softmax(np.tensordot(weight, logs, 1))
        likelihood = np.log(probabilities[rows, ids] + 1e-30).mean()
        slope = (probabilities * logs).sum(2).mean(1) - logs[:, rows, ids].mean(1)
        return SHRINK * weight @ weight - likelihood, slope + 2 * SHRINK * weight

    bounds = [(0.0, MAX_WEIGHT)] * count
    found = minimize(loss, np.full(count, 1 / count), jac=True, bounds=bounds).x
    if (found < LEAST_WEIGHT).all():
        return np.full(count, 1 / count)
    return np.where(found < LEAST_WEIGHT, 0.0, found)


def untold(held_out: Sequence[np.ndarray], ids: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """What the pool says (n, N) of every labelled clip by weights that were not fitted to its fold:
    a dozen weights are soon right about the few dozen clips that they are fitted to.

    Args:
        held_out: as in `weights`.
        ids: likewise.
        fold: (n,) of every clip.
    """
    found = np.zeros_like(held_out[0])
    for number in range(fold.max() + 1):
        left = fold == number
        weight = weights([one[~left] for one in held_out], ids[~left])
        found[left] = combine([one[left] for one in held_out], weight)
    return found


def combine(probabilities: Sequence[np.ndarray], weight: Sequence[float]) -> np.ndarray:
    """The pool's probabilities (B, N) from those of every probe, (B, N) each."""
    return softmax(sum(w * opinion(one) for w, one in zip(weight, probabilities, strict=True)))


def opinion(probabilities: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, N), what a pool sums, from probabilities (B, N)."""
    return np.log(np.maximum(probabilities, FLOOR))
