"""Cepstra of a clip: what sounds when, however long the clip is, and how it sounds as a whole.

Aligned in time, the part of a clip that sounds is cut into equal segments, each of which is told by
its mean cepstrum: a word that is spoken slowly or after a pause looks like one that is spoken at
once. Their moments leave the order of things out, as fits a voice or a texture. Made for `probing`,
where they stand beside log-mel statistics.

Axes: S samples of a clip, F mel bands, T frames, C cepstral coefficients, G segments, P features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, pad

from unfused.audio.frontend import LogMel

BANDS = 40
COEFFICIENTS = 13
SEGMENTS = 8
LOUD = 0.3
"""A frame sounds that lies so far up between the quiet frames and the loudest one."""
QUIET_SHARE = 0.05
"""Of the frames, the quiet ones."""
WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.01
NUM_FEATURES = COEFFICIENTS * SEGMENTS + 1
FINE = 20
"""Coefficients whose moments are taken."""
REACH = 2
"""Frames to either side between which a cepstrum's slope is measured."""
NUM_MOMENTS = 3 * FINE


def front_end(sample_rate: int) -> LogMel:
    """40 bands from 60 Hz to just below half the sample rate, in frames of a hundredth second."""
    return LogMel(
        sample_rate=sample_rate,
        n_fft=round(WINDOW_SECONDS * sample_rate),
        hop_length=round(HOP_SECONDS * sample_rate),
        n_mels=BANDS,
        f_min=60.0,
        f_max=min(7800.0, 0.4875 * sample_rate),
    )


def cepstra(wave: Tensor, log_mel: LogMel, *, centred: bool) -> Tensor:
    """An int16 clip (S,) of any length to its features (P,), P = C G + 1.

    Args:
        wave: the clip.
        log_mel: as `front_end` makes it.
        centred: subtract the clip's mean cepstrum, and with it what a microphone, a room or a
            speaker adds throughout.

    Returns:
        C coefficients of every segment, and the logarithm of how long it sounds, in seconds.
    """
    frames = sounding(log_mel(wave[None])[0])
    found = cosines(BANDS, COEFFICIENTS) @ frames
    if centred:
        found = found - found.mean(1, keepdim=True)
    segments = adaptive_avg_pool1d(found, SEGMENTS)
    seconds = torch.tensor([math.log(frames.shape[1] * HOP_SECONDS)])
    return torch.cat([segments.flatten(), seconds])


def moments(wave: Tensor, log_mel: LogMel) -> Tensor:
    """An int16 clip (S,) of any length to the moments of its cepstra (P,).

    Args:
        wave: the clip.
        log_mel: as `front_end` makes it.

    Returns:
        Mean and deviation of every coefficient, and the deviation of its slope.
    """
    found = cosines(BANDS, FINE) @ sounding(log_mel(wave[None])[0])
    around = pad(found, (REACH, REACH), mode="replicate")
    slope = (around[:, 2 * REACH :] - around[:, : -2 * REACH]) / (2 * REACH)
    return torch.cat([found.mean(1), found.std(1, correction=0), slope.std(1, correction=0)])


def sounding(frames: Tensor) -> Tensor:
    """The frames (F, T') of log-mel (F, T) from the first that sounds to the last."""
    level = frames.mean(0)
    quiet, loudest = level.quantile(QUIET_SHARE), level.max()
    sounds = torch.nonzero(level >= quiet + LOUD * (loudest - quiet))
    return frames[:, int(sounds[0]) : int(sounds[-1]) + 1]


def cosines(bands: int, coefficients: int) -> Tensor:
    """The first rows (C, F) of the orthonormal discrete cosine transform of type II."""
    order, band = torch.arange(coefficients)[:, None], torch.arange(bands)[None]
    basis = torch.cos(math.pi / bands * (band + 0.5) * order) * math.sqrt(2 / bands)
    basis[0] /= math.sqrt(2)
    return basis
