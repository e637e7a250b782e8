"""PCA whitening from moments that are computed in parts.

The rule of this room: moments are float64 and merge in any grouping, so that tasks summarise their
own batches and no one ever holds all embeddings.

Axes: B batch, D embedding, P principal components.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

_FLOAT32, _FLOAT64 = np.finfo(np.float32), np.finfo(np.float64)


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of rows.

    Attributes:
        count: rows seen.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of outer products of the centred rows (M2).
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Moments:
        """Moments of the rows of x (B, D); B may be 0.

        Raises:
            ValueError: x is not a matrix or holds values that are not finite.
        """
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2:
            raise ValueError(f"Embeddings must be (clips, width), not {rows.shape}; add the axis.")
        _check_finite(rows)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of rows; stable for means far larger than the deviations.

        Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm", eq. 2.1.
        """
        count = self.count + other.count
        if count == 0:
            return self
        delta, share = other.mean - self.mean, other.count / count
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.count * share)
        return Moments(count, self.mean + delta * share, scatter)


@dataclass(frozen=True)
class Whitening:
    """An affine map of embeddings: centre, project, and (if `normalize`) scale rows to length 1.

    Attributes:
        mean: (D,) float64.
        projection: (D, P) float32, principal directions by falling variance, each divided by its
            standard deviation where whitened.
        normalize: whether rows are scaled to unit length.
        explained: share in (0, 1] of the variance that the P components hold.
    """

    mean: np.ndarray
    projection: np.ndarray
    normalize: bool
    explained: float

    @classmethod
    def fit(
        cls, moments: Moments, *, num_components: int | None, whiten: bool, normalize: bool
    ) -> Whitening:
        """PCA of the covariance (divided by count - 1), of rank at most count - 1.

        Directions whose variance is rounding noise are dropped rather than blown up. Each
        direction's largest entry is made positive, so that the result does not depend on LAPACK.

        Args:
            moments: of the embeddings.
            num_components: directions to keep; None keeps all that vary (P = rank), which without
                `whiten` is a rotation that k-means does not notice.
            whiten: divide each component by its standard deviation.
            normalize: scale the projected rows to length 1.

        Warns:
            UserWarning: fewer than `num_components` directions exist; those are used.

        Raises:
            ValueError: the embeddings do not vary, or num_components is below 1.
        """
        if num_components is not None and num_components < 1:
            raise ValueError(
                f"PCA cannot keep {num_components} components; ask for at least 1, or None for all."
            )
        variances, directions = _principal(moments)
        keep = _num_kept(moments, len(variances), num_components)
        projection = directions[:, :keep]
        if whiten:
            projection = projection / np.sqrt(variances[:keep])
        explained = float(variances[:keep].sum() / variances.sum())
        return cls(moments.mean, projection.astype(np.float32), normalize, explained)

    def transform(self, x: np.ndarray) -> np.ndarray:
        """x (B, D) -> (B, P) float32; a row that equals the mean stays zero when normalised.

        Raises:
            ValueError: x is not as wide as what was fitted, or not finite.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"Embeddings of shape {x.shape} do not fit a whitening of width {len(self.mean)}; "
                "embed the clips with the teacher that it was fitted on."
            )
        _check_finite(x)
        # Centred in float64: a mean far from zero would cost float32 its digits.
        projected = (x - self.mean).astype(np.float32) @ self.projection
        if self.normalize:
            lengths = np.linalg.norm(projected, axis=1, keepdims=True)
            projected /= np.maximum(lengths, _FLOAT32.tiny)
        return projected


def _check_finite(rows: np.ndarray) -> None:
    bad = len(rows) - int(np.isfinite(rows).all(axis=1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(rows)} embeddings are not finite; the teacher has diverged: lower its "
            "learning rate and pretrain again."
        )


def _principal(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Variances (rank,), falling, and their unit directions (D, rank) with a fixed sign."""
    covariance = moments.scatter / max(moments.count - 1, 1)
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    rank = int((variances > _noise_floor(moments, variances)).sum())
    rank = min(rank, moments.count - 1)
    if rank < 1:
        raise ValueError(
            f"The {moments.count} embeddings are all the same; the teacher has collapsed: pretrain "
            "it longer, at another learning rate or on more clips."
        )
    variances, directions = variances[:rank], directions[:, :rank]
    peaks = np.abs(directions).argmax(axis=0)
    return variances, directions * np.sign(directions[peaks, np.arange(rank)])


def _noise_floor(moments: Moments, variances: np.ndarray) -> float:
    """Variance that float32 rows of this length, or eigh, could have made up."""
    power = float(moments.mean @ moments.mean) + max(float(variances.sum()), 0.0)
    solver = len(variances) * float(_FLOAT64.eps) * max(float(variances[0]), 0.0)
    return max(float(_FLOAT32.eps) ** 2 * power, solver)


def _num_kept(moments: Moments, rank: int, num_components: int | None) -> int:
    if num_components is None or min(num_components, len(moments.mean)) <= rank:
        return min(num_components or rank, rank)
    warnings.warn(
        f"{num_components} components were asked for, but {moments.count} embeddings of width "
        f"{len(moments.mean)} vary in only {rank} directions; using {rank}.",
        stacklevel=3,
    )
    return rank
