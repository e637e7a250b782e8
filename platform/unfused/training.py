"""The Ray Train run that every stage with a model uses, and its one loop.

The rule of this room: pretrain, distill and finetune differ by a model and its batches, never by a
copy of the loop. A stage hands picklable jobs to the `Session`, the one Ray Train run of a
pipeline; its workers run them one after the other. A job that learns calls `Worker.fit`, one that
embeds or scores goes through its worker's share of the clips (`Worker.even_windows`).

Batch norm: synchronised between workers on GPU, per worker on CPU (gloo has no synchronised batch
norm), where every step starts from worker 0's running statistics.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from unfused import runtime, shards
from unfused.config import Training
from unfused.events import EpochDone, Event, Progress, Resumed
from unfused.optimizers import build_optimizer, learning_rate_factor
from unfused.store import Artifact, Folder

MAX_FAILURES = 4
"""So many lost workers are replaced from the first to the last batch of a session."""
CLOSE_SECONDS = 3.0
"""Patience with workers that end; a cluster of this run's own ends with them."""
POLL_SECONDS = 0.5
"""Between two looks of Ray Train's at its workers (2 by default): what a run's end waits for."""
PROGRESS_SECONDS = 1.0
"""Between two events that tell how far a pass is."""
Batch = Mapping[str, Tensor]


class Job(Protocol):
    """One piece of work on a model: plain data that travels to the workers."""

    def run(self, worker: Worker) -> dict[str, Any]:
        """Train or compute, write the result and return its facts; called on every worker."""


class Learner(nn.Module):
    """What `Worker.fit` trains: `forward(batch)` is this worker's loss.

    The value is the loss of the global batch; the gradient flows through this worker's clips alone,
    so that the sum over workers is the gradient of the global batch.
    """

    needs_initial_pass = False

    def observe(self, batch: Batch) -> None:
        """See a batch of the pass before the first epoch."""

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """Called on all workers before an epoch; may return metrics."""
        return {}

    def rank_state(self) -> dict[str, Tensor]:
        """State that lives on this worker alone."""
        return {}

    def load_rank_state(self, states: list[dict[str, Tensor]]) -> None:
        """Restore `rank_state` from all workers' states, in rank order."""


