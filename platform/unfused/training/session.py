"""One Ray Train run, seen from the driver and from inside.

The rule of this file: a stage hands over jobs and gets their facts, or one sentence that says why
there are none.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from unfused import cores, distributed, runtime
from unfused.actors import JobQueue
from unfused.config import RunOptions
from unfused.events import Event, Phase, Progress
from unfused.store import Folder
from unfused.training.lean import lean
from unfused.training.learner import Job, nodes_of
from unfused.training.worker import Worker

MAX_FAILURES = 4
"""So many lost workers are replaced from the first to the last job of a session."""
CLOSE_SECONDS = 3.0
"""Patience with workers that end; a cluster of this run's own ends with them."""
POLL_SECONDS = 0.5
"""Between two looks of Ray Train's at its workers (2 by default): what a run's end waits for."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its facts, or why there are none."""

    facts: Any = None
    reason: str = ""
    cancelled: bool = False


class TrainingFailed(RuntimeError):
    """A Ray Train run ended with an error; the message is the worker's own."""


class SessionCluster(Protocol):
    """What a session takes from the cluster that it runs on."""

    @property
    def relay(self) -> runtime.Relay:
        """The actor that carries the workers' events to the driver."""

    @property
    def options(self) -> RunOptions:
        """Of the run: how many workers."""

    @property
    def hardware(self) -> runtime.Hardware:
        """What the workers may use."""

    def drain(self) -> None:
        """Hand over every event that workers have sent so far."""


class Session:
    """One of the Ray Train runs that the stages of a pipeline share (see `pool`).

    Starting one costs many seconds (controller, workers, imports), so the workers stay and take one
    job after the other from a queue. The run ends after a job that failed, and with `release` where
    others may want what the workers hold.
    """

    def __init__(self, cluster: SessionCluster, storage: Folder) -> None:
        self._cluster, self._storage = cluster, storage
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        self._ending: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._jobs = 0

    def start(self) -> None:
        """Start the workers in the background, unless they are there."""
        import ray

        if self._thread is not None and not self._thread.is_alive():
            self.close()
        if self._thread is None:
            queue = ray.remote(JobQueue).options(**runtime.beside_driver())
            self._queue, self._jobs, self._error = queue.remote(), 0, None
            self._thread = threading.Thread(target=self._fit, args=(self._queue,), daemon=True)
            self._thread.start()

    def run(self, job: Job) -> Any:
        """Run a job on all workers; returns its facts.

        Raises:
            TrainingFailed: with the reason a worker gave.
            runtime.Cancelled: `cancel` was called.
        """
        import ray

        self.start()
        ray.get(self._queue.put.remote(ray.cloudpickle.dumps(job)))
        self._jobs += 1
        outcome = self._outcome(self._jobs - 1)
        if outcome.cancelled:
            raise runtime.Cancelled(outcome.reason)
        if outcome.reason:
            self.close()
            raise TrainingFailed(outcome.reason)
        return outcome.facts

    def _outcome(self, number: int) -> Outcome:
        """What came of job `number`, once all events of its workers are handed over."""
        import ray

        packed, alive = None, True
        while packed is None and alive:
            alive = self._thread.is_alive()  # type: ignore[union-attr]
            packed = ray.get(self._queue.outcome.remote(number, 1.0))
        self._cluster.drain()
        if packed is None:
            return Outcome(reason=root_cause(self._error or RuntimeError("the workers are gone")))
        return pickle.loads(packed)

    def cancel(self) -> None:
        """Have the workers give up the job at hand after its epoch: `run` raises Cancelled."""
        if self._queue is not None:
            self._queue.cancel.remote(self._jobs - 1)

    def release(self) -> None:
        """Let workers go that hold GPUs, or CPUs of somebody's cluster; the next job starts anew.

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
                self._queue.close.remote()
            self._ending, self._thread = [*self._ending, self._thread], None
        until = time.monotonic() + seconds
        for thread in self._ending:
            thread.join(max(0.0, until - time.monotonic()))
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        with suppress(OSError):
            # A run that takes longer to end may still write there; the last call finds it.
            self._storage.delete()
        return not self._ending

    def _fit(self, queue: Any) -> None:
        try:
            # Its import takes seconds, in which clips can be read.
            self._trainer(queue).fit()
        except BaseException as error:
            if queue is self._queue:
                self._error = error

    def _trainer(self, queue: Any) -> Any:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        options, hardware = self._cluster.options, self._cluster.hardware
        gpus = runtime.gpus_per_worker(options, hardware)
        resources = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
        own = not hardware.joined
        trainer, meeting = trainer_of(options.num_workers, on_gpu=bool(gpus), own=own)
        return trainer(
            run_worker,
            train_loop_config={
                "queue": queue,
                "relay": self._cluster.relay,
            },
            **meeting,
            scaling_config=ScalingConfig(
                num_workers=options.num_workers, use_gpu=bool(gpus), resources_per_worker=resources
            ),
            # Ray Train keeps its own small records here; what resumes a stage is the store's
            # checkpoints. A worker that dies is replaced and finds them.
            run_config=RunConfig(
                name="run",
                **_storage_of(self._storage),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )


def trainer_of(num_workers: int, *, on_gpu: bool, own: bool) -> tuple[type, dict[str, Any]]:
    """Ray Train's trainer, and how its workers meet, as arguments for it.

    Args:
        num_workers: of the run.
        on_gpu: whether they compute on GPUs.
        own: whether the Ray is this run's own; on a cluster Ray Train is as it comes.
    """
    if own and num_workers == 1 and not on_gpu:
        # Nobody to meet: a controller that knows no torch is 280 MB smaller.
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        return lean(DataParallelTrainer), {}
    from ray.train.torch import TorchConfig, TorchTrainer

    if not own:
        return TorchTrainer, {"torch_config": TorchConfig()}
    from unfused.training.beside import BesideConfig

    return lean(TorchTrainer), {"torch_config": BesideConfig()}


def _storage_of(folder: Folder) -> dict[str, Any]:
    """A folder as Ray Train's configuration, which it shows and logs: without the address's login.
    """
    if folder.local is not None:
        return {"storage_path": folder.uri}
    return {"storage_path": folder.path, "storage_filesystem": folder.filesystem}


WRAPPED = "UserCodeException"
"""What Ray Data makes of an error in a task."""
RAISED = re.compile(r"(\w+\.)*[A-Z]\w*: ")
"""An exception's own line in a traceback."""


