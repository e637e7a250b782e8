"""Distillation losses: pseudo-labels for all heads, and the deep head for the shallow ones.

The rule of this room: a loss is a sum over clips divided by a stated number of clips, so that the
shares of several workers add up to the loss of the whole batch.

Axes: B clips, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax


class LossParts(NamedTuple):
    """The loss and its parts, each a scalar; shallow parts are summed over the heads.

    Attributes:
        total: the weighted sum; what is minimised.
        ce: cross-entropy of the deep head against the pseudo-labels, in nats.
        shallow_ce: likewise of the shallow heads.
        kl: KL divergence of the shallow heads from the deep one at temperature T, in nats (times T
            squared where that is asked for).
        cosine: 2 - 2 cos between shallow and deep logits, 0 to 4 for each head.
    """

    total: Tensor
    ce: Tensor
    shallow_ce: Tensor
    kl: Tensor
    cosine: Tensor


def unfused_loss(
    deep: Tensor,
    shallow: Sequence[Tensor],
    labels: Tensor,
    *,
    shallow_weight: float,
    kl_weight: float,
    cosine_weight: float,
    temperature: float,
    detach_teacher: bool,
    scale_by_temperature: bool,
    denominator: int | Tensor | None = None,
) -> LossParts:
    """UnFuSeD's distillation loss (arXiv 2303.05668; the form is that of arXiv 1905.08094).

        CE(deep, y) + a sum_i CE(shallow_i, y) + b sum_i KL(softmax(deep/T) || softmax(shallow_i/T))
            + c sum_i (2 - 2 cos(shallow_i, deep))

    As released: T 1, `detach_teacher` and `scale_by_temperature` false. With all three weights 0 it
    is ClusterFit's loss (arXiv 1912.03330).

    Args:
        deep: (B, K) logits of the deep head.
        shallow: (B, K) logits of each shallow head, of which there may be none.
        labels: (B,) int64 pseudo-labels, or (B, K) soft ones.
        shallow_weight: a.
        kl_weight: b.
        cosine_weight: c.
        temperature: T, above 0.
        detach_teacher: let KL and cosine move the shallow heads alone, not the deep one.
        scale_by_temperature: multiply the KL by T squared, which keeps its gradient's size as T
            changes (arXiv 1503.02531, section 2).
        denominator: clips that the sums are divided by; by default B. Given the clips of all
            workers, values and gradients of the workers add up to those of the whole batch.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"The distillation temperature must be above 0; got {temperature:g}.")
    # A worker may have no clips in a batch: its sums are 0, and so is its share.
    clips = max(1, len(deep)) if denominator is None else denominator
    teacher = deep.detach() if detach_teacher else deep
    none = deep.new_zeros(())
    ce = _cross_entropy(deep, labels) / clips
    shallow_ce = sum((_cross_entropy(s, labels) for s in shallow), none) / clips
    kl = sum((_kl(teacher, s, temperature) for s in shallow), none) / clips
    if scale_by_temperature:
        kl = kl * temperature**2
    cosine = sum((_cosine(teacher, s) for s in shallow), none) / clips
    total = ce + shallow_weight * shallow_ce + kl_weight * kl + cosine_weight * cosine
    return LossParts(total, ce, shallow_ce, kl, cosine)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="sum")


def _kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Sum over clips of KL(softmax(teacher / T) || softmax(student / T))."""
    target = log_softmax(teacher / temperature, dim=1)
    guess = log_softmax(student / temperature, dim=1)
    return kl_div(guess, target, reduction="sum", log_target=True)


def _cosine(teacher: Tensor, student: Tensor) -> Tensor:
    return (2 - 2 * cosine_similarity(student, teacher, dim=1)).sum()
