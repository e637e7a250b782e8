"""Log-mel with less work: the clever part behind the switch "log_mel".

A band's filter is zero at most bins, so that the bands are multiplied in groups, each with the bins
that it covers; and on CPU all that becomes of a few clips stays in the cache, which is twice as
fast.

The rule of this file: what comes out is what the plain steps of `frontend` give, up to rounding.

Axes: B clips, S samples, F mel bands, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unfused import speedups

BANDS_TOGETHER = 16
"""Mel bands of one matrix product, which reads only the bins that they cover."""
FRAMES_IN_CACHE = 405
"""Frames whose spectra (1.6 MiB at 1024 samples) are computed together on CPU."""


def swap_in(log_mel: nn.Module) -> None:
    """Replace the `steps` of a `LogMel` (to float, mel power, logarithm) where the part is on."""
    if speedups.enabled("log_mel"):
        to_float, power, log = log_mel.steps
        grouped = GroupedMelPower(power.window, power.hop_length, power.filters)
        log_mel.steps = FewClipsAtOnce(to_float, grouped, log)


class FewClipsAtOnce(nn.Sequential):
    """Steps that a few clips take together, after them the next few: (B, S) to (B, T, F)."""

    def forward(self, samples: Tensor) -> Tensor:
        frames = 1 + samples.shape[1] // self[1].hop_length
        together = len(samples) if samples.is_cuda else max(1, FRAMES_IN_CACHE // frames)
        run = super().forward
        return torch.cat([run(some) for some in samples.split(together)])


class GroupedMelPower(nn.Module):
    """float32 samples (B, S) to mel power (B, T, F), a matrix product for each group of bands.

    Args:
        window: (n_fft,).
        hop_length: samples between frames.
        filters: (n_fft // 2 + 1, F), a column for each band.
    """

    window: Tensor

    def __init__(self, window: Tensor, hop_length: int, filters: Tensor) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.register_buffer("window", window, persistent=False)
        self._bins = []
        for number, bands in enumerate(filters.split(BANDS_TOGETHER, dim=1)):
            used = bands.any(dim=1).nonzero()[:, 0]
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
            self._bins.append((2 * low, 2 * high))
            # A bin's power is the sum of two squares: each weighs the same.
            pairs = bands[low:high].repeat_interleave(2, dim=0).contiguous()
            self.register_buffer(f"filters_{number}", pairs, persistent=False)

    @property
    def filters(self) -> Tensor:
        """(n_fft // 2 + 1, F), as they were given."""
        num_bins = len(self.window) // 2 + 1
        groups = [
            pad(self.get_buffer(f"filters_{number}")[::2], (0, 0, low // 2, num_bins - high // 2))
            for number, (low, high) in enumerate(self._bins)
        ]
        return torch.cat(groups, dim=1)

    def forward(self, waves: Tensor) -> Tensor:
        n_fft = len(self.window)
        padded = pad(waves, (n_fft // 2, n_fft // 2))
        windows = padded.unfold(1, n_fft, self.hop_length) * self.window
        squares = torch.view_as_real(torch.fft.rfft(windows)).square_().flatten(2)
        parts = [
            squares[..., low:high] @ self.get_buffer(f"filters_{number}")
            for number, (low, high) in enumerate(self._bins)
        ]
        return torch.cat(parts, dim=2)
