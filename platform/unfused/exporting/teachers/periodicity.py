"""Periodicity: see `unfused.audio.periodicity`.

Axes: B clips, S samples, T frames of N samples, H bins of a transform of 2 N, L lags, K bands of
lags.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unfused.audio import periodicity
from unfused.exporting.cutting import counted, length
from unfused.exporting.spectrum import one_turn
from unfused.store import Folder
from unfused.teachers import TeacherFacts


class Periodicity(nn.Module):
    """int16 numbers (B, S) to `audio.periodicity.periodicity` (B, 3 K).

    Args:
        sample_rate: Hz.
    """

    window: Tensor
    turn: Tensor
    lags: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.size = round(periodicity.WINDOW_SECONDS * sample_rate)
        self.hop = round(periodicity.HOP_SECONDS * sample_rate)
        self.register_buffer("window", torch.hann_window(self.size))
        self.register_buffer("turn", one_turn(2 * self.size))
        self.register_buffer("lags", lags(sample_rate))
        self.num_lags = int(self.lags.max()) + 1

    def forward(self, samples: Tensor) -> Tensor:
        frames = self._frames(samples)
        power = (frames - frames.mean(2, keepdim=True)).square().mean(2)
        there = (power >= periodicity.QUIET * power.amax(1, keepdim=True))[..., None]
        frames = (frames - frames.mean(2, keepdim=True)) * self.window
        found = self._correlation(frames).index_select(2, self.lags.flatten())
        bands = found.unflatten(2, self.lags.shape).amax(3)
        most = torch.where(there, bands, torch.full_like(bands, -torch.inf)).amax(1)
        count = there.float().sum(1)
        mean = (bands * there).sum(1) / count
        variance = ((bands - mean[:, None]).square() * there).sum(1) / count
        return torch.cat([mean, variance.sqrt(), most], 1)

    def _frames(self, samples: Tensor) -> Tensor:
        """Those that lie in the clip whole (B, T, N); one, where it is shorter."""
        count = 1 + (length(samples) - self.size).clamp(min=0) // self.hop
        places = counted(count)[:, None] * self.hop + torch.arange(self.size)
        found = pad(samples, (0, self.size)).index_select(1, places.flatten())
        return found.unflatten(1, (-1, self.size))

    def _correlation(self, frames: Tensor) -> Tensor:
        """Of every frame with itself by lag (B, T, L), 1 at none."""
        bins, turn = torch.arange(self.size + 1), 2 * self.size
        forth = bins[:, None] * torch.arange(self.size) % turn
        basis = self.turn.index_select(1, forth.flatten()).reshape(-1, self.size)
        real, imaginary = (frames @ basis.T).square().unflatten(2, (2, -1)).unbind(2)
        # Bins but the first and the last stand for two each.
        twice = torch.where((bins > 0) & (bins < self.size), 2.0, 1.0) / turn
        back = bins[:, None] * torch.arange(self.num_lags) % turn
        cosines = self.turn[0].index_select(0, back.flatten()).reshape(len(bins), -1)
        same = ((real + imaginary) * twice) @ cosines
        return same / (same[..., :1] + 1e-6)


def lags(sample_rate: int) -> Tensor:
    """The lags of every band, the last of them repeated where others have more: (K, most)."""
    shortest, longest = periodicity.SHORTEST, periodicity.LONGEST
    edges = np.geomspace(shortest, longest, periodicity.BANDS + 1) * sample_rate
    low, high = torch.from_numpy(edges[:-1].astype(int)), torch.from_numpy(edges[1:].astype(int))
    widest = int((high - low).max()) + 1
    return torch.minimum(low[:, None] + torch.arange(widest), high[:, None])


def module(folder: Folder, facts: TeacherFacts, sample_rate: int) -> Periodicity:
    """See `unfused.exporting.teachers`."""
    return Periodicity(sample_rate)
