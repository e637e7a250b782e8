"""Blocks of windows that Ray Data reads ahead.

The rule of this file: a block is what one slice gives, in the order in which slices were asked for.

Axes: B clips, W windows of several, S samples of one window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from unfused.audio.samples import Cut, Windows
from unfused.data.part import SAMPLE
from unfused.data.windows import Slice, even_block, slices
from unfused.store import Artifact, Folder

FEW = 2
"""Blocks that are not worth an execution of Ray Data."""
EVEN_BYTES = 32 * 2**20
"""Of the windows of one block, were all of its clips as long as the longest of the part."""


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
    part: Artifact, rows: range, cut: Cut, clips_per_block: int
) -> Iterator[tuple[np.ndarray, Windows[np.ndarray]]]:
    """The windows of the clips `rows` of a part in order, read ahead by Ray Data.

    A few blocks are read here and now: an execution of Ray Data takes a second to start.

    Args:
        part: the clips.
        rows: which of them.
        cut: what the windows are.
        clips_per_block: B at most; fewer where clips are long.

    Yields:
        Clips (B,) and their windows.
    """
    pieces = slices(part, rows, min(clips_per_block, clips_within(EVEN_BYTES, part, cut)))
    read = partial(even_block, cut=cut)
    few = len(pieces) <= FEW
    for block in map(read, pieces) if few else numpy_blocks(read_with_ray(pieces, read)):
        clip, counts = np.unique(block["clip"], return_counts=True)
        yield clip, Windows(block["samples"], counts)


def clips_within(num_bytes: int, part: Artifact, cut: Cut) -> int:
    """How many clips have windows of no more than `num_bytes`, however long each is; at least 1."""
    longest = part.facts.durations[-1] * part.facts.audio.sample_rate
    return max(1, num_bytes // (SAMPLE.itemsize * cut.num_samples * cut.count(longest)))


def numpy_blocks(dataset: Any) -> Iterator[dict[str, np.ndarray]]:
    """The blocks of a data set one after the other, two of them read ahead."""
    yield from dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2)
