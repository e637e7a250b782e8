"""Runs a function as two gloo processes, for tests of anything that spans workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

WORLD = 2


def on_two_ranks(function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """`function(rank, *args)` on both ranks of a process group: their results in rank order.

    Args:
        function: a module-level function; it returns tensors and plain data.
        folder: an empty folder for the rendezvous and the results.
        args: plain data.

    Raises:
        Exception: what a rank raised, with its traceback.
    """
    torch.multiprocessing.spawn(_rank, (function, str(folder), args), nprocs=WORLD)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(WORLD)]


def _rank(rank: int, function: Callable[..., Any], folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD
    )
    try:
        torch.save(function(rank, *args), f"{folder}/rank-{rank}.pt")
    finally:
        dist.destroy_process_group()
