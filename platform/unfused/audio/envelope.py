"""Envelope of a clip: how loud it is, what of it is loud when, and in what rhythm.

Cepstra cut silence away and say nothing of how long it was or of how loud the rest is; log-mel
statistics know neighbouring frames and six pieces. Tempo, tremolo, the place of an event and how
long it lasts lie between. Made for `probing`, beside the others.

Axes: S samples of a clip, T frames, Q quantiles, G segments, M bands of modulation, P features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from unfused.audio import cepstra
from unfused.audio.frontend import LogMel

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SEGMENTS = 8
SLOWEST, FASTEST, BANDS = 0.5, 48.0, 20
"""Hz of the modulations that are heard, and in how many bands, evenly spaced in the logarithm."""
PIECE, STEP = 1024, 512
"""Frames of which a spectrum is taken, and at most so many between two of them: ten seconds, so
that the narrowest band has a bin of its own."""
SHARE_FLOOR, POWER_FLOOR = 1e-4, 1e-6
"""Added to a band's share before the logarithm, and to the power that shares are taken of."""
WIDTH = len(QUANTILES) + 3 + SEGMENTS + BANDS
"""P."""

front_end = cepstra.front_end


def envelope(wave: Tensor, log_mel: LogMel, sample_rate: int) -> Tensor:
    """An int16 clip (S,) of any length to its features (P,), P = Q + 3 + G + M.

    Args:
        wave: the clip.
        log_mel: as `front_end` makes it.
        sample_rate: Hz.

    Returns:
        Of the level of its frames, which is the logarithm of their mean power, quantiles, mean and
        deviation; the logarithm of its seconds; the level of equal segments beside that mean; and
        the logarithms of the shares that bands of modulation have in how the level changes.
    """
    level = log_mel(wave[None])[0].exp().mean(0).log()
    mean = level.mean()
    whole = [mean, level.std(correction=0), torch.tensor(math.log(len(wave) / sample_rate))]
    segments = adaptive_avg_pool1d(level[None], SEGMENTS)[0] - mean
    quantiles = level.quantile(torch.tensor(QUANTILES))
    shares = modulation(level, log_mel.hop_length / sample_rate)
    return torch.cat([quantiles, torch.stack(whole), segments, shares])


def modulation(level: Tensor, hop_seconds: float) -> Tensor:
    """Levels (T,) to the logarithms of the shares of M bands; pieces of long clips are averaged."""
    size = min(len(level), PIECE)
    spare = len(level) - size
    count = 1 + math.ceil(spare / STEP)
    begins = torch.arange(count) * spare // max(1, count - 1)
    pieces = level[begins[:, None] + torch.arange(size)]
    pieces = (pieces - pieces.mean(1, keepdim=True)) * torch.hann_window(size)
    power = torch.fft.rfft(pieces, PIECE).abs().square().mean(0) @ band_means(hop_seconds)
    return (power / (power.sum() + POWER_FLOOR) + SHARE_FLOOR).log()


def band_means(hop_seconds: float) -> Tensor:
    """What every bin of a piece's spectrum adds to the mean of each band: (PIECE // 2 + 1, M)."""
    hertz = torch.arange(PIECE // 2 + 1, dtype=torch.float64)[:, None] / (PIECE * hop_seconds)
    edges = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), BANDS + 1, dtype=torch.float64)
    inside = ((hertz >= edges[:-1]) & (hertz < edges[1:])).float()
    return inside / inside.sum(0)
