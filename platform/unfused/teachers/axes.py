"""Samples and frames in the order of axes that a model wants them in, and gives them in.

The rule of this file: axes are written as a word, one letter each: B clips, S samples, T frames, F
bands, D embedding, 1 of size one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from unfused.audio.samples import INT16_SCALE
from unfused.teachers.protocol import LogMelFacts, TeacherFacts


def given(windows: np.ndarray, facts: TeacherFacts) -> np.ndarray:
    """Int16 windows (B, S) as the model takes them, float32."""
    if facts.log_mel is not None:
        return into(log_mel(windows, facts.log_mel, facts.sample_rate), "BFT", facts.input_axes)
    scale = INT16_SCALE if facts.level == "float" else 1.0
    return into(windows.astype(np.float32) * np.float32(scale), "BS", facts.input_axes)


def log_mel(windows: np.ndarray, settings: LogMelFacts, rate: int) -> np.ndarray:
    """Int16 windows (B, S) to normalised log-mel (B, F, T), float32."""
    import torch

    with torch.inference_mode():
        found = _front_end(settings, rate)(torch.from_numpy(np.ascontiguousarray(windows)))
    return (found.numpy() - np.float32(settings.mean)) / np.float32(settings.std)


@cache
def _front_end(settings: LogMelFacts, rate: int) -> Any:
    from unfused.audio.frontend import LogMel

    return LogMel(rate, **settings.model_dump(exclude={"mean", "std"}))


def into(values: np.ndarray, have: str, want: str) -> np.ndarray:
    """Values of axes `have` with axes `want`; without B the one row that there is."""
    if "B" not in want:
        values, have = values[0], have.replace("B", "")
    values = values.transpose([have.index(axis) for axis in want.replace("1", "")])
    return np.expand_dims(values, [i for i, axis in enumerate(want) if axis == "1"])


def frames(values: np.ndarray, axes: str) -> np.ndarray:
    """What a model gives, of these axes, to (B, T, D) float32; T is 1 where it has none."""
    if "B" not in axes:
        values, axes = values[None], f"B{axes}"
    order = [i for letter in "BT1D" for i, axis in enumerate(axes) if axis == letter]
    sizes = dict.fromkeys("BD", 1)
    for axis, size in zip(axes, values.shape, strict=True):
        sizes[axis] = sizes.get(axis, 1) * size
    values = np.asarray(values.transpose(order), np.float32)
    return values.reshape(sizes["B"], -1, sizes["D"])
