"""Dropout on CPU is dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unfused.models.encoders.audio_ntt import AudioNTT
from unfused.models.fast_dropout import Dropout, kept, swap_in


@pytest.mark.parametrize("p", [0.1, 0.3, 0.75])
def test_dropout_drops_its_share_in_every_place_and_keeps_the_mean(p):
    torch.manual_seed(0)
    mask = kept(torch.Size([1000, 403]), p, torch.float32).flatten()
    for place in range(4):
        assert float((mask[place::4] == 0).float().mean()) == pytest.approx(p, abs=0.006)
    assert float(mask.mean()) == pytest.approx(1, abs=0.01)
    assert len(mask.unique()) == 2


def test_dropout_follows_the_seed_and_its_gradient_is_its_mask():
    x = torch.ones(64, 33, requires_grad=True)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(Dropout(0.3)(x))
    assert torch.equal(*found) and not torch.equal(found[0], Dropout(0.3)(x))
    found[0].sum().backward()
    assert torch.equal(x.grad, found[0])


def test_dropout_does_nothing_when_it_is_not_training():
    x = torch.randn(4, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_on_and_off_drop_the_same_share_and_keep_the_same_mean(monkeypatch):
    torch.manual_seed(0)
    x, found = torch.ones(1000, 403), {}
    for chosen in ("dropout", "none"):
        monkeypatch.setenv("UNFUSED_SPEEDUPS", chosen)
        module = nn.Sequential(nn.Dropout(0.3))
        swap_in(module)
        found[chosen] = module(x)
        assert type(module[0]) is (Dropout if chosen == "dropout" else nn.Dropout)
    for values in found.values():
        assert float((values == 0).float().mean()) == pytest.approx(0.3, abs=0.003)
        assert float(values.mean()) == pytest.approx(1, abs=0.005)


def test_an_encoder_without_clever_parts_is_made_of_torchs_own_modules(monkeypatch):
    monkeypatch.setenv("UNFUSED_SPEEDUPS", "none")
    own = {type(module) for module in AudioNTT(n_mels=16, embedding_dim=24).modules()}
    assert {kind.__module__.partition(".")[0] for kind in own - {AudioNTT}} == {"torch"}
