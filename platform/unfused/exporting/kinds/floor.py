"""Log-mel statistics and logistic regression: see `unfused.scorers.floor`.

Axes: B clips, S samples, F mel bands, T frames, P statistics, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unfused.audio.statistics import SEGMENTS, front_end
from unfused.config import ConfigError
from unfused.exporting.cutting import counted, length
from unfused.exporting.spectrum import PlainLogMel
from unfused.scorers import ScorerFacts
from unfused.scorers.floor import Regression
from unfused.store import Folder


class Statistics(nn.Module):
    """int16 numbers (B, S) to `audio.statistics` (B, P).

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.spectrum = PlainLogMel(front_end(sample_rate))

    def forward(self, samples: Tensor) -> Tensor:
        hop = self.spectrum.hop_length
        # Zeros as those beyond the clip: its own frames stay, and there are never too few to count.
        frames = self.spectrum(pad(samples, (0, SEGMENTS * hop)))
        there = 1 + length(samples) // hop
        order = counted(there.clamp(min=SEGMENTS))
        # A clip of a frame or two goes on as it ends.
        frames = frames.index_select(2, torch.minimum(order, there - 1))
        changes = frames[..., 1:] - frames[..., :-1]
        pieces = (frames @ shares(order).T).transpose(1, 2).flatten(1)
        return torch.cat([frames.mean(2), deviation(frames), deviation(changes), pieces], 1)


def deviation(values: Tensor) -> Tensor:
    """Over the last axis, of all there is."""
    return (values - values.mean(-1, keepdim=True)).square().mean(-1).sqrt()


def shares(order: Tensor) -> Tensor:
    """What each of the frames 0, 1, ..., T - 1 adds to the mean of each segment (6, T): as
    `tensor_split` has them, the first ones a frame longer where they are not of one size."""
    total = order[-1] + 1
    number = torch.arange(SEGMENTS + 1)
    edges = number * (total // SEGMENTS) + torch.minimum(number, total % SEGMENTS)
    first, after = edges[:-1, None], edges[1:, None]
    return ((order >= first) & (order < after)).float() / (after - first)


class Floor(nn.Module):
    """int16 numbers (B, S) to scores (B, N) and the standardised statistics (B, P).

    Args:
        one: the classifier of a draw.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, one: Regression) -> None:
        super().__init__()
        self.statistics = Statistics(one.sample_rate)
        for name in ("mean", "std", "weight", "bias"):
            self.register_buffer(name, getattr(one, name))

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        rows = (self.statistics(samples) - self.mean) / self.std
        return rows @ self.weight.T + self.bias, rows


def module(folder: Folder, facts: ScorerFacts, sample_rate: int) -> Floor:
    """See `unfused.exporting`."""
    one = Regression.load(folder, repeat=0)
    if one.sample_rate != sample_rate:
        raise ConfigError(
            f"The arm floor takes {one.sample_rate} Hz and the export says {sample_rate}; name the"
            " rate that the clips were ingested with."
        )
    return Floor(one)
