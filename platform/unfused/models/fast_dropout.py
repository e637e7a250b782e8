"""Dropout whose masks cost a tenth on CPU: torch draws one float a value there, on one core.

The clever part behind the switch "dropout".

The rule of this file: what is dropped depends on torch's generator alone, on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfused import speedups

LEVELS = 2**16
"""A value's fate is 16 random bits, four values to a draw: p is met to within 1 / 131,072."""


def swap_in(module: nn.Module) -> None:
    """Replace every `nn.Dropout` inside a module, where the part is on."""
    if not speedups.enabled("dropout"):
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p, child.inplace))


class Dropout(nn.Dropout):
    """`nn.Dropout` that takes its mask from whole random words on CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        return x * kept(x.shape, self.p, x.dtype)


def kept(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """0 with probability p, else what keeps the mean at 1; on CPU.

    Args:
        shape: of the mask.
        p: share of zeros, in [0, 1).
        dtype: of the mask.
    """
    count, zeros = shape.numel(), min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:count].view(shape)
    return (bits >= zeros - LEVELS // 2).to(dtype).mul_(LEVELS / (LEVELS - zeros))
