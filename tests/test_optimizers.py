"""Optimisers against their formulas, and the schedule of the learning rate."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from unfused.optimizers import LARC, build_optimizer, learning_rate_factor


def test_the_schedule_warms_up_and_falls_to_nothing():
    rate = [
        learning_rate_factor(s, num_steps=100, warmup_fraction=0.1, schedule="cosine")
        for s in range(100)
    ]
    assert rate[0] == pytest.approx(0.1) and rate[9] == pytest.approx(1.0)
    assert max(rate) == pytest.approx(1.0) and rate[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(rate[10:]))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.02)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.02)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.02)),
    ],
)
def test_fast_optimisers_step_as_the_plain_ones(name, plain):
    torch.manual_seed(2)
    start, gradients = torch.randn(7, 5), torch.randn(4, 7, 5)
    results = []
    for build in (plain, lambda p: build_optimizer(name, p, 0.1, 0.02)):
        weight = nn.Parameter(start.clone())
        optimizer = build([weight])
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(results[1], results[0])
    assert not torch.allclose(results[1], start, atol=0.1)


def test_larc_follows_its_formula():
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(5, 4))
    start, grad = weight.detach().clone(), torch.randn(5, 4)
    optimizer = LARC([{"params": [weight], "lr": 0.1}], lr=0.1, weight_decay=0.01)
    weight.grad = copy.deepcopy(grad)
    optimizer.step()
    local = 0.001 * start.norm() / (grad.norm() + 0.01 * start.norm())
    expected = start - 0.1 * min(float(local) / 0.1, 1.0) * (grad + 0.01 * start)
    torch.testing.assert_close(weight.detach(), expected)
