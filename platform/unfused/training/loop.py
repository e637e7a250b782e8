"""The one loop: epochs of steps on a schedule, resumed where an interruption left it.

The rule of this file: a step's random numbers follow from the seed, the epoch and the worker alone,
so that a fit that was interrupted ends where an undisturbed one does.

Batch norm: synchronised between workers on GPU, per worker on CPU (gloo has no synchronised batch
norm), where every step starts from worker 0's running statistics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from unfused import precision
from unfused.config import Training
from unfused.events import EpochDone, Event, Note, Progress, Resumed
from unfused.optimizers import build_optimizer, learning_rate_factor
from unfused.training.checkpoint import Checkpoints, History
from unfused.training.learner import Batch, Learner

if TYPE_CHECKING:
    from unfused.training.worker import CachedStream, Stream, Worker

PROGRESS_SECONDS = 1.0
"""Between two events that tell how far a pass is."""


@dataclass(frozen=True)
class Fitted:
    """What came of a fit."""

    metrics: dict[str, float]
    """Of the last epoch."""
    training_seconds: float
    """Of all epochs, those before an interruption among them."""
    curve: list[dict[str, Any]]
    """A record for every epoch: `epoch` (from 1), `metrics`, `clips_per_second`, `wait_seconds`."""


class Loop:
    """The state of one `Worker.fit`, which says what the arguments are."""

    def __init__(
        self,
        worker: Worker,
        learner: Learner,
        stream: Stream | CachedStream,
        training: Training,
        node: str,
        quiet: bool,
    ) -> None:
        self.worker, self.stream, self.training = worker, stream, training
        self.node, self.quiet = node, quiet
        self.learner = learner
        self.model = self._distributed(learner)
        self.optimizer = build_optimizer(
            training.optimizer, learner.parameters(), training.learning_rate, training.weight_decay
        )
        self.history = History()
        self.num_steps = training.epochs * stream.num_steps
        """Of all epochs."""
        self.waits: list[float] = []
        """Seconds that each step of the epoch waited for its batch."""

    def _distributed(self, learner: Learner) -> nn.Module:
        if self.worker.world == 1:
            return learner
        ids = None
        if self.worker.device.type == "cuda":
            ids = [self.worker.device]
            nn.SyncBatchNorm.convert_sync_batchnorm(learner)
        return nn.parallel.DistributedDataParallel(learner, device_ids=ids)

    def run(
        self,
        checkpoints: Checkpoints | None,
        after_epoch: Callable[[int], dict[str, float]] | None,
    ) -> Fitted:
        """Train from the newest checkpoint, if there is one, to the last epoch."""
        if checkpoints:
            self._resume(checkpoints)
        if self.history.epochs == 0 and self.learner.needs_initial_pass:
            self._initial_pass()
        for epoch, batches in self.stream.epochs(self.history.epochs, self.training.epochs):
            self._epoch(epoch, batches, after_epoch)
            if checkpoints:
                checkpoints.save(self.worker, self.learner, self.optimizer, self.history)
            if not self.quiet:
                self._report()
                self.worker.raise_if_cancelled()
        history = self.history
        return Fitted(history.metrics, round(history.seconds, 3), history.curve)

    def _resume(self, checkpoints: Checkpoints) -> None:
        self.history = checkpoints.restore(
            self.learner,
            self.optimizer,
            self.worker.device,
            lambda text: self._emit(Note(text, self.node, "warning")),
        )
        if self.history.epochs:
            self._emit(Resumed(self.node, self.history.epochs))

    def _initial_pass(self) -> None:
        """Show the learner every clip once, in training mode as the epochs will."""
        torch.manual_seed(mixed_seed(self.training.seed, -1, self.worker.rank))
        self.learner.train()
        for _, batches in self.stream.epochs(-1, 0):
            for batch in self._watched(batches, -1):
                with torch.no_grad(), self._autocast():
                    self.learner.observe(batch)

    def _epoch(
        self,
        epoch: int,
        batches: Iterator[Batch],
        after_epoch: Callable[[int], dict[str, float]] | None,
    ) -> None:
        torch.manual_seed(mixed_seed(self.training.seed, epoch, self.worker.rank))
        self.learner.train()
        metrics = self.learner.start_epoch(epoch)
        began = time.perf_counter()
        loss = self._steps(epoch, batches)
        seconds = time.perf_counter() - began
        metrics = {"loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"], **metrics}
        if after_epoch:
            metrics |= after_epoch(epoch)
        self._remember(epoch, seconds, metrics)

    def _steps(self, epoch: int, batches: Iterator[Batch]) -> float:
        """All steps of an epoch: their mean loss."""
        total = 0.0
        for step, batch in enumerate(self._watched(batches, epoch)):
            total += self._step(batch, epoch * self.stream.num_steps + step)
        loss = total / self.stream.num_steps
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss of {self.node} is {loss} in epoch {epoch + 1}; "
                f"lower the learning rate (now {self.training.learning_rate:g})."
            )
        return loss

    def _step(self, batch: Batch, step: int) -> float:
        """Step number `step`, from 0, of all epochs': its loss."""
        self._set_learning_rate(step)
        with self._autocast():
            loss = self.model(batch)
        self.optimizer.zero_grad()
        # DistributedDataParallel averages over workers; the global gradient is their sum.
        (loss * self.worker.world).backward()
        self.optimizer.step()
        self.learner.after_step((step + 1) / self.num_steps)
        return float(loss.detach())

    def _set_learning_rate(self, step: int) -> None:
        factor = learning_rate_factor(
            step,
            num_steps=self.num_steps,
            warmup_fraction=self.training.warmup_fraction,
            schedule=self.training.schedule,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * factor

    def _autocast(self) -> Any:
        return precision.autocast(self.worker.device, self.training.precision)

    def _watched(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        """The batches, with a progress event now and then."""
        last = time.monotonic()
        self.waits = []
        for step, batch in enumerate(self._timed(batches)):
            yield batch
            if not self.quiet and time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                done = (step + 1) * self.stream.num_clips // self.stream.num_steps
                doing = f"epoch {epoch + 1}/{self.training.epochs}" if epoch >= 0 else "first pass"
                every = self.worker.world
                sizes = (done * every, self.stream.num_clips * every)
                epochs = (epoch, self.training.epochs) if epoch >= 0 else (0, 0)
                self._emit(Progress(self.node, *sizes, "clips", doing, 0, *epochs))

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        began = time.perf_counter()
        for batch in batches:
            self.waits.append(time.perf_counter() - began)
            yield batch
            began = time.perf_counter()

    def _remember(self, epoch: int, seconds: float, metrics: dict[str, float]) -> None:
        record = {
            "epoch": epoch + 1,
            "metrics": dict(metrics),
            "clips_per_second": self.stream.num_clips * self.worker.world / seconds,
            "wait_seconds": sum(self.waits),
        }
        self.history = History(
            epochs=epoch + 1,
            metrics=metrics,
            seconds=self.history.seconds + seconds,
            curve=[*self.history.curve, record],
        )

    def _report(self) -> None:
        """Tell of the epoch that has just ended."""
        newest = self.history.curve[-1]
        self._emit(
            EpochDone(
                self.node,
                newest["epoch"],
                self.training.epochs,
                dict(newest["metrics"]),
                newest["clips_per_second"],
                newest["wait_seconds"],
                self.waits[0],
            )
        )

    def _emit(self, event: Event) -> None:
        if self.worker.is_first:
            self.worker.emit(event)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers (epochs may be -1)."""
    entropy = [n & 0xFFFFFFFF for n in numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
