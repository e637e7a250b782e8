"""One execution of a plan: build what is missing, side by side where it is ready.

The rule of this file: a stage is handed what its contract asks for, and what it made is committed
here alone. The thread that executes decides what starts; each group of nodes is built on one of its
own.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from unfused import provenance, runtime, stages
from unfused.config import ConfigError, RunOptions, flatten
from unfused.events import (
    INTERRUPTED,
    NodeFailed,
    NodeFinished,
    NodeHit,
    NodeStarted,
    Phase,
    Resumed,
    RunStarted,
    Stream,
)
from unfused.pipeline.healing import MOST, Healing
from unfused.pipeline.plan import Plan, Step, Urgency
from unfused.stages import Build, Built, Tasks, Workers
from unfused.store import Damaged, Folder

if TYPE_CHECKING:
    from unfused.training import Pool

T = TypeVar("T")

STOP_SECONDS = 0.5
"""Between two times that workers are told to give up."""


@dataclass(frozen=True)
class Backend:
    """The Ray that pipelines run on, and the workers that train for them."""

    cluster: runtime.Cluster
    pool: Pool

    def access(self, stage: stages.Stage, turn: tuple[float, ...]) -> Any:
        """What a stage may touch of it; workers take what has the lowest turn first."""
        kinds = {
            Workers: lambda: Workers(self.pool, turn),
            Tasks: lambda: Tasks(self.cluster),
        }
        return kinds[stage.access]()


class Run:
    """One execution of a plan.

    Args:
        plan: what is to be built.
        hardware: what it may use.
        stream: where its events go.
        record: provenance, where the process that was started is another one.
        check_parts: called when all clips are ingested; by default the plan's own.
    """

    def __init__(
        self,
        plan: Plan,
        hardware: runtime.Hardware,
        stream: Stream,
        record: dict[str, Any] | None = None,
        check_parts: Callable[[], None] | None = None,
    ) -> None:
        self.plan, self.hardware, self.stream = plan, hardware, stream
        self.request = plan.request
        self.id = uuid.uuid4().hex[:8]
        self._record = record
        self._check_parts = check_parts or plan.check_parts
        self._resumed: dict[str, int] = {}
        self._announced: set[str] = set()
        self._cancelled = threading.Event()
        self._checked = False
        """Whether the ingested clips were held against the request."""
        self._lock = threading.Lock()
        """Held while a step comes to know its artifact and tells of it."""
        self._began = time.time()
        self.healing = Healing(plan, stream, self._lock)
        stream.subscribe(self._watch)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What makes the results: asked for once something is to be made."""
        return self._record or provenance.collect()

    def _watch(self, event: Any) -> None:
        if isinstance(event, Resumed):
            self._resumed[event.node] = event.epoch

    def execute(self, backend: Backend | None = None) -> None:
        """Build all that is missing.

        Args:
            backend: that others use as well; by default one of this run's own, and none at all
                where nothing is missing.

        Raises:
            runtime.Cancelled: `cancel` was called.
        """
        self._start()
        self._complete(backend)

    def execute_and(self, then: Callable[[], T], backend: Backend | None = None) -> T:
        """As `execute`, and do `then`, which reads what there is; what it finds damaged is built
        anew.

        Args:
            then: its result is returned.
            backend: see `execute`.
        """
        self._start()
        for _ in range(MOST):
            self._complete(backend)
            try:
                return then()
            except Damaged as damage:
                if not self.healing.of_reading(damage):
                    raise
        self._complete(backend)
        return then()

    def _start(self) -> None:
        self.stream.emit(
            RunStarted(flatten(self.request.config), tuple(self.plan.steps), self.record)
        )

    def _complete(self, backend: Backend | None = None) -> None:
        self._announce_hits()
        runtime.sweep(self.plan.store.root)
        if not self.plan.missing:
            return
        if backend:
            self._build_all(backend, shared=True)
            return
        storage = self.plan.store.root / "work" / self.id
        with open_backend(self.request.options, self.hardware, self.stream, storage) as own:
            self._build_all(own, shared=False)
        # What workers of a killed run may have gone on with for a moment.
        runtime.sweep(self.plan.store.root)

    def cancel(self) -> None:
        """Have `execute` give up after the epoch at hand; called from another thread."""
        self._cancelled.set()

    def _build_all(self, backend: Backend, *, shared: bool) -> None:
        """Build what is ready, side by side, until nothing is missing.

        Args:
            backend: that builds it.
            shared: whether it is there for others when this ends with an error.
        """
        ended: queue.SimpleQueue[_Building] = queue.SimpleQueue()
        running: list[_Building] = []
        self.stream.emit(Phase("starting workers" if self._more_than_ingest else ""))
        if self._ingesting and self._more_than_ingest and not self.hardware.joined:
            # The workers start while the first clips are read.
            backend.pool.start()
        try:
            self._check_ingested()
            # Who has built the last node may still hold its lease.
            while self.plan.missing or running:
                if self.plan.missing and self._cancelled.is_set():
                    raise runtime.Cancelled("cancelled")
                with self._lock:
                    groups = [*self._startable(running, backend.pool.size)]
                for group, urgency in groups:
                    running.append(_Building(self, group, urgency, backend, ended))
                    running[-1].start()
                one = ended.get()
                running.remove(one)
                if one.error:
                    raise one.error
                self._check_ingested()
                with self._lock:
                    busy = {step.node.name for other in running for step in other.group}
                    self.plan.refresh(busy)
                    self._announce_hits()
        except BaseException as error:
            if shared and isinstance(error, Exception):
                self._end(running, backend, ended)
            else:
                self._leave(running, error)
            raise

    @property
    def _ingesting(self) -> bool:
        """Whether clips are missing that others wait for."""
        return any(step.node.stage == "ingest" for step in self.plan.missing)

    @property
    def _bringing_in(self) -> bool:
        """Whether anything is missing that is built on nothing."""
        return any(not step.reads for step in self.plan.missing)

    @property
    def _more_than_ingest(self) -> bool:
        return any(step.node.stage != "ingest" for step in self.plan.missing)

    def _check_ingested(self) -> None:
        """Once all clips are there, refuse what they rule out."""
        if not self._checked and not self._ingesting:
            self._checked = True
            if self.plan.missing:
                self._check_parts()

    def _startable(
        self, running: Sequence[_Building], most: int
    ) -> Iterator[tuple[list[Step], Urgency]]:
        """The nodes that may start now, and how urgent they are.

        First what is built on nothing, clips and teachers. Then what is most urgent: as many at a
        time as jobs can run, beside what is less urgent and has begun.
        """
        keys = {step.key for one in running for step in one.group}
        busy = [one.urgency for one in running if one.stage.access is Workers]
        urgency, bringing_in = self.plan.urgency(), self._bringing_in
        groups = [
            (max(urgency[step.node.name] for step in group), group)
            for group in self.plan.ready_groups()
        ]
        for urgent, group in sorted(groups, key=lambda one: one[0], reverse=True):
            if keys & {step.key for step in group} or (bringing_in and group[0].reads):
                continue
            if stages.get(group[0].node.stage).access is Workers:
                if sum(other >= urgent for other in busy) >= most:
                    continue
                busy.append(urgent)
            yield group, urgent

    def _end(
        self,
        running: Sequence[_Building],
        backend: Backend,
        ended: queue.SimpleQueue[_Building],
    ) -> None:
        """Have what still runs beside what has failed give up, and wait for that."""
        left = list(running)
        for one in left:
            one.unwanted.set()
        while left:
            backend.pool.cancel()
            with suppress(queue.Empty):
                left.remove(ended.get(timeout=STOP_SECONDS))

    def _leave(self, running: Sequence[_Building], error: BaseException) -> None:
        """Leave what still runs to end with this process."""
        failed = runtime.Cancelled("another node failed")
        for one in running:
            one.unwanted.set()
            one.give_up(failed if isinstance(error, Exception) else error)

    def _announce_hits(self) -> None:
        for name, step in self.plan.steps.items():
            if step.status in ("hit", "given") and name not in self._announced:
                self._announced.add(name)
                self.stream.emit(
                    NodeHit(name, step.node.stage, str(step.key), step.manifest or {})
                )

    def check_fit(self) -> None:
        """Refuse what the cluster can never satisfy.

        Raises:
            ConfigError: names the stage, what is missing and the remedy.
        """
        runtime.check_cluster(self.request.options, self.hardware)
        for step in {step.node.stage: step for step in self.plan.missing}.values():
            runtime.check_fit(step.node.stage, self.needs(step), self.hardware)

    def needs(self, step: Step) -> dict[str, float]:
        """What a node asks of the cluster while it is built."""
        access = stages.get(step.node.stage).access
        return access.needs(self.request.options, self.hardware)

    def _announce_start(self, step: Step) -> None:
        node, key, config = step.node, str(step.key), self._config(step)
        self.stream.emit(NodeStarted(node.name, node.stage, key, config, self._upstream(step)))

    def _give_up(self, step: Step, build: Build, error: BaseException) -> None:
        """Clear away what was begun, and tell why."""
        with suppress(OSError):
            # Another worker may still write there.
            build.out.delete()
        given_up = isinstance(error, runtime.Cancelled)
        if given_up and self._cancelled.is_set():
            # Nobody wants it. What ends because another node failed is gone on with.
            build.checkpoints.delete()
        stopped = isinstance(error, KeyboardInterrupt)
        reason = INTERRUPTED if stopped else str(error) or type(error).__name__
        self.stream.emit(NodeFailed(step.node.name, reason, given_up))

    def _as_build(self, step: Step) -> Build:
        stage, key = step.node.stage, str(step.key)
        self.healing.make_room(step)
        inputs = {name: self.plan.artifact(ref) for name, ref in step.node.inputs.items()}
        return Build(
            step.node.name,
            step.node.config,
            inputs,
            self.plan.store.begin(stage, key),
            self.plan.store.checkpoints(stage, key),
            step.clips,
            step.node.outside,
        )

    def _commit(
        self, step: Step, build: Build, built: Built, began: float, seconds: float
    ) -> None:
        stage, key = step.node.stage, str(step.key)
        manifest = {
            "node": step.node.name,
            "stage": stage,
            "key": key,
            "version": stages.get(stage).version,
            "config": self._config(step),
            "inputs": self._upstream(step),
            "facts": built.facts.model_dump(mode="json"),
            "seconds": round(seconds, 3),
            "provenance": {**self.record, "began": began, "ended": time.time()},
        }
        with self._lock:
            kept = self.plan.store.commit(stage, key, build.out, manifest)
            step.settle("built", kept)
            step.seconds = seconds
            step.resumed_from_epoch = self._resumed.get(step.node.name)
            self.stream.emit(NodeFinished(step.node.name, stage, key, seconds, kept))
        build.checkpoints.delete()

    def _config(self, step: Step) -> dict[str, Any]:
        return {name: s.model_dump(mode="json") for name, s in step.node.config.items()}

    def _upstream(self, step: Step) -> dict[str, str]:
        """Input name -> where it lies in the store (stage/key, with the part after a colon)."""
        found = {}
        for name, ref in step.node.inputs.items():
            up = self.plan.steps[ref.node]
            found[name] = f"{up.node.stage}/{up.key}" + (f":{ref.part}" if ref.part else "")
        return found


