"""One probe: multinomial logistic regression on standardised embeddings.

With fewer clips than features the solution lies in the span of the clips, so it is sought there: a
fit takes milliseconds whatever the width of the embedding, and gives the same weights. With very
many clips it is sought in the 512 directions in which they differ most.

Axes: n labelled clips, B clips, D embedding, r rank (at most n), N classes, F folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

STRENGTHS = tuple(float(c) for c in np.logspace(-3, 2, 6))
"""Inverse regularisation among which cross-validation chooses."""
NEVER = -1e4
"""Score of a class that no labelled clip has."""
MAX_ITERATIONS = 1000
TOLERANCE, ROUGHLY = 1e-4, 1e-3
"""Of the largest slope at which a fit ends; roughly, where it is only to be compared."""
MAX_RANK = 512
"""Of the span: with more labelled clips than this the leading principal directions are kept."""


@dataclass(frozen=True)
class Folds:
    """Repeated stratified cross-validation over labelled clips.

    Attributes:
        tests: for every repetition the fold (n,) that each clip is left out in; none where every
            class has a single clip. The only clip of a class counts as wrong when it is left out.
    """

    tests: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, ids: np.ndarray, num_folds: int, num_repeats: int, seed: int) -> Folds:
        """Folds of clips with the classes `ids` (n,); as many as the rarest class has that has
        several, at most."""
        from sklearn.model_selection import StratifiedKFold

        folds = num_folds_for(ids, num_folds)
        if folds < 2:
            return cls(())
        tests = []
        for repeat in range(num_repeats):
            test = np.zeros(len(ids), np.int8)
            split = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
            with warnings.catch_warnings():
                # Of classes with a single clip.
                warnings.simplefilter("ignore", UserWarning)
                for number, (_, left_out) in enumerate(split.split(ids, ids)):
                    test[left_out] = number
            tests.append(test)
        return cls(tuple(tests))

    @property
    def first(self) -> np.ndarray | None:
        """The first repetition, if there is one."""
        return self.tests[0] if self.tests else None


def num_folds_for(ids: np.ndarray, most: int) -> int:
    """Folds for clips with the classes `ids` (n,), at most `most`; 0 where no class has several."""
    counts = np.bincount(ids)
    return min(most, int(min(counts[counts > 1], default=0)))


@dataclass(frozen=True)
class Probe:
    """A linear classifier of embeddings; their standardisation is folded into it.

    Attributes:
        weight: (N, D).
        bias: (N,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (B, D) to class probabilities (B, N)."""
        return softmax(embeddings @ self.weight.T + self.bias)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Probe:
        return cls(arrays["weight"], arrays["bias"])


@dataclass(frozen=True)
class Probed:
    """A probe, and what cross-validation says of it.

    Attributes:
        probe: fitted to all labelled clips.
        by_fold: fitted without each fold of the first repetition; none without folds.
        held_out: (n, N) probabilities of clips that were left out, averaged over repetitions.
        accuracy: over them, in [0, 1]; none without folds.
        strength: the inverse regularisation that was chosen.
    """

    probe: Probe
    by_fold: tuple[Probe, ...]
    held_out: np.ndarray | None
    accuracy: float | None
    strength: float

    def say(self, embeddings: np.ndarray) -> np.ndarray:
        """What all its probes make of embeddings (B, D): (1 + F, B, N)."""
        return np.stack([one.probabilities(embeddings) for one in (self.probe, *self.by_fold)])


def fit(embeddings: np.ndarray, ids: np.ndarray, num_classes: int, folds: Folds) -> Probed:
    """A probe from labelled clips.

    The strength is the one under which clips that are left out are likeliest (by accuracy, of which
    a few dozen clips give few values, it would be an over-sure or an undecided probe as often);
    where nothing can be left out it is the one in the middle.

    Args:
        embeddings: (n, D).
        ids: (n,) class ids.
        num_classes: N.
        folds: of these clips.
    """
    space = _Span.of(embeddings.astype(np.float64))
    if folds.first is None:
        strength = STRENGTHS[len(STRENGTHS) // 2]
        return Probed(space.probe(ids, num_classes, strength), (), None, None, strength)
    losses = [
        _loss(space.leave_out(ids, num_classes, c, folds.first, ROUGHLY), ids) for c in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmin(losses))]
    held_out = np.mean(
        [space.leave_out(ids, num_classes, strength, test) for test in folds.tests], axis=0
    )
    by_fold = tuple(
        space.probe(ids, num_classes, strength, keep=folds.first != number)
        for number in range(folds.first.max() + 1)
    )
    whole = space.probe(ids, num_classes, strength)
    return Probed(whole, by_fold, held_out, share_right(held_out, ids), strength)


@dataclass(frozen=True)
class _Span:
    """Labelled clips in the coordinates of their own span.

    Attributes:
        rows: (n, r).
        basis: (D, r), orthonormal.
        mean, std: (D,) of the clips.
    """

    rows: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> _Span:
        mean, std = mean_and_deviation(embeddings)
        scaled = (embeddings - mean) / std
        _, values, right = np.linalg.svd(scaled, full_matrices=False)
        basis = right[values > 1e-6 * max(values[0], 1e-12)][:MAX_RANK].T
        return cls(scaled @ basis, basis, mean, std)

    def leave_out(
        self,
        ids: np.ndarray,
        num_classes: int,
        strength: float,
        test: np.ndarray,
        tolerance: float = TOLERANCE,
    ) -> np.ndarray:
        """Probabilities (n, N) of every clip by a model that was fitted without its fold."""
        found = np.zeros((len(ids), num_classes))
        for number in range(test.max() + 1):
            left = test == number
            rows, told = self.rows[~left], ids[~left]
            weight, bias = _regression(rows, told, num_classes, strength, tolerance)
            found[left] = softmax(self.rows[left] @ weight.T + bias)
        return found

    def probe(
        self,
        ids: np.ndarray,
        num_classes: int,
        strength: float,
        keep: np.ndarray | slice = slice(None),
    ) -> Probe:
        """Fitted to the clips that `keep` selects, as a classifier of embeddings."""
        weight, bias = _regression(self.rows[keep], ids[keep], num_classes, strength)
        full = weight @ self.basis.T / self.std
        return Probe(full.astype(np.float32), (bias - full @ self.mean).astype(np.float32))


def mean_and_deviation(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every feature of embeddings (n, D); the deviation is not quite nothing where a feature
    hardly moves among these clips, which would blow it up elsewhere."""
    std = rows.std(0)
    return rows.mean(0), np.maximum(std, 1e-3 * std.mean() + 1e-8)


def _regression(
    rows: np.ndarray,
    ids: np.ndarray,
    num_classes: int,
    strength: float,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (N, r) and bias (N,), also of classes that no clip has."""
    from sklearn.linear_model import LogisticRegression

    if len(seen := np.unique(ids)) == 1:
        bias = np.full(num_classes, NEVER)
        bias[seen] = 0.0
        return np.zeros((num_classes, rows.shape[1])), bias
    model = LogisticRegression(C=strength, tol=tolerance, max_iter=MAX_ITERATIONS)
    model.fit(rows, ids)
    return for_every_class(model, num_classes)


def for_every_class(model: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (N, r) and bias (N,) of scikit-learn's logistic regression, also of classes that it
    did not see; it has a row for every class that it saw, and one row for two."""
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coef = np.concatenate([-coef, coef]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight, bias = np.zeros((num_classes, coef.shape[1])), np.full(num_classes, NEVER)
    weight[model.classes_], bias[model.classes_] = coef, intercept
    return weight, bias


def _loss(probabilities: np.ndarray, ids: np.ndarray) -> float:
    """Mean log-loss, in nats."""
    return -float(np.log(probabilities[np.arange(len(ids)), ids] + 1e-6).mean())


def share_right(probabilities: np.ndarray, ids: np.ndarray) -> float:
    """Of clips, in [0, 1]."""
    return float((probabilities.argmax(1) == ids).mean())


def softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
