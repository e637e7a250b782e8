"""Clips that tell where a window is from."""

from __future__ import annotations

import numpy as np


def numbered_clips(count: int, seed: int = 0) -> list[np.ndarray]:
    """Clip i is full of the value i + 1."""
    rng = np.random.default_rng(seed)
    return [np.full(rng.integers(50, 400), i + 1, np.int16) for i in range(count)]
