"""Blocks of windows that Ray Data reads ahead.

The rule of this file: a block is what one slice gives, in the order in which slices were asked for.

Axes: B clips, C windows of one clip, S samples of one window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from unfused import cores
from unfused.data.windows import Slice, even_block, slices
from unfused.store import Artifact, Folder

FEW = 2
"""Blocks that are not worth an execution of Ray Data."""


def read_with_ray(pieces: Sequence[Slice], read: Callable[[Slice], Mapping[str, np.ndarray]]):
    """A lazy Ray Data set with one block for every slice, in order."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Clustering or validation between two batches must not count as a stalled pipeline.
    context.execution_no_progress_timeout_s = -1
    rows = [{"slice": json.dumps(asdict(piece))} for piece in pieces]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    return dataset.map_batches(_Reader(read), batch_size=None)


@dataclass(frozen=True)
class _Reader:
    read: Callable[[Slice], Mapping[str, np.ndarray]]

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        (text,) = batch["slice"]
        fields = json.loads(text)
        return self.read(Slice(**{**fields, "folder": Folder(**fields["folder"])}))


def even_blocks(
    part: Artifact, rows: range, num_samples: int, num_crops: int, clips_per_block: int
) -> Iterator[dict[str, np.ndarray]]:
    """`even_block` of the clips `rows` of a part in order, read ahead by Ray Data.

    A few blocks are read here and now: an execution of Ray Data takes a second to start.
    """
    pieces = slices(part, rows, clips_per_block)
    read = partial(even_block, num_samples=num_samples, num_crops=num_crops)
    if len(pieces) <= FEW:
        yield from map(read, pieces)
    else:
        yield from numpy_blocks(read_with_ray(pieces, read))


def numpy_blocks(dataset: Any) -> Iterator[dict[str, np.ndarray]]:
    """The blocks of a data set one after the other, two of them read ahead."""
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2))
    # Its threads start with the first block, and live beside a thread that trains.
    with cores.in_background():
        first = next(blocks, None)
    if first is not None:
        yield first
    # Blocks of Ray Data stay in the object store as long as something has them.
    del first
    yield from blocks
