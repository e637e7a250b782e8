"""Frames of clips of any length, in operators that can be exported.

How many there are depends on the length of the clips, which is known when the file runs.

Axes: B clips, S samples, F mel bands, T frames, Q quantiles, G segments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from unfused.exporting.cutting import counted, length
from unfused.exporting.spectrum import PlainLogMel


def frames_of(samples: Tensor, spectrum: PlainLogMel) -> tuple[Tensor, Tensor]:
    """int16 numbers (B, S) to log-mel (B, F, T), and the numbers of its frames (T,)."""
    hop, odd = spectrum.hop_length, spectrum.size % 2
    order = counted(1 + (length(samples) - odd) // hop)
    # Zeros as those beyond the clip, so that there are never too few frames to count.
    return spectrum(pad(samples, (0, 2 * hop))).index_select(2, order), order


def quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """Of every row (B, T), between two values where they fall there: (B, Q)."""
    ordered = values.sort(1).values
    most = torch.full((), values.shape[1], dtype=torch.int64) - 1
    place = shares * most.float()
    low = place.floor().long()
    below = ordered.index_select(1, low)
    above = ordered.index_select(1, torch.minimum(low + 1, most))
    return below + (above - below) * (place - place.floor())


def segment_means(
    values: Tensor, segments: int, order: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """Of (B, F, T) from one frame to another (B, 1): (B, F, G), as `adaptive_avg_pool1d` has them.

    Args:
        values: what is averaged.
        segments: G.
        order: the numbers of the frames (T,).
        first: the first frame that counts.
        last: the last one.
    """
    total, number = last - first + 1, torch.arange(segments)
    begins = first + number * total // segments
    ends = first + ((number + 1) * total + segments - 1) // segments
    share = (order >= begins[..., None]) & (order < ends[..., None])
    return values @ (share.float() / (ends - begins)[..., None]).transpose(1, 2)
