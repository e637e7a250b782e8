"""Sums, rows and state over all training workers, with the gradient of this worker's part alone.

The rule of this room: workers may hold different numbers of rows, also none; and without
torch.distributed everything is the identity.

Axes: b rows of this worker, B rows of all, D columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

State = dict[str, Tensor]


class PerRank(nn.Module):
    """A module with state that every worker has of its own and a checkpoint keeps.

    Such state is no buffer: DistributedDataParallel would overwrite every worker's with the first
    one's at each step.
    """

    def rank_state(self) -> State:
        """What this worker alone holds, under names without dots."""
        return {}

    def load_rank_state(self, states: Sequence[State]) -> None:
        """Restore from all workers' states in rank order; there may have been more or fewer."""


def rank_state(module: nn.Module) -> State:
    """The state of every `PerRank` in `module`, as `<name of the module>.<name of the state>`."""
    return {
        _join(name, key): tensor
        for name, part in _per_rank(module)
        for key, tensor in part.rank_state().items()
    }


def load_rank_state(module: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Restore every `PerRank` in `module` from what `rank_state` gave on all workers, in order."""
    for name, part in _per_rank(module):
        part.load_rank_state([_of_module(name, state) for state in states])


def _per_rank(module: nn.Module) -> Iterator[tuple[str, PerRank]]:
    for name, part in module.named_modules():
        if isinstance(part, PerRank):
            yield name, part


def _of_module(name: str, state: Mapping[str, Tensor]) -> State:
    parts = {key: key.rpartition(".") for key in state}
    return {last: state[key] for key, (owner, _, last) in parts.items() if owner == name}


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def world() -> int:
    """How many workers there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def wait() -> None:
    """Wait for all workers."""
    if world() > 1:
        dist.barrier()


def first_says(answer: bool, device: torch.device) -> bool:
    """The answer of worker 0, on all workers.

    Args:
        answer: this worker's.
        device: that the process group sends from.
    """
    said = torch.tensor(float(answer), device=device)
    if world() > 1:
        dist.broadcast(said, 0)
    return bool(said)


def is_lost_peer(error: Exception) -> bool:
    """Whether a collective failed because another worker is gone (gloo has no error of its own)."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def add_over_ranks(tensor: Tensor) -> Tensor:
    """Put the sum of all workers' tensors into `tensor`, without a gradient; returns it."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def global_count(count: int, device: torch.device | str | None = None) -> Tensor:
    """The sum of all workers' counts, at least 1 (so that it can divide): a float32 scalar.

    Args:
        count: this worker's.
        device: that the process group reduces on; by default the GPU where the group uses one.
    """
    total = torch.tensor(float(count), device=device or _group_device())
    return add_over_ranks(total).clamp(min=1)


def _group_device() -> torch.device:
    on_gpu = world() > 1 and "nccl" in dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def sum_over_ranks(share: Tensor) -> Tensor:
    """The sum of all workers' shares, the same on all; its gradient is that of this share."""
    if world() == 1:
        return share
    total = add_over_ranks(share.detach().clone())
    # In this order the added term is exactly 0, so that all workers see the same bits.
    return total + (share - share.detach())


def gather_rows(rows: Tensor) -> Tensor:
    """All workers' rows in rank order; only this worker's carry a gradient.

    Args:
        rows: (b, D).

    Returns:
        (B, D).
    """
    if world() == 1:
        return rows
    counts = _counts(rows)
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    everyone = [part[:count] for part, count in zip(parts, counts, strict=True)]
    everyone[rank()] = rows
    return torch.cat(everyone)


def _counts(rows: Tensor) -> list[int]:
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world())]
    dist.all_gather(counts, count)
    return [int(c) for c in torch.cat(counts).tolist()]