def root_cause(error: BaseException) -> str:
    """What the failing process said, without the layers that Ray wraps around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        if type(cause).__name__ == WRAPPED:
            # It says nothing itself; what it is wrapped in has the traceback.
            break
        error = cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A remote traceback as text: the exception's own line, not advice that Ray puts behind it.
    raised = [line for line in lines if RAISED.match(line) and WRAPPED not in line]
    return (raised or lines)[-1]


def run_worker(config: dict[str, Any]) -> None:
    """The training function of every Ray Train worker: job after job of the queue."""
    import ray

    sender = Sender(config["relay"])
    worker, queue = _worker(sender), config["queue"]
    sender.emit(Phase())
    number = ray.get(queue.first_unfinished.remote())
    while (packed := ray.get(queue.next.remote(number))) is not None:
        worker.is_cancelled = lambda number=number: ray.get(queue.is_cancelled.remote(number))
        outcome = run_job(worker, pickle.loads(packed), queue, number)
        sender.wait()
        worker.wait()
        if worker.is_first:
            ray.get(queue.finish.remote(number, ray.cloudpickle.dumps(outcome)))
        worker.memory.clear()
        cores.return_memory()
        number += 1


def _worker(sender: Sender) -> Worker:
    """This process as a worker."""
    import ray.train

    context = ray.train.get_context()
    cores.prepare_process()
    runtime.quiet_ray()
    return Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=_device(),
        emit=sender.emit,
    )


def _device() -> torch.device:
    """This worker's GPU, if it has one."""
    import ray

    if not ray.get_gpu_ids():
        # Ray Train's word for torch takes as long to import as torch itself.
        return torch.device("cpu")
    import ray.train.torch

    return ray.train.torch.get_device()


class Sender:
    """Sends events to the driver, in order; does not wait for an answer to those of progress.

    A thread that trains would stand still for as long as a busy machine takes to answer.
    """

    def __init__(self, relay: runtime.Relay) -> None:
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


def run_job(worker: Worker, job: Job, queue: Any, number: int) -> Outcome:
    """Run a job on this worker.

    Raises:
        Exception: what the job raised, where other workers would wait for this one.
    """
    import ray

    try:
        if worker.is_first:
            for node in nodes_of(job):
                worker.emit(Progress(node, 0, 0))
        return Outcome(job.run(worker))
    except runtime.Cancelled as error:
        return Outcome(reason=str(error), cancelled=True)
    except Exception as error:
        if distributed.is_lost_peer(error):
            # Not this worker's failure: Ray Train replaces the one that is gone, and all go on.
            raise
        outcome = Outcome(reason=root_cause(error))
        if worker.world == 1:
            return outcome
        # The driver hears the reason at once; raising frees the workers that wait for this one.
        ray.get(queue.finish.remote(number, ray.cloudpickle.dumps(outcome)))
        raise
