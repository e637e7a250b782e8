"""The distillation loss against its formula, written out clip by clip in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unfused import losses

WEIGHTS = {"shallow_weight": 0.7, "kl_weight": 0.3, "cosine_weight": 0.003}
RELEASED = WEIGHTS | {"temperature": 1.0, "detach_teacher": False, "scale_by_temperature": False}


FULL = WEIGHTS | {"temperature": 3.0, "detach_teacher": True, "scale_by_temperature": True}


def unfused_loss(deep, shallow, labels, **changes) -> losses.LossParts:
    """The loss with all of its parts, but for what a test changes."""
    return losses.unfused_loss(deep, shallow, labels, **FULL | changes)


def logits(
    batch: int = 5, clusters: int = 4, heads: int = 3
) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(batch)
    deep, *shallow = torch.randn(1 + heads, batch, clusters, generator=generator).double() * 2
    labels = torch.randint(clusters, (batch,), generator=generator)
    return (
        deep.clone().requires_grad_(),
        [s.clone().requires_grad_() for s in shallow],
        labels,
    )


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum())


def by_hand(deep, shallow, labels, temperature: float, scale: bool) -> dict[str, float]:
    """Every part of the loss, one clip and one head at a time."""
    parts = dict.fromkeys(("ce", "shallow_ce", "kl", "cosine"), 0.0)
    for i, label in enumerate(labels.tolist()):
        d = deep[i].detach().numpy()
        parts["ce"] -= log_softmax(d)[label]
        for head in shallow:
            s = head[i].detach().numpy()
            parts["shallow_ce"] -= log_softmax(s)[label]
            p, q = log_softmax(d / temperature), log_softmax(s / temperature)
            parts["kl"] += (np.exp(p) * (p - q)).sum() * (temperature**2 if scale else 1)
            parts["cosine"] += 2 - 2 * d @ s / np.linalg.norm(d) / np.linalg.norm(s)
    return {name: value / len(labels) for name, value in parts.items()}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("scale", [False, True])
def test_every_part_is_what_the_formula_says(temperature, scale):
    deep, shallow, labels = logits()
    found = unfused_loss(
        deep, shallow, labels, **WEIGHTS, temperature=temperature, scale_by_temperature=scale
    )
    parts = by_hand(deep, shallow, labels, temperature, scale)
    for name, value in parts.items():
        assert float(getattr(found, name).detach()) == pytest.approx(value), name
    total = parts["ce"] + 0.7 * parts["shallow_ce"] + 0.3 * parts["kl"] + 0.003 * parts["cosine"]
    assert float(found.total.detach()) == pytest.approx(total)


def test_the_gradient_is_the_slope_of_the_value():
    deep, shallow, labels = logits(batch=2, clusters=3)

    def total(deep, *shallow):
        return unfused_loss(deep, shallow, labels, **RELEASED | {"temperature": 2.0}).total

    assert torch.autograd.gradcheck(total, (deep, *shallow))


def test_a_detached_deep_head_learns_from_its_labels_alone():
    deep, shallow, labels = logits()
    unfused_loss(deep, shallow, labels, **WEIGHTS, detach_teacher=True).total.backward()
    onehot = torch.nn.functional.one_hot(labels, 4)
    torch.testing.assert_close(deep.grad, (deep.detach().softmax(1) - onehot) / 5)


def test_as_released_the_shallow_heads_pull_on_the_deep_one():
    detached, released = logits(), logits()
    for (deep, shallow, labels), detach in ((detached, True), (released, False)):
        unfused_loss(
            deep, shallow, labels, **RELEASED | {"detach_teacher": detach}
        ).total.backward()
    assert (detached[0].grad - released[0].grad).abs().max() > 1e-2
    for one, other in zip(detached[1], released[1], strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_scaling_keeps_the_size_of_the_kl_gradient_at_high_temperature():
    sizes = []
    for temperature in (10.0, 100.0):
        deep, shallow, labels = logits()
        loss = unfused_loss(deep, shallow, labels, temperature=temperature)
        loss.kl.backward()
        sizes.append(float(shallow[0].grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_without_the_extra_terms_it_is_cross_entropy_on_the_deep_head():
    deep, shallow, labels = logits()
    off = {"shallow_weight": 0.0, "kl_weight": 0.0, "cosine_weight": 0.0}
    total = unfused_loss(deep, shallow, labels, **off).total
    torch.testing.assert_close(total, torch.nn.functional.cross_entropy(deep, labels))
    total.backward()
    assert all(not head.grad.any() for head in shallow)


def test_the_shares_of_uneven_workers_add_up_to_the_whole_batch():
    deep, shallow, labels = logits(batch=7)
    whole = unfused_loss(deep, shallow, labels)
    whole.total.backward()
    expected, deep.grad = deep.grad, None
    values = torch.zeros(len(whole), dtype=torch.float64)
    for rows in (slice(0, 5), slice(5, 7), slice(7, 7)):
        share = unfused_loss(
            deep[rows], [s[rows] for s in shallow], labels[rows], denominator=torch.tensor(7)
        )
        share.total.backward()
        values += torch.stack(share).detach()
    torch.testing.assert_close(values, torch.stack(whole).detach())
    torch.testing.assert_close(deep.grad, expected)


def test_a_worker_without_clips_contributes_zero():
    deep, shallow, labels = logits()
    empty = unfused_loss(deep[:0], [s[:0] for s in shallow], labels[:0])
    assert not torch.stack(empty).any()


def test_an_encoder_without_shallow_layers_learns_from_its_labels_alone():
    deep, _, labels = logits()
    found = unfused_loss(deep, (), labels)
    torch.testing.assert_close(found.total, torch.nn.functional.cross_entropy(deep, labels))
    assert not torch.stack(found)[2:].any()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="above 0"):
        unfused_loss(*logits(), temperature=temperature)
