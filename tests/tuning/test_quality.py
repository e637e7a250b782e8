"""Judgements of a student that no label trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unfused.audio.samples import Windows
from unfused.config import AudioConfig, Config, override
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.student import StudentHeads
from unfused.tuning import quality


def test_the_effective_rank_counts_directions():
    rng = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 3, generator=rng) @ torch.randn(3, 40, generator=rng)
    assert 1.5 < quality.effective_rank(flat) <= 3.01
    assert quality.effective_rank(torch.eye(30)) == pytest.approx(30, rel=1e-3)


def test_the_probe_tells_separable_classes_apart_and_is_lost_on_noise():
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 4
    means = 3 * torch.randn(4, 64, generator=rng)
    noise = torch.randn(80, 64, generator=rng)
    few, new = means[targets] + noise[:40], means[targets] + noise[40:]
    weight = quality.ridge(few, targets, 4)
    assert ((quality.add_bias(new) @ weight).argmax(1) == targets).float().mean() > 0.95
    weight = quality.ridge(noise[:40], targets, 4)
    assert ((quality.add_bias(noise[40:]) @ weight).argmax(1) == targets).float().mean() < 0.6


def test_an_untrained_student_is_as_good_as_chance_on_clips_in_silence():
    small = override(Config(), {"student.embedding_dim": 16}).student
    encoder = ClipEncoder(AudioConfig(), small, mean=-8.0, std=4.0)
    silence = torch.zeros(9, AudioConfig().crop_samples, dtype=torch.int16)
    windows = Windows(silence, torch.tensor([3, 1, 2, 1, 2]))
    embedding = quality.embed(encoder, windows, "float32")
    assert embedding.shape == (5, 16) and not encoder.training
    assert torch.allclose(embedding, embedding[:1].expand(5, -1), atol=1e-6)
    heads, labels = StudentHeads(encoder.encoder, 4, None), np.arange(5) % 4
    loss = quality.held_out_loss(encoder, heads, windows, labels)
    assert loss == pytest.approx(1.0, abs=0.6) and math.isfinite(loss)
