"""Log-mel by a convolution with the windowed Fourier basis: no runtime lacks it, as many lack an
FFT.

The rule of this file: the filters and the window are read from the front end that is exported, so
that they cannot differ from it.

Axes: B clips, S samples, N samples of a transform, K bins that a band covers, F mel bands, T
frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from unfused.audio.frontend import LOG_FLOOR, LogMel
from unfused.audio.samples import INT16_SCALE


class PlainLogMel(nn.Module):
    """What a `LogMel` makes of int16 numbers (B, S): log-mel (B, F, T).

    Args:
        log_mel: the front end.
    """

    window: Tensor
    turn: Tensor
    filters: Tensor

    def __init__(self, log_mel: LogMel) -> None:
        super().__init__()
        power = log_mel.steps[1]
        used = power.filters.any(dim=1).nonzero()[:, 0]
        self.bins = int(used[0]), int(used[-1]) + 1
        self.size, self.hop_length = len(power.window), log_mel.hop_length
        self.register_buffer("window", power.window.clone())
        self.register_buffer("turn", one_turn(self.size))
        self.register_buffer("filters", power.filters[slice(*self.bins)].clone())

    def forward(self, samples: Tensor) -> Tensor:
        waves = samples[:, None] * INT16_SCALE
        padding = self.size // 2
        parts = conv1d(waves, self._fourier(), stride=self.hop_length, padding=padding).square()
        real, imaginary = parts.unflatten(1, (2, -1)).unbind(1)
        power = (real + imaginary).transpose(1, 2) @ self.filters
        return (power + LOG_FLOOR).log().transpose(1, 2)

    def _fourier(self) -> Tensor:
        """The real parts, then the imaginary ones, of a windowed transform: (2 K, 1, N).

        Made when the file is opened: as numbers in it they would be most of its bytes.
        """
        places = torch.arange(*self.bins)[:, None] * torch.arange(self.size) % self.size
        basis = self.turn.index_select(1, places.flatten()).reshape(-1, self.size)
        return (basis * self.window)[:, None]


def one_turn(size: int) -> Tensor:
    """Cosine and negative sine of N angles once round: (2, N)."""
    angles = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return torch.stack([angles.cos(), -angles.sin()]).float()
