"""Waveforms to log-mel spectrograms: fixed windows, the transform, and its normalisation.

The rule of this room: nothing is learned and nothing is random here; the same samples give the same
spectrogram on every device.

Axes: B clips, S samples, F mel bands, T frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchaudio.functional import melscale_fbanks

from unfused.audio.samples import INT16_SCALE

LOG_FLOOR = 1e-6
"""Added to mel power before the logarithm: digital silence is log(1e-6) = -13.8."""
BANDS_TOGETHER = 16
"""Mel bands of one matrix product, which reads only the bins that they cover."""
FRAMES_IN_CACHE = 405
"""Frames whose spectra (1.6 MiB at 1024 samples) are computed together on CPU."""


def to_float(samples: Tensor) -> Tensor:
    """int16 samples of any shape to float32 in [-1, 1)."""
    return samples.to(torch.float32) * INT16_SCALE


class LogMel(nn.Module):
    """log(mel power + 1e-6) as BYOL-A and librosa compute it (arXiv 2103.06695, section IV-A).

    Power spectrogram of centred, zero-padded Hann windows; Slaney filters with Slaney's area
    normalisation. It has no weights and leaves nothing in a state dict.

    Args:
        sample_rate: Hz.
        n_fft: samples of the window and of the transform.
        hop_length: samples between frames.
        n_mels: F.
        f_min: Hz, lower edge of the first band.
        f_max: Hz, upper edge of the last band; at most half of `sample_rate`.

    Raises:
        ValueError: the band edges do not lie in order between 0 and half of `sample_rate`.
    """

    window: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop_length: int = 160,
        n_mels: int = 64,
        f_min: float = 60.0,
        f_max: float = 7800.0,
    ) -> None:
        super().__init__()
        if not 0 <= f_min < f_max <= sample_rate / 2:
            raise ValueError(
                f"Mel bands from {f_min:g} to {f_max:g} Hz do not fit a sample rate of"
                f" {sample_rate} Hz; set f_min < f_max <= {sample_rate / 2:g}."
            )
        self.n_fft, self.hop_length, self.n_mels = n_fft, hop_length, n_mels
        filters = melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self._bins = []
        for number, bands in enumerate(filters.split(BANDS_TOGETHER, dim=1)):
            used = bands.any(dim=1).nonzero()[:, 0]
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
            self._bins.append((2 * low, 2 * high))
            # A bin's power is the sum of two squares: each weighs the same.
            pairs = bands[low:high].repeat_interleave(2, dim=0).contiguous()
            self.register_buffer(f"filters_{number}", pairs, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples (B, S) to log-mel (B, F, T), T = 1 + S // hop_length.

        Args:
            samples: int16, or float32 in [-1, 1].
        """
        frames = 1 + samples.shape[1] // self.hop_length
        if len(samples) == 0:  # a worker's share of a batch may be empty; the FFT wants rows
            return torch.zeros(0, self.n_mels, frames, device=samples.device)
        # On CPU all that becomes of a few clips stays in the cache: twice as fast.
        together = len(samples) if samples.is_cuda else max(1, FRAMES_IN_CACHE // frames)
        parts = [self._log_mel(some) for some in samples.split(together)]
        return torch.cat(parts).transpose(1, 2)

    def _log_mel(self, samples: Tensor) -> Tensor:
        """Samples (B, S) to log-mel (B, T, F)."""
        waves = samples if samples.is_floating_point() else to_float(samples)
        return self._mel_power(waves).add_(LOG_FLOOR).log_()

    def _mel_power(self, waves: Tensor) -> Tensor:
        """float32 samples (B, S) to mel power (B, T, F)."""
        padded = pad(waves, (self.n_fft // 2, self.n_fft // 2))
        windows = padded.unfold(1, self.n_fft, self.hop_length) * self.window
        squares = torch.view_as_real(torch.fft.rfft(windows)).square_().flatten(2)
        parts = [
            squares[..., low:high] @ self.get_buffer(f"filters_{number}")
            for number, (low, high) in enumerate(self._bins)
        ]
        return torch.cat(parts, dim=2)


class Normalize(nn.Module):
    """(x - mean) / std with one mean and one standard deviation for all bands.

    Args:
        mean: of log-mel values over the training clips.
        std: likewise, above 0.

    Raises:
        ValueError: `std` is not above 0, or either is not finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError(
                f"Log-mel statistics of mean {mean:g} and standard deviation {std:g} cannot"
                " normalise anything; give clips that are not all silent."
            )
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
