"""Cepstra and their moments: see `unfused.audio.cepstra`.

Axes: B clips, S samples, F mel bands, T frames of all of a clip, C coefficients, G segments.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfused.audio import cepstra
from unfused.exporting.frames import frames_of, quantiles, segment_means
from unfused.exporting.spectrum import PlainLogMel
from unfused.store import Folder
from unfused.teachers import TeacherFacts


class Sounding(nn.Module):
    """int16 numbers (B, S) to cepstra (B, C, T), and the first and last frame that sounds (B, 1).

    Args:
        sample_rate: Hz.
        coefficients: C.
    """

    cosines: Tensor

    def __init__(self, sample_rate: int, coefficients: int) -> None:
        super().__init__()
        self.spectrum = PlainLogMel(cepstra.front_end(sample_rate))
        self.register_buffer("cosines", cepstra.cosines(cepstra.BANDS, coefficients))

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames, order = frames_of(samples, self.spectrum)
        level = frames.mean(1)
        quiet = quantiles(level, torch.tensor([cepstra.QUIET_SHARE]))
        loudest = level.amax(1, keepdim=True)
        sounds = level >= quiet + cepstra.LOUD * (loudest - quiet)
        first = torch.where(sounds, order, order[-1]).amin(1, keepdim=True)
        last = torch.where(sounds, order, 0).amax(1, keepdim=True)
        return self.cosines @ frames, first, last


class Aligned(nn.Module):
    """int16 numbers (B, S) to `audio.cepstra.cepstra` (B, C G + 1).

    Args:
        sample_rate: Hz.
        centred: subtract the mean cepstrum.
    """

    def __init__(self, sample_rate: int, centred: bool) -> None:
        super().__init__()
        self.sounding, self.centred = Sounding(sample_rate, cepstra.COEFFICIENTS), centred

    def forward(self, samples: Tensor) -> Tensor:
        found, first, last = self.sounding(samples)
        order = torch.arange(found.shape[2])
        if self.centred:
            found = found - masked_mean(found, inside(order, first, last))[..., None]
        segments = segment_means(found, cepstra.SEGMENTS, order, first, last)
        seconds = (last - first + 1) * cepstra.HOP_SECONDS
        return torch.cat([segments.flatten(1), seconds.log()], 1)


class Moments(nn.Module):
    """int16 numbers (B, S) to `audio.cepstra.moments` (B, 3 C).

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sounding = Sounding(sample_rate, cepstra.FINE)

    def forward(self, samples: Tensor) -> Tensor:
        found, first, last = self.sounding(samples)
        order, reach = torch.arange(found.shape[2]), cepstra.REACH
        there = inside(order, first, last)
        after = torch.minimum(order + reach, last)[:, None].expand_as(found)
        before = torch.maximum(order - reach, first)[:, None].expand_as(found)
        slope = (found.gather(2, after) - found.gather(2, before)) / (2 * reach)
        deviations = masked_deviation(found, there), masked_deviation(slope, there)
        return torch.cat([masked_mean(found, there), *deviations], 1)


def inside(order: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """1 for the frames from the first that sounds to the last, else 0: (B, 1, T)."""
    return ((order >= first) & (order <= last))[:, None].float()


def masked_mean(values: Tensor, there: Tensor) -> Tensor:
    """Of (B, C, T) over the frames that are there: (B, C)."""
    return (values * there).sum(2) / there.sum(2)


def masked_deviation(values: Tensor, there: Tensor) -> Tensor:
    """Likewise."""
    centred = values - masked_mean(values, there)[..., None]
    return masked_mean(centred.square(), there).sqrt()


def module(folder: Folder, facts: TeacherFacts, sample_rate: int) -> nn.Module:
    """See `unfused.exporting.teachers`."""
    form = facts.layer.partition(" ")[0]
    if form == "moments":
        return Moments(sample_rate)
    return Aligned(sample_rate, centred=form == "centred")
