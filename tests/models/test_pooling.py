"""What is said of windows becomes what is said of their clips."""

from __future__ import annotations

import pytest
import torch

from unfused.models.pooling import POOLINGS, attention, maximum, mean

COUNTS = torch.tensor([1, 3, 2])


def test_a_clip_is_pooled_over_its_own_windows():
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    clips = values.split(COUNTS.tolist())
    torch.testing.assert_close(mean(values, COUNTS), torch.stack([c.mean(0) for c in clips]))
    torch.testing.assert_close(maximum(values, COUNTS), torch.stack([c.amax(0) for c in clips]))
    sure = [c.softmax(1).amax(1, keepdim=True) for c in clips]
    weighted = [(w * c).sum(0) / w.sum() for w, c in zip(sure, clips, strict=True)]
    torch.testing.assert_close(attention(values, COUNTS), torch.stack(weighted))


@pytest.mark.parametrize("how", POOLINGS)
def test_a_clip_of_one_window_has_that_windows_scores(how):
    scores = torch.randn(3, 4)
    torch.testing.assert_close(POOLINGS[how](scores, torch.ones(3, dtype=torch.int64)), scores)


def test_attention_hears_the_window_that_is_sure():
    unsure, sure = torch.tensor([0.1, 0.0, 0.0]), torch.tensor([0.0, 6.0, 0.0])
    scores = torch.stack([unsure, sure])
    pooled = attention(scores, torch.tensor([2]))[0]
    assert pooled[1] > mean(scores, torch.tensor([2]))[0, 1] > pooled[0]
