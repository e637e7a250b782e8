"""Several channels to one.

The rule of this file: one choice holds for the whole of a clip.

Axes: N frames, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unfused.audio.samples import FLOOR, INT16_SCALE

CANCELLED = 0.01
"""Power of the mean beside that of the loudest channel, 20 dB, below which they cancel."""
ALIKE = 1e-6
"""Share of a power by which another one is no louder: sums are rounded."""
SILENT = FLOOR * INT16_SCALE**2
"""Power at which a channel is silent: rounding noise."""


class Mixed(NamedTuple):
    """What is to be said of a mean that was asked for."""

    cancelled: bool = False
    """The channels cancel each other, and the loudest was taken."""
    dead: bool = False
    """One of them is silent, or stuck at one value, and another is not."""

    def __or__(self, other: Mixed) -> Mixed:
        return Mixed(self.cancelled or other.cancelled, self.dead or other.dead)


NOTHING = Mixed()


def mono(blocks: Sequence[np.ndarray], channel: str = "mean") -> tuple[np.ndarray, Mixed]:
    """One channel of a clip.

    Args:
        blocks: (N, C) each, one after the other, at least one.
        channel: "mean" of all, but the loudest where they cancel each other (as two do of which
            one is wired the wrong way round); "left", the first; "right", the second, if there is
            one; or "loudest".

    Returns:
        (N,) of all blocks; and what is to be said of their mean.
    """
    num_channels = blocks[0].shape[1]
    if num_channels == 1 or channel in ("left", "right"):
        return _taken(blocks, min(num_channels - 1, int(channel == "right"))), NOTHING
    if channel == "loudest":
        return _taken(blocks, _loudest(_powers(blocks))), NOTHING
    mean = [_mean(block) for block in blocks]
    powers = _powers(blocks)
    loudest = _loudest(powers)
    of_mean = _powers([block[:, None] for block in mean])[0]
    if powers[loudest] > SILENT and of_mean < CANCELLED * powers[loudest]:
        return _taken(blocks, loudest), Mixed(cancelled=True)
    return np.concatenate(mean), Mixed(dead=bool(powers[loudest] > SILENT >= powers.min()))


def _taken(blocks: Sequence[np.ndarray], number: int) -> np.ndarray:
    taken = [block[:, number] for block in blocks]
    return taken[0] if len(taken) == 1 else np.concatenate(taken)


def _loudest(powers: np.ndarray) -> int:
    """The first of the channels (C,) that no other is louder than."""
    return int(np.argmax(powers >= (1 - ALIKE) * powers.max()))


def _mean(block: np.ndarray) -> np.ndarray:
    """(N,) of (N, C), column by column: NumPy's own along so short an axis takes ten times that."""
    total = block[:, 0].copy()
    for column in block.T[1:]:
        total += column
    return total / np.float32(block.shape[1])


def _powers(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Power (C,) of each channel about its own mean."""
    count = max(1, sum(len(block) for block in blocks))
    columns = [[block[:, number] for block in blocks] for number in range(blocks[0].shape[1])]
    sums = [sum(float(part.sum(dtype=np.float64)) for part in one) for one in columns]
    squares = [sum(float(part.astype(np.float64) @ part) for part in one) for one in columns]
    return np.array(squares) / count - (np.array(sums) / count) ** 2
