"""Log-mel statistics of a whole clip: what tells clips apart before anything is learned.

Axes: S samples of a clip, F mel bands, T frames, P statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from unfused.audio.frontend import LogMel

BANDS = 40
SEGMENTS = 6
"""Equal pieces of a clip, whose means tell what comes when."""
WIDTH = (3 + SEGMENTS) * BANDS
"""P."""


def front_end(sample_rate: int) -> LogMel:
    """40 bands from 60 Hz to just below half the sample rate."""
    return LogMel(
        sample_rate=sample_rate, n_mels=BANDS, f_min=60.0, f_max=min(7800.0, 0.4875 * sample_rate)
    )


def statistics(wave: Tensor, log_mel: LogMel) -> Tensor:
    """An int16 clip (S,) of any length to its statistics (P,), P = 9 F.

    Mean and deviation of every band, deviation of its differences between frames, and its means
    over six equal segments.
    """
    frames = log_mel(wave[None])[0]
    frames = pad(frames, (0, max(0, SEGMENTS - frames.shape[1])), mode="replicate")
    pieces = [piece.mean(1) for piece in frames.tensor_split(SEGMENTS, dim=1)]
    changes = frames.diff(dim=1).std(1, correction=0)
    return torch.cat([frames.mean(1), frames.std(1, correction=0), changes, *pieces])
