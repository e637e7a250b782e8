"""Waveforms to log-mel spectrograms: fixed windows, the transform, and its normalisation.

The rule of this room: nothing is learned and nothing is random here; the same samples give the same
spectrogram on every device.

Axes: B clips, S samples, F mel bands, T frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from unfused.audio import fast_log_mel
from unfused.audio.samples import INT16_SCALE

LOG_FLOOR = 1e-6
"""Added to mel power before the logarithm: digital silence is log(1e-6) = -13.8."""


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
        self.hop_length, self.n_mels = hop_length, n_mels
        filters = melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        power = MelPower(torch.hann_window(n_fft), hop_length, filters)
        self.steps = nn.Sequential(ToFloat(), power, Log())
        fast_log_mel.swap_in(self)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples (B, S) to log-mel (B, F, T), T = 1 + S // hop_length.

        Args:
            samples: int16, or float32 in [-1, 1].
        """
        if len(samples) == 0:  # a worker's share of a batch may be empty; the FFT wants rows
            frames = 1 + samples.shape[1] // self.hop_length
            return torch.zeros(0, self.n_mels, frames, device=samples.device)
        return self.steps(samples).transpose(1, 2)


class ToFloat(nn.Module):
    """Samples as float32 in [-1, 1]; those that are so already stay as they are."""

    def forward(self, samples: Tensor) -> Tensor:
        return samples if samples.is_floating_point() else to_float(samples)


class MelPower(nn.Module):
    """float32 samples (B, S) to mel power (B, T, F).

    Args:
        window: (n_fft,).
        hop_length: samples between frames.
        filters: (n_fft // 2 + 1, F), a column for each band.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, window: Tensor, hop_length: int, filters: Tensor) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        spectrum = torch.stft(
            waves,
            len(self.window),
            self.hop_length,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.abs().square().transpose(1, 2) @ self.filters


class Log(nn.Module):
    """Power, changed in place, to its logarithm above the floor."""

    def forward(self, power: Tensor) -> Tensor:
        return power.add_(LOG_FLOOR).log_()


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