@dataclass
class Worker:
    """One process of a Ray Train run, as a job sees it."""

    rank: int
    world: int
    device: torch.device
    emit: Callable[[Event], None]

    is_cancelled: Callable[[], bool] = lambda: False
    """Whether the driver wants no more of the jobs at hand."""
    memory: dict[Any, Any] = field(default_factory=dict)
    """What one job leaves for the next (see `once`)."""
    turns: AbstractContextManager[None] = field(default_factory=nullcontext)
    """What a pass through a model is taken in (see `runtime.turns`)."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, or what an earlier job of this process made under the same key."""
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]

    def alone(self) -> Worker:
        """This process as if there were no others: no gradient leaves it."""
        return replace(self, rank=0, world=1)

    def wait(self) -> None:
        """Wait for all workers."""
        if self.world > 1:
            dist.barrier()

    def heed(self) -> None:
        """Give up, on all workers together, what the driver has cancelled.

        Raises:
            runtime.Cancelled: it has.
        """
        cancelled = torch.tensor(float(self.is_first and self.is_cancelled()), device=self.device)
        if self.world > 1:
            dist.broadcast(cancelled, 0)
        if cancelled:
            raise runtime.Cancelled("cancelled")

    def stream(self, part: Artifact, *, num_samples: int, training: Training) -> Stream:
        """The shuffled, endless supply of training windows of one part."""
        total = shards.num_clips(part)
        rows = shards.rank_rows(total, self.rank, self.world)
        steps = num_steps(total, training.batch_size)
        cache = None
        if shards.may_be_kept(part, rows):
            cache = self.once(
                ("clips", part.folder.uri), lambda: shards.ClipCache(part, np.array(rows))
            )
        clips = shards.ClipStream(part, rows, num_samples, steps, training.seed, cache)
        return Stream(clips, self.device)

    def even_windows(
        self,
        part: Artifact,
        nodes: Collection[str],
        *,
        num_samples: int,
        num_crops: int,
        clips_per_block: int,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Evenly spaced windows of this worker's share of the clips, streamed a block at a time.

        Args:
            part: the clips.
            nodes: whose progress this is.
            num_samples: S.
            num_crops: C.
            clips_per_block: B at most.

        Yields:
            Clips (B,) and their windows (B, C, S) int16 on this worker's device.
        """
        total, done, last = shards.num_clips(part), 0, time.monotonic()
        rows = shards.rank_rows(total, self.rank, self.world)
        for block in shards.even_blocks(part, rows, num_samples, num_crops, clips_per_block):
            yield block["clip"], torch.from_numpy(block["samples"].copy()).to(self.device)
            done += len(block["clip"])
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
    ) -> dict[str, float]:
        """Train `learner` in place for `training.epochs` epochs.

        Args:
            checkpoints: where every finished epoch is kept and an interrupted fit resumes from.
            after_epoch: metrics of a finished epoch, called on every worker with its number.
            quiet: emit no events (the many small fits of fine-tuning report as a whole).

        Returns:
            The last epoch's metrics, and `training_seconds` of all epochs, those before an
            interruption among them.
        """
        loop = _Loop(self, learner.to(self.device), stream, training, node, quiet)
        start, metrics = loop.restore(checkpoints) if checkpoints else (0, {})
        if start == 0 and learner.needs_initial_pass:
            loop.initial_pass()
        for epoch, batches in stream.epochs(start, training.epochs):
            metrics = loop.epoch(epoch, batches)
            if after_epoch:
                metrics |= after_epoch(epoch)
            if checkpoints:
                loop.save(checkpoints, epoch + 1, metrics)
            loop.report(epoch, metrics)
            if not quiet:
                self.heed()
        return {**metrics, "training_seconds": round(loop.seconds, 3)}


@dataclass(frozen=True)
class Stream:
    """A worker's shards as tensors on its device."""

    clips: shards.ClipStream
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

    def _tensors(self, batch: shards.Batch) -> Batch:
        return {
            name: torch.from_numpy(column).to(self.device, non_blocking=True)
            for name, column in batch.items()
        }


def num_steps(num_clips: int, batch_size: int) -> int:
    """Steps in an epoch: batches of `batch_size` clips as nearly as batches of one size can be."""
    return max(1, round(num_clips / batch_size))


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
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        order = torch.randperm(self.num_clips, generator=generator)
        for rows in order.tensor_split(self.num_steps):
            yield {name: column[rows] for name, column in self.columns.items()}


class _Loop:
    """The state of one `Worker.fit`."""

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
        self.clips_per_second = 0.0
        self.seconds = 0.0
        """That the epochs took so far."""
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

    def initial_pass(self) -> None:
        """Show the learner every clip once, in training mode as the epochs will."""
        torch.manual_seed(_mix(self.training.seed, -1, self.worker.rank))
        self.learner.train()
        for _, batches in self.stream.epochs(-1, 0):
            for batch in self._watched(batches, -1):
                with torch.no_grad(), self._autocast():
                    self.learner.observe(batch)

    def epoch(self, epoch: int, batches: Iterator[Batch]) -> dict[str, float]:
        torch.manual_seed(_mix(self.training.seed, epoch, self.worker.rank))
        self.learner.train()
        metrics = self.learner.start_epoch(epoch)
        began, total = time.perf_counter(), 0.0
        for step, batch in enumerate(self._watched(batches, epoch)):
            total += self._step(batch, epoch * self.stream.num_steps + step)
        loss = total / self.stream.num_steps
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss of {self.node} is {loss} in epoch {epoch + 1}; "
                f"lower the learning rate (now {self.training.learning_rate:g})."
            )
        seconds = time.perf_counter() - began
        self.seconds += seconds
        self.clips_per_second = self.stream.num_clips * self.worker.world / seconds
        return {"loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"], **metrics}

    def _step(self, batch: Batch, step: int) -> float:
        factor = learning_rate_factor(
            step,
            num_steps=self.training.epochs * self.stream.num_steps,
            warmup_fraction=self.training.warmup_fraction,
            schedule=self.training.schedule,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * factor
        with self._autocast():
            loss = self.model(batch)
        self.optimizer.zero_grad()
        # DistributedDataParallel averages over workers; the global gradient is their sum.
        (loss * self.worker.world).backward()
        self.optimizer.step()
        return float(loss.detach())

    def _autocast(self):
        return runtime.autocast(self.worker.device, self.training.precision)

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
                share = self.worker.world
                self._emit(
                    Progress(self.node, done * share, self.stream.num_clips * share, "clips", doing)
                )

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        began = time.perf_counter()
        for batch in batches:
            self.waits.append(time.perf_counter() - began)
            with self.worker.turns:
                yield batch
            began = time.perf_counter()

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if not self.quiet:
            self._emit(
                EpochDone(
                    self.node,
                    epoch + 1,
                    self.training.epochs,
                    dict(metrics),
                    self.clips_per_second,
                    sum(self.waits),
                    self.waits[0],
                )
            )

    def _emit(self, event: Event) -> None:
        if self.worker.is_first:
            self.worker.emit(event)

    def save(self, checkpoints: Folder, epochs: int, metrics: Mapping[str, float]) -> None:
        """Keep the state after `epochs` finished epochs; the newest whole one is what counts."""
        folder = checkpoints / f"epoch-{epochs:05d}"
        mine = {"rank": self.learner.rank_state()}
        if self.worker.is_first:
            mine |= {"model": self.learner.state_dict(), "optimizer": self.optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save(mine, buffer)
        folder.write(f"rank-{self.worker.rank:05d}.pt", buffer.getvalue())
        if self.worker.world > 1:
            dist.barrier()
        if self.worker.is_first:
            state = {"epochs": epochs, "world": self.worker.world, "metrics": metrics}
            checkpoints.write_json("latest.json", {**state, "seconds": self.seconds})
            (checkpoints / f"epoch-{epochs - 1:05d}").delete()

    def restore(self, checkpoints: Folder) -> tuple[int, dict[str, float]]:
        """Load the newest checkpoint, if there is one.

        Returns:
            The number of finished epochs and the last one's metrics.
        """
        if not checkpoints.exists("latest.json"):
            return 0, {}
        latest = checkpoints.read_json("latest.json")
        folder = checkpoints / f"epoch-{latest['epochs']:05d}"
        states = [
            torch.load(
                io.BytesIO(folder.read(f"rank-{rank:05d}.pt")),
                map_location=self.worker.device,
                weights_only=True,
            )
            for rank in range(latest["world"])
        ]
        self.learner.load_state_dict(states[0]["model"])
        self.optimizer.load_state_dict(states[0]["optimizer"])
        self.learner.load_rank_state([state["rank"] for state in states])
        self.seconds = latest.get("seconds", 0.0)
        self._emit(Resumed(self.node, latest["epochs"]))
        return latest["epochs"], latest["metrics"]


def _mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers (epochs may be -1)."""
    entropy = [n & 0xFFFFFFFF for n in numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class TrainingFailed(RuntimeError):
    """A Ray Train run ended with an error; the message is the worker's own."""


class Session:
    """The Ray Train run that the stages of a pipeline share.

    Starting one costs many seconds (controller, workers, imports), so the workers stay and take one
    batch of jobs after the other from a desk. The run ends after a batch that failed, and with
    `release` where others may want what the workers hold.
    """

    def __init__(self, cluster: runtime.Cluster, storage: Folder) -> None:
        self._cluster, self._storage = cluster, storage
        self._desk: Any = None
        self._thread: threading.Thread | None = None
        self._ending: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._batches = 0

    def start(self) -> None:
        """Start the workers in the background, unless they are there."""
        import ray

        if self._thread is not None and not self._thread.is_alive():
            self.close()
        if self._thread is None:
            desk = ray.remote(_Desk).options(**runtime.beside_driver())
            self._desk, self._batches, self._error = desk.remote(), 0, None
            self._thread = threading.Thread(target=self._fit, args=(self._desk,), daemon=True)
            self._thread.start()

    def run(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Run jobs one after the other on all workers; returns the facts of each.

        Raises:
            TrainingFailed: with the reason a worker gave.
            runtime.Cancelled: `cancel` was called.
        """
        import ray

        self.start()
        ray.get(self._desk.put.remote(list(jobs)))
        self._batches += 1
        outcome, alive = None, True
        while outcome is None and alive:
            alive = self._thread.is_alive()  # type: ignore[union-attr]
            outcome = ray.get(self._desk.outcome.remote(self._batches - 1, 1.0))
        self._cluster.drain()
        if outcome is None:
            error = self._error or RuntimeError("the workers are gone")
            outcome = [], root_cause(error)
        facts, reason = outcome
        if facts is None:
            raise runtime.Cancelled(reason)
        if reason:
            self.close()
            raise TrainingFailed(reason)
        return facts

    def cancel(self) -> None:
        """Have the workers give up the batch at hand after its epoch: `run` raises Cancelled."""
        if self._desk is not None:
            self._desk.cancel.remote(self._batches - 1)

    def release(self) -> None:
        """Let workers go that hold GPUs, or CPUs of somebody's cluster; the next batch starts anew.

        For a while in which this pipeline computes elsewhere, or waits.
        """
        hardware = self._cluster.hardware
        if hardware.joined or runtime.gpus_per_worker(self._cluster.options, hardware):
            self.close()

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Let the workers go.

        Args:
            seconds: of patience; a run that has only begun to start ends when it has started.

        Returns:
            Whether they are gone.
        """
        if self._thread is not None:
            with suppress(Exception):
                self._desk.close.remote()
            self._ending, self._thread = [*self._ending, self._thread], None
        until = time.monotonic() + seconds
        for thread in self._ending:
            thread.join(max(0.0, until - time.monotonic()))
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        with suppress(OSError):
            # A run that takes longer to end may still write there; the last call finds it.
            self._storage.delete()
        return not self._ending

    def _fit(self, desk: Any) -> None:
        try:
            # Its import takes seconds, in which clips can be read.
            self._trainer(desk).fit()
        except BaseException as error:
            if desk is self._desk:
                self._error = error

    def _trainer(self, desk: Any) -> Any:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        options, hardware = self._cluster.options, self._cluster.hardware
        trainer = TorchTrainer if hardware.joined else _lean(TorchTrainer)
        gpus = runtime.gpus_per_worker(options, hardware)
        resources = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
        return trainer(
            _work,
            train_loop_config={
                "desk": desk,
                "relay": self._cluster.relay,
                "sharers": options.concurrency,
            },
            scaling_config=ScalingConfig(
                num_workers=options.num_workers, use_gpu=bool(gpus), resources_per_worker=resources
            ),
            # Ray Train keeps its own small records here; what resumes a stage is the store's
            # checkpoints. A worker that dies is replaced and finds them.
            run_config=RunConfig(
                name="run",
                storage_path=self._storage.uri,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )


def _lean(trainer: type) -> type:
    """Ray Train's trainer without three processes that a Ray of this run's own has no use for.

    One hands out data sets that are given to the trainer (workers make their own here), one frees
    the places of a controller that died, for which it needs a dashboard, and there is none; one
    looks whether a cloud is about to take nodes away. Each costs a start, and wakes a hundred times
    a second as long as the workers train.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    class Lean(trainer):
        def _create_default_callbacks(self) -> list[Any]:
            spare = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [c for c in super()._create_default_callbacks() if not isinstance(c, spare)]

    return Lean


Outcome = tuple[list[dict[str, Any]] | None, str]
"""The facts of a batch's jobs (None: cancelled), and why there are none."""


class _Desk:
    """Hands out batches of jobs to all workers, and takes what came of them."""

    def __init__(self) -> None:
        self._batches: list[list[Job] | None] = []
        self._outcomes: dict[int, Outcome] = {}
        self._cancelled = -1
        self._changed = asyncio.Condition()

    async def put(self, jobs: list[Job] | None) -> None:
        async with self._changed:
            self._batches.append(jobs)
            self._changed.notify_all()

    async def close(self) -> None:
        await self.put(None)

    async def next(self, number: int) -> list[Job] | None:
        """Batch `number`, once it is there; None when there will be no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._batches) > number)
        return self._batches[number]

    async def first_open(self) -> int:
        """The first batch without an outcome: where a replaced worker begins."""
        return len(self._outcomes)

    async def cancel(self, number: int) -> None:
        self._cancelled = number

    async def is_cancelled(self, number: int) -> bool:
        return self._cancelled >= number

    async def finish(self, number: int, outcome: Outcome) -> None:
        async with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()

    async def outcome(self, number: int, seconds: float) -> Outcome | None:
        """What came of batch `number`, or None if nothing has after `seconds`."""
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: number in self._outcomes), seconds
                )
        return self._outcomes.get(number)


def root_cause(error: BaseException) -> str:
    """What the failing process said, without the layers that Ray wraps around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A remote traceback as text: the exception's own line, not advice that Ray puts behind it.
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b: ", line)]
    return (raised or lines)[-1]


def _work(config: dict[str, Any]) -> None:
    """The training function of every Ray Train worker."""
    import ray
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    runtime.hold_cores()
    runtime.prepare_process(context.get_local_world_size() * config["sharers"])
    runtime.quiet_ray()
    sent = _Sender(config["relay"])
    world, device = context.get_world_size(), ray.train.torch.get_device()
    worker = Worker(
        rank=context.get_world_rank(),
        world=world,
        device=device,
        emit=sent.emit,
        turns=runtime.turns(world, device),
    )
    desk = config["desk"]
    number = ray.get(desk.first_open.remote())
    while (jobs := ray.get(desk.next.remote(number))) is not None:
        worker.is_cancelled = lambda number=number: ray.get(desk.is_cancelled.remote(number))
        outcome = _run_batch(worker, jobs, desk, number)
        sent.wait()
        worker.wait()
        if worker.is_first:
            ray.get(desk.finish.remote(number, outcome))
        worker.memory.clear()
        number += 1


class _Sender:
    """Sends events to the driver, in order; does not wait for an answer to those of progress.

    A thread that trains would stand still for as long as a busy machine takes to answer.
    """

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._last: Any = None

    def emit(self, event: Event) -> None:
        self._last = self._relay.put.remote(event)
        if not isinstance(event, Progress):
            self.wait()

    def wait(self) -> None:
        """Wait until the driver's side has all that was sent."""
        import ray

        if self._last is not None:
            ray.get(self._last)


def _is_lost_peer(error: Exception) -> bool:
    """Whether a collective failed because another worker is gone (gloo has no error of its own)."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _run_batch(worker: Worker, jobs: Sequence[Job], desk: Any, number: int) -> Outcome:
    import ray

    try:
        return [job.run(worker) for job in jobs], ""
    except runtime.Cancelled as error:
        return None, str(error)
    except Exception as error:
        if _is_lost_peer(error):
            # Not this worker's failure: Ray Train replaces the one that is gone, and all go on.
            raise
        outcome: Outcome = [], root_cause(error)
        if worker.world == 1:
            return outcome
        # The driver hears the reason at once; raising frees the workers that wait for this one.
        ray.get(desk.finish.remote(number, outcome))
        raise
