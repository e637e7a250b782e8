"""The envelope: see `unfused.audio.envelope`.

Axes: B clips, S samples, T frames, N pieces of at most PIECE frames, K bins of their spectrum,
M bands of modulation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unfused.audio import envelope
from unfused.exporting.cutting import counted, length
from unfused.exporting.frames import frames_of, quantiles, segment_means
from unfused.exporting.spectrum import PlainLogMel, one_turn
from unfused.store import Folder
from unfused.teachers import TeacherFacts


class Envelope(nn.Module):
    """int16 numbers (B, S) to `audio.envelope.envelope` (B, P).

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.spectrum = PlainLogMel(envelope.front_end(sample_rate))
        self.modulation = Modulation(self.spectrum.hop_length / sample_rate)

    def forward(self, samples: Tensor) -> Tensor:
        frames, order = frames_of(samples, self.spectrum)
        level = frames.exp().mean(1).log()
        mean = level.mean(1, keepdim=True)
        deviation = (level - mean).square().mean(1, keepdim=True).sqrt()
        seconds = (length(samples) / self.sample_rate).log() + torch.zeros_like(mean)
        first, last = torch.zeros_like(order[:1])[None], order[-1:][None]
        segments = segment_means(level[:, None], envelope.SEGMENTS, order, first, last)[:, 0]
        whole = [quantiles(level, torch.tensor(envelope.QUANTILES)), mean, deviation, seconds]
        return torch.cat([*whole, segments - mean, self.modulation(level)], 1)


class Modulation(nn.Module):
    """Levels (B, T) to `audio.envelope.modulation` (B, M).

    Args:
        hop_seconds: between frames.
    """

    turn: Tensor
    means: Tensor

    def __init__(self, hop_seconds: float) -> None:
        super().__init__()
        means = envelope.band_means(hop_seconds)
        self.bins = means.any(dim=1).nonzero()[:, 0].tolist()
        self.register_buffer("turn", one_turn(envelope.PIECE))
        self.register_buffer("means", means[self.bins])

    def forward(self, level: Tensor) -> Tensor:
        pieces = self._pieces(level)
        places = torch.tensor(self.bins)[:, None] * torch.arange(envelope.PIECE) % envelope.PIECE
        basis = self.turn.index_select(1, places.flatten()).reshape(-1, envelope.PIECE)
        parts = (pieces @ basis.T).square().unflatten(2, (2, -1))
        power = parts.sum(2).mean(1) @ self.means
        share = power / (power.sum(1, keepdim=True) + envelope.POWER_FLOOR)
        return (share + envelope.SHARE_FLOOR).log()

    def _pieces(self, level: Tensor) -> Tensor:
        """Windowed, with zeros behind where the clip is shorter than one: (B, N, PIECE)."""
        total, step = length(level), envelope.STEP
        size = total.clamp(max=envelope.PIECE)
        spare = total - size
        count = 1 + (spare + step - 1) // step
        begins = counted(count) * spare // (count - 1).clamp(min=1)
        order = torch.arange(envelope.PIECE)
        places = begins[:, None] + order
        pieces = pad(level, (0, envelope.PIECE)).index_select(1, places.flatten())
        pieces = pieces.unflatten(1, (-1, envelope.PIECE))
        there = (order < size).float()
        window = (0.5 - 0.5 * (order * (2 * math.pi) / size).cos()) * there
        return (pieces - (pieces * there).sum(2, keepdim=True) / size) * window


def module(folder: Folder, facts: TeacherFacts, sample_rate: int) -> Envelope:
    """See `unfused.exporting.teachers`."""
    return Envelope(sample_rate)
