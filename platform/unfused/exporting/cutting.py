"""A batch of waveforms as ingest stores it, and its windows, in operators that can be exported.

The rule of this file: the windows are those of `audio.samples.Cut`. How many there are depends on
the length of the clips, which is known when the file runs: it is computed, never branched on.

Axes: B clips, S' samples of a clip, C windows of one, S samples of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unfused.audio.samples import FLOOR, MAX_WINDOWS, ONE_WINDOW, QUIET, Cut

FULL_SCALE = 32768.0


def as_int16(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1] as float32 numbers that int16 has: see `audio.samples.to_int16`."""
    return (waveform * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1)


def length(samples: Tensor) -> Tensor:
    """S' as a number of the graph."""
    return torch.full((), samples.shape[1], dtype=torch.int64)


def counted(count: Tensor, most: int | None = None) -> Tensor:
    """0, 1, ... up to a number that the graph computes, which is at least 1."""
    number = count.item()
    torch._check(number >= 1)
    if most is not None:
        torch._check(number <= most)
    return torch.arange(number)


class Windowed(nn.Module):
    """int16 numbers (B, S') to windows (B, C, S), and which of them are no silence (B, C).

    Args:
        cut: how clips are cut.
    """

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        size = self.cut.num_samples
        margin = size // 2 + 1
        places = (self._begins(length(samples)) + margin)[:, None] + torch.arange(size)
        windows = pad(samples, (margin, margin)).index_select(1, places.flatten())
        windows = windows.unflatten(1, (-1, size))
        return windows, are_sound(windows)

    def _begins(self, length: Tensor) -> Tensor:
        """Where windows begin (C,): before the clip where that is shorter than one."""
        spare = length - self.cut.num_samples
        middle = torch.where(spare >= 0, spare // 2, -(-spare // 2))[None]
        most = MAX_WINDOWS if self.cut.num_crops == "auto" else self.cut.num_crops
        if most == 1:
            return middle
        count = self._count(length)
        spread = counted(count, most) * spare // (count - 1).clamp(min=1)
        return torch.where(count > 1, spread, middle)

    def _count(self, length: Tensor) -> Tensor:
        """See `Cut.count`."""
        size, one = self.cut.num_samples, torch.ones_like(length)
        if self.cut.num_crops != "auto":
            return torch.where(length <= size, one, one * self.cut.num_crops)
        covering = ((length + size - 1) // size).clamp(max=MAX_WINDOWS)
        return torch.where(length <= int(ONE_WINDOW * size), one, covering)


def are_sound(windows: Tensor) -> Tensor:
    """Which windows (B, C, S) of each clip are no silence (B, C): see `audio.samples.are_sound`."""
    power = (windows - windows.mean(2, keepdim=True)).square().mean(2)
    loudest = power.amax(1, keepdim=True)
    return (loudest <= FLOOR) | (power >= (QUIET * loudest).clamp(min=FLOOR))
