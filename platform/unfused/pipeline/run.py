"""One execution of a plan: build what is missing, in groups of what is ready.

The rule of this file: a stage is handed what its contract asks for, and what it made is committed
here alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfused import provenance, runtime, stages
from unfused.config import RunOptions, flatten
from unfused.events import (
    NodeFailed,
    NodeFinished,
    NodeHit,
    NodeStarted,
    Resumed,
    RunStarted,
    Stream,
)
from unfused.pipeline.plan import Plan, Step
from unfused.stages import Build, Built, Processes, Tasks, Workers
from unfused.store import Folder

if TYPE_CHECKING:
    from unfused.training import Session


@dataclass(frozen=True)
class Backend:
    """The Ray that pipelines run on, and the session that trains for them."""

    cluster: runtime.Cluster
    session: Session

    def access(self, stage: stages.Stage) -> Any:
        """What a stage may touch of it."""
        kinds = {
            Workers: lambda: Workers(self.session),
            Tasks: lambda: Tasks(self.cluster),
            Processes: lambda: Processes(self.cluster, self.session),
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
        self.record = record or provenance.collect()
        self._check_parts = check_parts or plan.check_parts
        self._resumed: dict[str, int] = {}
        self._announced: set[str] = set()
        self._cancelled = threading.Event()
        stream.subscribe(self._watch)

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
        self.stream.emit(
            RunStarted(flatten(self.request.config), tuple(self.plan.steps), self.record)
        )
        self._announce_hits()
        if not self.plan.missing:
            self.plan.refuse_overlap()
            return
        if backend:
            self._build_all(backend)
            return
        storage = self.plan.store.root / "work" / self.id
        with open_backend(self.request.options, self.hardware, self.stream, storage) as own:
            self._build_all(own)

    def cancel(self) -> None:
        """Have `execute` give up after the epoch at hand; called from another thread."""
        self._cancelled.set()

    def _build_all(self, backend: Backend) -> None:
        ingested = False
        first = self.plan.next_group()[0].node.stage
        more = any(step.node.stage != first for step in self.plan.missing)
        if first == "ingest" and more and not self.hardware.joined:
            # The workers start while the first clips are read.
            backend.session.start()
        while self.plan.missing:
            if self._cancelled.is_set():
                raise runtime.Cancelled("cancelled")
            group = self.plan.next_group()
            if group[0].node.stage != "ingest" and not ingested:
                ingested = True
                self.plan.refuse_overlap()
                self._check_parts()
            self._build(group, backend)
            self.plan.refresh()
            self._announce_hits()

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

    def _build(self, group: list[Step], backend: Backend) -> None:
        keys = [f"{step.node.stage}/{step.key}" for step in group]
        # Whoever builds it may need what this run's workers hold.
        with backend.cluster.lease(keys, self.id, backend.session.release):
            # Another run may have built some while this one waited.
            group = [step for step in group if not self.plan.found(step)]
            if group:
                self._build_now(group, backend)

    def _build_now(self, group: list[Step], backend: Backend) -> None:
        builds = [self._as_build(step) for step in group]
        for step in group:
            self.stream.emit(
                NodeStarted(
                    step.node.name,
                    step.node.stage,
                    str(step.key),
                    self._config(step),
                    self._upstream(step),
                )
            )
        began, stage = time.time(), stages.get(group[0].node.stage)
        try:
            results = stage.run(builds, backend.access(stage))
        except BaseException as error:
            for step, build in zip(group, builds, strict=True):
                self._give_up(step, build, error)
            raise
        shares = _shares(results, time.time() - began)
        for step, build, built, seconds in zip(group, builds, results, shares, strict=True):
            self._commit(step, build, built, began, seconds)

    def _give_up(self, step: Step, build: Build, error: BaseException) -> None:
        """Clear away what was begun, and tell why."""
        with suppress(OSError):
            # Another worker may still write there.
            build.out.delete()
        given_up = isinstance(error, runtime.Cancelled)
        if given_up:
            build.checkpoints.delete()
        stopped = isinstance(error, KeyboardInterrupt)
        reason = "interrupted" if stopped else str(error) or type(error).__name__
        self.stream.emit(NodeFailed(step.node.name, reason, given_up))

    def _as_build(self, step: Step) -> Build:
        stage, key = step.node.stage, str(step.key)
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
        self.plan.store.commit(stage, key, build.out, manifest)
        build.checkpoints.delete()
        kept = self.plan.store.manifest(stage, key) or manifest
        step.settle("built", kept)
        step.seconds = seconds
        step.resumed_from_epoch = self._resumed.get(step.node.name)
        self.stream.emit(NodeFinished(step.node.name, stage, key, seconds, kept))

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
    """The Ray that pipelines run on, with the session that trains for them.

    Args:
        options: of the run.
        hardware: what it may use.
        stream: where its events go.
        storage: for Ray Train's own records while it runs.
        shared: whether others build on it at the same time.
    """
    from unfused import training

    with runtime.connect(options, hardware, stream, shared=shared) as cluster:
        session = training.Session(cluster, storage)
        try:
            yield Backend(cluster, session)
        finally:
            if not session.close():
                runtime.abandon()


def _shares(results: list[Built], seconds: float) -> Iterator[float]:
    """A group's wall time, shared out in proportion to what each node says it took."""
    for built in results:
        yield seconds * built.seconds / max(sum(one.seconds for one in results), 1e-9)
