"""Samples as shards hold them: int16, and the windows that are cut from a clip.

The rule of this room: NumPy alone. Ray Data's readers import this and, with it, no torch, which
would cost each of them two seconds and half a gigabyte.

Axes: S samples of a window, C windows of one clip, W of several, B clips, K frames of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np

INT16_SCALE = 1 / 32768

LOUDEST = 16.0
"""Of samples, where 1 is full scale: decoders go beyond it by half. What reaches further than this
is in other units, most often those of int16 as floats."""

Array = TypeVar("Array")

MAX_WINDOWS = 64
"""Of one clip where their number is auto: a minute of windows of 0.95 s. Longer recordings are
sampled, evenly."""
ONE_WINDOW = 1.1
"""A clip up to so many windows long is looked at in the middle one alone: a twentieth of a window
at either end is not worth a second one."""
QUIET = 1e-4
"""Power of a near-silent window beside the loudest of its clip: 40 dB, below which recordings of
an event hold their room alone."""
FLOOR = 1.0
"""Power (of int16 values) at which a window is silent whatever its clip is like: rounding noise."""
FRAME = 1024
"""Samples of a frame of the envelope by which random windows find sound."""


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float samples of any shape to int16, full scale at 32768, rounded and clipped."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def crop_or_pad(samples: np.ndarray, num_samples: int, begin: int) -> np.ndarray:
    """A window of exactly `num_samples`.

    Args:
        samples: (S',) int16.
        num_samples: S.
        begin: the window's first sample in a longer clip. A shorter clip is zero-padded evenly on
            both sides whatever it is (the odd sample at the end).

    Returns:
        (S,) of the same dtype.
    """
    spare = len(samples) - num_samples
    if spare >= 0:
        return samples[begin : begin + num_samples]
    left = -spare // 2
    return np.pad(samples, (left, -spare - left))


class Windows(NamedTuple, Generic[Array]):
    """Windows of several clips, one clip's after the other's: NumPy arrays, or torch's tensors."""

    samples: Array
    """(W, S) int16."""
    counts: Array
    """(B,) int64, of each clip at least 1."""

    @classmethod
    def of(cls, clips: Sequence[np.ndarray]) -> Windows[np.ndarray]:
        """Those of clips that are cut, (C, S) each."""
        return cls(np.concatenate(clips), np.array([len(cut) for cut in clips]))


@dataclass(frozen=True)
class Cut:
    """How clips are cut into the windows that are embedded and scored."""

    num_samples: int
    """S."""
    num_crops: int | Literal["auto"] = "auto"
    """Windows of a clip that is longer than one; auto: as many as cover it."""

    def count(self, length: float) -> int:
        """Windows of a clip of `length` samples, the silent ones among them."""
        if length <= self.num_samples:
            return 1
        if self.num_crops != "auto":
            return self.num_crops
        if length <= ONE_WINDOW * self.num_samples:
            return 1
        return min(MAX_WINDOWS, math.ceil(length / self.num_samples))

    def windows(self, wave: np.ndarray) -> np.ndarray:
        """The windows (C, S) of a clip (S',), evenly spaced, without those that are silent.

        The first begins where the clip begins and the last ends where it ends; one alone is in the
        middle.
        """
        begins = evenly(max(0, len(wave) - self.num_samples), self.count(len(wave)))
        cut = np.stack([crop_or_pad(wave, self.num_samples, begin) for begin in begins])
        return cut if len(cut) == 1 else cut[are_sound(cut.var(1, dtype=np.float32))]


def evenly(spare: int, count: int) -> np.ndarray:
    """Where `count` evenly spaced windows begin that may begin at 0 to `spare`."""
    return np.array([spare // 2]) if count == 1 else np.arange(count) * spare // (count - 1)


def are_sound(power: np.ndarray) -> np.ndarray:
    """Which windows of a clip are no silence, by the power of each; all, where all are silent."""
    loudest = power.max()
    if loudest <= FLOOR:
        return np.ones(len(power), bool)
    return power >= max(FLOOR, QUIET * loudest)


def envelope(wave: np.ndarray) -> np.ndarray:
    """Power (K,) of the frames of a clip, each about its own mean; what is left at the end falls
    out."""
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    return np.einsum("kf,kf->k", frames, frames) / FRAME - frames.mean(1) ** 2


def random_begin(
    length: int, num_samples: int, share: float, power: Callable[[], np.ndarray]
) -> int:
    """Where a random window begins that falls on sound.

    Args:
        length: of the clip.
        num_samples: S.
        share: in [0, 1), which of the places it is.
        power: gives the clip's `envelope` (K,), which a clip of hardly more than a window is not
            asked for.

    Returns:
        `share` of all places, where there is no silence; else `share` of the frames at which a
        window that is none begins.

    Raises:
        ValueError: `share` is outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"A window's place is a share in [0, 1); got {share:g}.")
    spare = max(0, length - num_samples)
    anywhere = min(math.floor(share * (spare + 1)), spare)
    if spare < FRAME:
        return anywhere
    total = np.concatenate([[0.0], np.cumsum(power())])
    starts = np.arange(min(spare // FRAME + 1, len(total) - 1))
    stops = np.minimum(starts + max(1, num_samples // FRAME), len(total) - 1)
    good = are_sound((total[stops] - total[starts]) * FRAME / num_samples)
    return anywhere if good.all() else int(starts[good][math.floor(share * good.sum())]) * FRAME
