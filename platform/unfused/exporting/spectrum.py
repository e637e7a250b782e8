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

    fourier: Tensor
    filters: Tensor

    def __init__(self, log_mel: LogMel) -> None:
        super().__init__()
        power = log_mel.steps[1]
        used = power.filters.any(dim=1).nonzero()[:, 0]
        bins = torch.arange(int(used[0]), int(used[-1]) + 1)
        self.hop_length = log_mel.hop_length
        self.register_buffer("fourier", fourier(power.window, bins))
        self.register_buffer("filters", power.filters[bins].clone())

    def forward(self, samples: Tensor) -> Tensor:
        waves, size = samples[:, None] * INT16_SCALE, self.fourier.shape[2]
        parts = conv1d(waves, self.fourier, stride=self.hop_length, padding=size // 2).square()
        real, imaginary = parts.unflatten(1, (2, -1)).unbind(1)
        power = (real + imaginary).transpose(1, 2) @ self.filters
        return (power + LOG_FLOOR).log().transpose(1, 2)


def fourier(window: Tensor, bins: Tensor) -> Tensor:
    """The real parts, then the imaginary ones, of a windowed transform at `bins`: (2 K, 1, N)."""
    size = len(window)
    # The phase of a whole turn is none: in integers, for their products are large.
    turns = (bins[:, None] * torch.arange(size)) % size
    angles = turns.double() * (2 * math.pi / size)
    basis = torch.cat([angles.cos(), -angles.sin()]) * window.double()
    return basis[:, None].float()
