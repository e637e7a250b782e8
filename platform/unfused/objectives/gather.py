"""Sums and rows over all training workers, with the gradient of this worker's part alone.

The rule of this room: workers may hold different numbers of rows, also none; and without
torch.distributed everything is the identity.

Axes: b rows of this worker, B rows of all, D columns.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_count(count: int, device: torch.device | str | None = None) -> Tensor:
    """The sum of all workers' counts, at least 1 (so that it can divide): a float32 scalar.

    Args:
        count: this worker's.
        device: that the process group reduces on; by default the GPU where the group uses one.
    """
    total = torch.tensor(float(count), device=device or _group_device())
    if _world() > 1:
        dist.all_reduce(total)
    return total.clamp(min=1)


def _group_device() -> torch.device:
    on_gpu = _world() > 1 and "nccl" in dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def sum_over_ranks(share: Tensor) -> Tensor:
    """The sum of all workers' shares, the same on all; its gradient is that of this share."""
    if _world() == 1:
        return share
    total = share.detach().clone()
    dist.all_reduce(total)
    # In this order the added term is exactly 0, so that all workers see the same bits.
    return total + (share - share.detach())


def gather_rows(rows: Tensor) -> Tensor:
    """All workers' rows in rank order; only this worker's carry a gradient.

    Args:
        rows: (b, D).

    Returns:
        (B, D).
    """
    if _world() == 1:
        return rows
    counts = _counts(rows)
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    everyone = [part[:count] for part, count in zip(parts, counts, strict=True)]
    everyone[dist.get_rank()] = rows
    return torch.cat(everyone)


def _counts(rows: Tensor) -> list[int]:
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(_world())]
    dist.all_gather(counts, count)
    return [int(c) for c in torch.cat(counts).tolist()]
