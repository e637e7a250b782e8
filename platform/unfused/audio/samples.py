"""Samples as shards hold them: int16, and the fixed windows that are cut from a clip.

The rule of this room: NumPy alone. Ray Data's readers import this and, with it, no torch, which
would cost each of them two seconds and half a gigabyte.
"""

from __future__ import annotations

import math

import numpy as np

INT16_SCALE = 1 / 32768


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float samples of any shape to int16, full scale at 32768, rounded and clipped."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def crop_or_pad(samples: np.ndarray, num_samples: int, offset: float) -> np.ndarray:
    """A window of exactly `num_samples`.

    Args:
        samples: (S,) int16.
        num_samples: length of the window.
        offset: in [0, 1): where the window begins in a longer clip, as a share of the places it can
            begin at. A shorter clip is zero-padded evenly on both sides whatever the offset (the
            odd sample at the end).

    Returns:
        (num_samples,) of the same dtype.

    Raises:
        ValueError: `offset` is outside [0, 1).
    """
    if not 0 <= offset < 1:
        raise ValueError(f"A window's offset is a share in [0, 1); got {offset:g}.")
    spare = len(samples) - num_samples
    if spare >= 0:
        begin = min(math.floor(offset * (spare + 1)), spare)
        return samples[begin : begin + num_samples]
    left = -spare // 2
    return np.pad(samples, (left, -spare - left))


def even_windows(wave: np.ndarray, num_samples: int, num_crops: int) -> np.ndarray:
    """Evenly spaced windows of a clip: what is embedded and scored.

    Args:
        wave: (S',) int16, of any length.
        num_samples: S.
        num_crops: C, at least 1; a single window is the middle one.

    Returns:
        (C, S) of the same dtype; in a clip with room for more the first begins where it begins and
        the last ends where it ends.
    """
    at = window_offsets(num_crops)
    return np.stack([crop_or_pad(wave, num_samples, share) for share in at])


def window_offsets(num_crops: int) -> np.ndarray:
    """Where evenly spaced windows (C,) begin, as shares of the room there is."""
    if num_crops == 1:
        return np.array([0.5])
    return np.minimum(np.arange(num_crops) / (num_crops - 1), np.nextafter(1.0, 0.0))
