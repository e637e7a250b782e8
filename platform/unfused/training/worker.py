"""One process of a Ray Train run, and the clips that it trains on.

The rule of this file: a job sees the other workers only through its own.

Axes: B clips, W windows of clips, S samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfused import data, distributed, runtime
from unfused.audio.samples import Cut, Windows
from unfused.config import Training, num_steps
from unfused.data import PartFacts
from unfused.events import Event, Note, Progress
from unfused.models.pooling import on_device
from unfused.store import Artifact, Folder
from unfused.training.checkpoint import Checkpoints
from unfused.training.learner import Batch, Learner
from unfused.training.loop import PROGRESS_SECONDS, Fitted, Loop, mixed_seed


@dataclass
class Worker:
    """One process of a Ray Train run, as a job sees it."""

    rank: int
    world: int
    device: torch.device
    emit: Callable[[Event], None]

    is_cancelled: Callable[[], bool] = lambda: False
    """Whether the driver wants no more of the job at hand."""
    memory: dict[Any, Any] = field(default_factory=dict)
    """What is kept until a job is done (see `once`)."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, or what was made under the same key in this job."""
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]

    def alone(self) -> Worker:
        """This process as if there were no others: no gradient leaves it."""
        return replace(self, rank=0, world=1)

    def wait(self) -> None:
        """Wait for all workers."""
        if self.world > 1:
            distributed.wait()

    def raise_if_cancelled(self) -> None:
        """Give up, on all workers together, what the driver has cancelled.

        Raises:
            runtime.Cancelled: it has.
        """
        cancelled = self.is_first and self.is_cancelled()
        if self.world > 1:
            cancelled = distributed.first_says(cancelled, self.device)
        if cancelled:
            raise runtime.Cancelled("cancelled")

    def stream(self, part: Artifact[PartFacts], *, num_samples: int, training: Training) -> Stream:
        """The shuffled, endless supply of training windows of one part."""
        total = data.num_clips(part)
        rows = data.rank_rows(total, self.rank, self.world)
        steps = num_steps(total, training.batch_size)
        cache = None
        if data.may_be_kept(part, rows):
            cache = self.once(
                ("clips", part.folder.uri), lambda: data.ClipCache(part, np.array(rows))
            )
        clips = data.ClipStream(part, rows, num_samples, steps, training.seed, cache)
        return Stream(clips, self.device)

    def even_windows(
        self,
        part: Artifact[PartFacts],
        nodes: Collection[str],
        *,
        cut: Cut,
        clips_per_block: int,
    ) -> Iterator[tuple[np.ndarray, Windows[Tensor]]]:
        """The windows of this worker's share of the clips, streamed a block at a time.

        Args:
            part: the clips.
            nodes: whose progress this is.
            cut: what the windows are.
            clips_per_block: B at most.

        Yields:
            Clips (B,) and their windows on this worker's device.
        """
        total = data.num_clips(part)
        rows = data.rank_rows(total, self.rank, self.world)
        blocks = self._told(data.even_blocks(part, rows, cut, clips_per_block), part, cut)
        return self._watched(
            ((clip, on_device(windows, self.device)) for clip, windows in blocks), nodes, total
        )

    def _told(
        self, blocks: Iterator[tuple[np.ndarray, Windows[Any]]], part: Artifact, cut: Cut
    ) -> Iterator[tuple[np.ndarray, Windows[Any]]]:
        """The blocks, and after the last what looking at several windows of a clip costs."""
        clips, num_windows = 0, 0
        for clip, windows in blocks:
            yield clip, windows
            clips, num_windows = clips + len(clip), num_windows + len(windows.samples)
        mean = round(num_windows / max(1, clips), 1)
        if self.is_first and mean > 1:
            seconds = cut.num_samples / part.facts.audio.sample_rate
            text = (
                f"clips are embedded and scored in {mean:g} windows of {seconds:g} s on average,"
                " at as many times the cost of one"
            )
            self.once(("told", cut), lambda: self.emit(Note(text)))

    def whole_clips(
        self, part: Artifact[PartFacts], nodes: Collection[str], clips_per_block: int
    ) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
        """This worker's share of the clips, whole, a block at a time.

        Args:
            part: the clips.
            nodes: whose progress this is.
            clips_per_block: B at most.

        Yields:
            Clips (B,) and their int16 samples, (S,) of any length, on this worker's device.
        """
        total = data.num_clips(part)
        rows = data.rank_rows(total, self.rank, self.world)
        blocks = (
            (clip, [torch.from_numpy(wave.copy()).to(self.device) for wave in waves])
            for clip, waves in data.whole_clips(part, rows, clips_per_block)
        )
        return self._watched(blocks, nodes, total)

    def _watched(
        self, blocks: Iterator[tuple[np.ndarray, Any]], nodes: Collection[str], total: int
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """The blocks, with an event now and then of how far they are."""
        done, last = 0, time.monotonic()
        for clip, given in blocks:
            yield clip, given
            done += len(clip)
            if self.is_first and time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                for node in nodes:
                    self.emit(Progress(node, min(total, done * self.world), total))

    def fit(
        self,
        learner: Learner,
        stream: Stream | CachedStream,
        training: Training,
        *,
        node: str,
        checkpoints: Folder | None = None,
        after_epoch: Callable[[int], dict[str, float]] | None = None,
        quiet: bool = False,
    ) -> Fitted:
        """Train `learner` in place for `training.epochs` epochs.

        Args:
            learner: called on all workers, each with its own batches.
            stream: of this worker's share of the clips.
            training: the schedule.
            node: whose events these are.
            checkpoints: where every finished epoch is kept and an interrupted fit resumes from.
            after_epoch: metrics of a finished epoch, called on every worker with its number.
            quiet: emit no events (the many small fits of fine-tuning report as a whole).

        Raises:
            FloatingPointError: the loss of an epoch is no number.
            runtime.Cancelled: the driver wants no more of it.
        """
        loop = Loop(self, learner.to(self.device), stream, training, node, quiet)
        return loop.run(Checkpoints(checkpoints) if checkpoints else None, after_epoch)


@dataclass(frozen=True)
class Stream:
    """A worker's shards as tensors on its device."""

    clips: data.ClipStream
    device: torch.device

    @property
    def num_steps(self) -> int:
        return self.clips.num_steps

    @property
    def num_clips(self) -> int:
        return len(self.clips.rows)

    def epochs(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        for epoch, batches in self.clips.epochs(start, stop):
            yield epoch, (self._tensors(batch) for batch in batches)

    def _tensors(self, batch: data.Batch) -> Batch:
        return {
            name: torch.from_numpy(column).to(self.device, non_blocking=True)
            for name, column in batch.items()
        }


@dataclass(frozen=True)
class CachedStream:
    """The few labelled clips of a fine-tuning, already on the worker, shuffled every epoch."""

    columns: Batch
    batch_size: int
    seed: int

    @property
    def num_clips(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def num_steps(self) -> int:
        return num_steps(self.num_clips, self.batch_size)

    def epochs(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        for epoch in range(start, stop):
            yield epoch, self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = torch.randperm(self.num_clips, generator=generator)
        for rows in order.tensor_split(self.num_steps):
            yield {name: column[rows] for name, column in self.columns.items()}
