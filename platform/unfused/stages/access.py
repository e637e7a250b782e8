"""What stages may touch of the cluster: one of two things, and no more.

The rule of this file: a stage declares the kind of access that it needs; what the kind asks of the
cluster is held against the hardware before anything starts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from unfused import cores, runtime
from unfused.config import RunOptions
from unfused.events import Note, Progress

Resources = dict[str, float]


class TaskFailed(RuntimeError):
    """A Ray Data task ended with an error; the message is its own."""


class Access(Protocol):
    """A part of the cluster, for one call of a stage."""

    @property
    def began(self) -> float | None:
        """When the call got what it had to wait for; None where it waited for nothing."""

    @property
    def waited(self) -> float:
        """Seconds since then in which it waited again."""

    @staticmethod
    def needs(options: RunOptions, hardware: runtime.Hardware) -> Resources:
        """CPUs and GPUs while a stage computes."""


class Pool(Protocol):
    """The Ray Train runs of a pipeline, as far as stages know them (see `unfused.training`)."""

    @property
    def size(self) -> int: ...

    def run(
        self,
        jobs: Sequence[Any],
        working: Callable[[], AbstractContextManager[None]],
        turn: tuple[float, ...],
    ) -> list[Any]: ...


@dataclass
class Workers:
    """Ray Train's workers: for what learns, embeds, clusters or scores, on a GPU where they have
    one."""

    pool: Pool
    turn: tuple[float, ...] = ()
    """Workers take what has the lowest first."""
    began: float | None = None
    """When a worker took the first job: others may have been before it."""
    waited: float = 0.0
    """Seconds since then without a worker: what is more urgent may have come between two jobs."""
    _at_work: int = 0
    _left: float = 0.0
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def needs(options: RunOptions, hardware: runtime.Hardware) -> Resources:
        """The workers of a job, and as many CPUs again for the Ray Data tasks that feed them."""
        workers = options.num_workers
        gpus = runtime.gpus_per_worker(options, hardware)
        return {"CPU": 2.0 * workers, "GPU": float(gpus * workers)}

    @property
    def num_jobs(self) -> int:
        """Jobs that run side by side."""
        return self.pool.size

    def run(self, jobs: Sequence[Any]) -> list[Any]:
        """Run jobs (`training.Job`), side by side where there is room; what each returned."""
        return self.pool.run(jobs, self._working, self.turn)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._counting:
            now = time.time()
            if self.began is None:
                self.began = now
            elif not self._at_work:
                self.waited += now - self._left
            self._at_work += 1
        try:
            yield
        finally:
            with self._counting:
                self._at_work, self._left = self._at_work - 1, time.time()

    def call(
        self, function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]]
    ) -> list[Any]:
        """`function(*arguments, emit)` for every node, each on one worker; `emit` takes events.

        For what no more than one process has use for.
        """
        return self.run([_Call(node, function, arguments) for node, arguments in calls.items()])

    def share(self, total: int) -> list[range]:
        """So many pieces of work, each of them whole, as what each job takes of them: twice as many
        jobs as run side by side, for what is more urgent waits until one ends."""
        parts = min(total, 2 * self.num_jobs) if self.num_jobs > 1 else 1
        return [range(part, total, parts) for part in range(parts)]


@dataclass(frozen=True)
class _Call:
    """A function as a job: the first worker calls it, and others have nothing to do."""

    node: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self, worker: Any) -> Any:
        return self.function(*self.arguments, worker.emit) if worker.is_first else None


@dataclass(frozen=True)
class Tasks:
    """Ray Data tasks: for what reads and writes clips without a model."""

    cluster: runtime.Cluster
    began: float | None = None
    waited: float = 0.0

    @staticmethod
    def needs(options: RunOptions, hardware: runtime.Hardware) -> Resources:
        return {"CPU": 1.0}

    def map(
        self, node: str, rows: Sequence[str], task: Callable[[Any], Any], total: int, doing: str
    ) -> Iterator[dict[str, Any]]:
        """Run `task`, from JSON to JSON, on every row; what comes back, in any order.

        Args:
            node: whose progress this is.
            rows: JSON.
            task: its result says in `seen` how many clips it has dealt with.
            total: clips in all.
            doing: a word for the display.

        Raises:
            TaskFailed: with what one of them said.
        """
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        # A machine of this run's own declares more CPUs than it has cores, for what waits.
        most = None if self.cluster.hardware.joined else cores.available_cpus()
        items = ray.data.from_items(
            [{"task": row} for row in rows], override_num_blocks=max(1, len(rows))
        )
        done = 0
        self.cluster.stream.emit(Progress(node, done, total, doing=doing))
        for row in _told(items.map(_OnJson(task), concurrency=most).iter_rows()):
            result = json.loads(row["result"])
            done += result["seen"]
            self.cluster.stream.emit(Progress(node, done, total, doing=doing))
            yield result

    def tell(self, node: str, text: str) -> None:
        """Tell a person of something."""
        self.cluster.stream.emit(Note(text, node))

    def warn(self, node: str, text: str) -> None:
        """Tell a person of something that may need attention."""
        self.cluster.stream.emit(Note(text, node, "warning"))


def _told(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows; what a task said where it failed, without the layers that Ray wraps around it."""
    try:
        yield from rows
    except Exception as error:
        from unfused.training import root_cause

        raise TaskFailed(root_cause(error)) from error


@dataclass(frozen=True)
class _OnJson:
    """A function from JSON to JSON as a Ray Data map."""

    function: Callable[[Any], Any]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        return {"result": json.dumps(self.function(json.loads(row["task"])))}
