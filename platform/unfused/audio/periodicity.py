"""Periodicity of a clip: at which pitches it repeats itself, and how steadily.

The normalised autocorrelation of short frames by bands of lags, over the frames that sound. It
tells voices, engines and tones apart that cepstra, which follow the envelope of a spectrum, take
for the same. Made for `probing`, beside log-mel statistics and cepstra.

Axes: S samples of a clip, T frames that sound, L lags, K bands of lags, P features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

WINDOW_SECONDS, HOP_SECONDS = 0.064, 0.016
SHORTEST, LONGEST = 0.001, 0.02
"""Seconds of a lag: pitches from 50 to 1,000 Hz."""
BANDS = 48
"""K, evenly spaced in the logarithm of the lag."""
QUIET = 0.05
"""Power of a frame beside the loudest one below which it is not looked at."""
WIDTH = 3 * BANDS
"""P."""


def periodicity(wave: Tensor, sample_rate: int) -> Tensor:
    """An int16 clip (S,) of any length to its features (P,), P = 3 K.

    Args:
        wave: the clip.
        sample_rate: Hz.

    Returns:
        Over frames the mean, deviation and maximum of the largest correlation in every band, in
        [-1, 1]; zeros of a clip that is silent.
    """
    size, hop = round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    samples = pad(wave.float(), (0, max(0, size - len(wave))))
    frames = samples.unfold(0, size, hop)
    power = frames.var(1, correction=0)
    frames = frames[power >= QUIET * power.max()]
    frames = (frames - frames.mean(1, keepdim=True)) * torch.hann_window(size)
    # Zeros to twice the length: the correlation of a frame with itself, not around its ends.
    spectrum = torch.fft.rfft(frames, 2 * size)
    same = torch.fft.irfft(spectrum.abs() ** 2)[:, :size]
    same = same / (same[:, :1] + 1e-6)
    edges = np.geomspace(SHORTEST, LONGEST, BANDS + 1) * sample_rate
    pairs = zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True)
    bands = torch.stack([same[:, low : high + 1].amax(1) for low, high in pairs], 1)
    return torch.cat([bands.mean(0), bands.std(0, correction=0), bands.amax(0)])
