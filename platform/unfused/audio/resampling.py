"""Samples of one rate to another: soxr's HQ, as in `librosa.load`.

The rule of this file: a wave that is held is resampled at once; in a stream goes what is too long
to be, and pieces that differ from each other.

Axes: N frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import soxr

Piece = tuple[int, np.ndarray]
"""Hz, and float32 (N, C)."""


def resample(wave: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """(N,) to (ceil(N sample_rate / rate),), the length that librosa gives."""
    length = math.ceil(len(wave) * sample_rate / rate)
    resampled = soxr.resample(wave, rate, sample_rate, quality="HQ")[:length]
    missing = length - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled


class Stream:
    """A wave that comes in pieces, without a seam between them.

    Args:
        rate: Hz of what comes.
        sample_rate: Hz of what it becomes.
    """

    def __init__(self, rate: int, sample_rate: int) -> None:
        self._stream = (
            soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
            if rate != sample_rate
            else None
        )

    def __call__(self, wave: np.ndarray, last: bool = False) -> np.ndarray:
        """(N,) to as much as is ready; after the last piece that is all."""
        return wave if self._stream is None else self._stream.resample_chunk(wave, last=last)


def joined(pieces: Iterable[Piece], rate: int, channels: int) -> Iterator[np.ndarray]:
    """Pieces of any rate and channels as blocks (N, C) of one: a stretch of another rate is
    resampled, the mean of other channels stands for each."""
    for own, group in groupby(pieces, key=lambda piece: piece[0]):
        blocks = (_with_channels(block, channels) for _, block in group)
        yield from blocks if own == rate else _resampled(blocks, own, rate, channels)


def _with_channels(block: np.ndarray, channels: int) -> np.ndarray:
    if block.shape[1] == channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)


def _resampled(
    blocks: Iterable[np.ndarray], own: int, rate: int, channels: int
) -> Iterator[np.ndarray]:
    stream = soxr.ResampleStream(own, rate, channels, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
