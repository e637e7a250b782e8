"""Windows on a device, and how what is said of each becomes what is said of its clip.

The rule of this file: windows of clips of any length lie one after the other, so that a clip costs
what it is long.

Axes: W windows of all clips, B clips, S samples of a window, D values, N classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from unfused.audio.samples import Windows


def on_device(windows: Windows[np.ndarray], device: torch.device) -> Windows[Tensor]:
    """The same windows as tensors, copied: Ray Data's blocks stay as long as something has them."""
    return Windows(*(torch.tensor(part, device=device) for part in windows))


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """(W, D) to the mean over the windows of each clip (B, D)."""
    return torch.segment_reduce(values, "mean", lengths=counts)


def maximum(values: Tensor, counts: Tensor) -> Tensor:
    """(W, D) to the largest over the windows of each clip (B, D)."""
    return torch.segment_reduce(values, "max", lengths=counts)


def attention(scores: Tensor, counts: Tensor) -> Tensor:
    """Scores (W, N) to their mean (B, N), each window weighted by how sure it is.

    That is by the probability of its own best class: a window with nothing of the event in it
    says a little of everything.
    """
    sure = scores.softmax(1).amax(1, keepdim=True)
    return mean(sure * scores, counts) / mean(sure, counts)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "max": maximum,
    "attention": attention,
}
"""Scores of windows (W, N) and windows of each clip (B,) to scores of clips (B, N)."""
