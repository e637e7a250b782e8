"""The training batches of one worker.

The rule of this file: what comes when derives from (seed, epoch) alone, not from where the clips
are read, so that a resumed run sees what an undisturbed one would.

Axes: B clips, S samples of one window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from unfused.data.blocks import numpy_blocks, read_with_ray
from unfused.data.cache import ClipCache
from unfused.data.windows import Slice, epoch_rng, random_block, slices
from unfused.store import Artifact

BLOCK_BYTES = 16 * 2**20
WINDOW_BYTES = 128 * 2**20
MIX_ROWS = 256
MAX_BLOCKS = 1024


Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class ClipStream:
    """The training batches of one worker: random windows of its clips, epoch after epoch.

    Every clip comes once an epoch. The order derives from (seed, epoch) alone, so that a resumed
    run sees what an undisturbed one would. Several epochs run as one Ray Data execution, so that an
    epoch's first batch is ready when the last one ends. Clips that are few enough to be kept
    (`may_be_kept`) are streamed once and then read from the worker's own `cache`, which leaves the
    cores of a small machine to the training; the batches are the same.
    """

    part: Artifact
    rows: range
    num_samples: int
    num_steps: int
    """Steps in an epoch, the same on all workers; batches differ by one clip at most."""
    seed: int
    cache: ClipCache | None = None

    def epochs(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Every epoch of [start, stop) with its batches (`samples` (B, S) int16, `clip` (B,))."""
        blocks = self._blocks(start, stop)
        for epoch in range(start, stop):
            yield epoch, self._batches(blocks, epoch)

    def _blocks(self, start: int, stop: int) -> Iterator[Batch]:
        """The blocks of all epochs in order: from the cache, or read ahead by Ray Data."""
        cover = slices(self.part, self.rows, self._clips_per_slice)
        read = partial(random_block, num_samples=self.num_samples, seed=self.seed)
        if self.cache is not None:
            for epoch in range(start, stop):
                for piece in self._shuffled(cover, epoch):
                    yield read(piece, read=self.cache.read)
            return
        together = max(1, MAX_BLOCKS // len(cover))
        for first in range(start, stop, together):
            pieces = [
                piece
                for epoch in range(first, min(first + together, stop))
                for piece in self._shuffled(cover, epoch)
            ]
            yield from numpy_blocks(read_with_ray(pieces, read))

    @property
    def _clips_per_slice(self) -> int:
        return max(1, BLOCK_BYTES // (2 * self.num_samples))

    def _shuffled(self, cover: list[Slice], epoch: int) -> list[Slice]:
        order = epoch_rng(self.seed, epoch, 0).permutation(len(cover))
        return [replace(cover[i], epoch=epoch) for i in order]

    def _batches(self, blocks: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        rows = self._shuffled_rows(blocks, epoch_rng(self.seed, epoch, 1))
        held: list[Batch] = []
        for step in range(self.num_steps):
            size = self._bound(step + 1) - self._bound(step)
            while sum(len(h["clip"]) for h in held) < size:
                held.append(next(rows))
            whole = _concatenate(held)
            yield {name: column[:size] for name, column in whole.items()}
            held = [{name: column[size:] for name, column in whole.items()}]

    def _bound(self, step: int) -> int:
        return len(self.rows) * step // self.num_steps

    def _shuffled_rows(self, blocks: Iterator[Batch], rng: np.random.Generator) -> Iterator[Batch]:
        """Mix the rows of neighbouring blocks in windows of bounded size."""
        limit = max(1, WINDOW_BYTES // (2 * self.num_samples))
        left = len(self.rows)
        while left:
            window: list[Batch] = []
            while left and (not window or sum(len(w["clip"]) for w in window) < limit):
                window.append(next(blocks))
                left -= len(window[-1]["clip"])
            whole = _concatenate(window)
            # Blocks of Ray Data stay in the object store as long as something has them.
            del window
            order = rng.permutation(len(whole["clip"]))
            for at in range(0, len(order), MIX_ROWS):
                pick = order[at : at + MIX_ROWS]
                yield {name: column[pick] for name, column in whole.items()}
            del whole


def _concatenate(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