@contextmanager
def open_backend(
    options: RunOptions,
    hardware: runtime.Hardware,
    stream: Stream,
    storage: Folder,
    *,
    shared: bool = False,
) -> Iterator[Backend]:
    """The Ray that pipelines run on, with the workers that train for them.

    Args:
        options: of the run.
        hardware: what it may use.
        stream: where its events go.
        storage: for Ray Train's own records, where Ray is somebody's; those of one of this process
            go with it.
        shared: whether others build on it at the same time.
    """
    stream.emit(Phase("loading torch and Ray"))
    from unfused import training

    with runtime.connect(options, hardware, stream, shared=shared) as cluster:
        if own := runtime.scratch():
            storage = Folder.of(own / f"train-{uuid.uuid4().hex[:8]}")
        pool = training.Pool(cluster, storage, runtime.jobs_at_once(options, hardware))
        try:
            yield Backend(cluster, pool)
        finally:
            if not pool.close():
                runtime.abandon()


class _Building(threading.Thread):
    """Nodes of one stage that are built together, beside others.

    Args:
        run: that they are of.
        group: the nodes.
        urgency: of them (`Plan.urgency`).
        backend: that builds them.
        ended: where this goes when it has ended.
    """

    def __init__(
        self,
        run: Run,
        group: list[Step],
        urgency: Urgency,
        backend: Backend,
        ended: queue.SimpleQueue[_Building],
    ) -> None:
        super().__init__(daemon=True)
        self._of, self.group, self._backend, self._ended = run, group, backend, ended
        self.urgency = urgency
        self.stage = stages.get(group[0].node.stage)
        self._builds: list[tuple[Step, Build]] = []
        self._began = time.time()
        self.error: BaseException | None = None
        self.unwanted = threading.Event()
        """Set where another builder of the same keys is not to be waited for any longer."""

    def run(self) -> None:
        try:
            self._lease()
        except BaseException as error:
            self.error = self._of.plan.store.failure(error)
            self.give_up(self.error)
            self._heal(error)
        self._ended.put(self)

    def _heal(self, error: BaseException) -> None:
        """A failure that comes of a damaged input is none: the nodes are begun again."""
        refused = isinstance(error, ConfigError | runtime.Cancelled)
        if not isinstance(error, Exception) or (refused and not isinstance(error, Damaged)):
            return
        try:
            if self._of.healing.of_failure(self.group, self._began):
                self.error = None
        except Exception as found:
            self.error = self._of.plan.store.failure(found)

    def give_up(self, error: BaseException) -> None:
        """Clear away what was begun of those that are not done, and tell why."""
        begun, self._builds = self._builds, []
        for step, build in begun:
            if step.manifest is None:
                self._of._give_up(step, build, error)

    def _lease(self) -> None:
        run, backend = self._of, self._backend
        keys = [f"{step.node.stage}/{step.key}" for step in self.group]
        # Whoever builds it may need what this run's workers hold.
        how = (run.id, backend.pool.making_room, run.plan.store.root, self._check_wanted)
        with backend.cluster.lease(keys, *how):
            # Another run may have built some while this one waited.
            with run._lock:
                group = [step for step in self.group if not run.plan.found(step)]
            if group:
                self._build(group)

    def _check_wanted(self) -> None:
        if self.unwanted.is_set() or self._of._cancelled.is_set():
            raise runtime.Cancelled("cancelled")

    def _build(self, group: list[Step]) -> None:
        run = self._of
        self._builds = [(step, run._as_build(step)) for step in group]
        for step in group:
            run._announce_start(step)
        # Of several runs the one that began first.
        turn = (run._began, *(-number for number in self.urgency))
        began, access = time.time(), self._backend.access(self.stage, turn)
        results = self.stage.run([build for _, build in self._builds], access)
        began = access.began or began
        # Nodes that one call has built share its time evenly.
        seconds = (time.time() - began - access.waited) / len(results)
        for (step, build), built in zip(self._builds, results, strict=True):
            run._commit(step, build, built, began, seconds)
