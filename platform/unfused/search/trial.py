"""One trial at a time, in a process of Ray Tune's: a pipeline run, judged as it goes.

The rule of this room: a trial is the pipeline itself, with the store, the leases and the Ray Train
session that every run has. The process stays for the next trial, and so does its session where it
holds nothing that others want.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune

from unfused import cores, report, runtime, training
from unfused.arms import METHOD
from unfused.config import override
from unfused.events import EpochDone, Event, OfTrial, RunFinished, Stream
from unfused.pipeline import Backend, Inputs, Plan, Request, Run, Step, open_backend
from unfused.search import quality
from unfused.store import Folder

PROBES = (25, 50, 75)
"""At these shares (percent) of a student's epochs a trial may be pruned."""
GIVE_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Setting:
    """What all trials of a search share."""

    request: Request
    """With the configuration that a trial's changes are put on."""
    inputs: Inputs
    hardware: runtime.Hardware
    relay: runtime.Relay
    """Takes the events of all trials to the search."""
    storage: Folder
    """For the Ray Train records of all trials while they run."""
    record: dict[str, Any]
    """Provenance of the search."""
    labelled: bool
    """Whether trials are scored on validation labels; otherwise they end with the student."""
    probed: bool
    """Whether trials are probed on the way."""


def trial_request(request: Request, changes: dict[str, Any], labelled: bool = True) -> Request:
    """The pipeline of one trial: the method's own arm, scored on validation clips.

    Where no label chooses, the trial ends before it is scored; what is scored then is test clips.
    """
    fixed = {"arms": (METHOD.name,), "evaluate.split": "valid" if labelled else "test"}
    return replace(request, config=override(request.config, {**changes, **fixed}))


def trial_plan(request: Request, inputs: Inputs, labelled: bool) -> Plan:
    """Its plan; where no objective looks at labels it ends with the student."""
    plan = Plan(request, inputs)
    if not labelled:
        students = [f"{prefix}{METHOD.student}" for prefix in plan.repetitions]
        plan.keep(plan.upstream(students))
    return plan


class Trial(tune.Trainable):
    """Ray Tune's side of a trial: every step is a probe, the last one the outcome."""

    def setup(self, config: dict[str, Any], setting: Setting) -> None:
        cores.prepare_process()
        runtime.quiet_ray()
        self._setting, self._stack = setting, ExitStack()
        self._backend: Backend | None = None
        self._judge = quality.Judge()
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._pipeline = _Pipeline(self._setting, config, self._shared_backend, self._judge)

    def _shared_backend(self, stream: Stream) -> Backend:
        """This process's relay, leases and session, now with the events of another trial."""
        setting = self._setting
        if self._backend is None:
            storage = setting.storage / self.trial_id
            self._backend = self._stack.enter_context(
                open_backend(
                    setting.request.options, setting.hardware, stream, storage, shared=True
                )
            )
        self._backend.cluster.stream = stream
        return self._backend

    def step(self) -> dict[str, Any]:
        return self._pipeline.results.get()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._pipeline.give_up()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._pipeline.give_up()
        self._stack.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has it."""


class _Pipeline:
    """A pipeline run on a thread, and the results that it puts out for Tune."""

    def __init__(
        self,
        setting: Setting,
        config: dict[str, Any],
        backend: Callable[[Stream], Backend],
        judge: quality.Judge,
    ) -> None:
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()
        self.setting, self.number = setting, config["number"]
        self.changes, self._backend, self._judge = config["changes"], backend, judge
        self.stream = Stream([self._forward])
        self._run: Run | None = None
        self._sent: Any = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """Stop after the epoch at hand, and wait for that."""
        self._given_up.set()
        while self._thread.is_alive():
            if self._run is not None:
                self._run.cancel()
                self._backend(self.stream).session.cancel()
            self._thread.join(GIVE_UP_SECONDS)

    def _forward(self, event: Event) -> None:
        self._sent = self.setting.relay.put.remote(OfTrial(self.number, event))

    def _work(self) -> None:
        status, reason, outcome, summary = "FAILED", "", None, None
        try:
            plan = self._execute()
            whole = report.summarize(plan) if self.setting.labelled else {}
            outcome = outcome_of(plan, whole, self._judge)
            summary = {**whole, "scores": outcome["scores"]}
            status = "FINISHED"
        except runtime.Cancelled:
            status = "KILLED"
        except Exception as error:
            reason = training.root_cause(error)
            outcome = {"failed": reason}
        self.stream.emit(RunFinished(status, summary, reason))
        # The search hears of a trial's end only after all that the trial has told.
        ray.get(self._sent)
        if outcome is not None:
            self.results.put({"progress": 100, "outcome": json.dumps(outcome)})

    def _execute(self) -> Plan:
        """Build what is missing; the plan with all of it."""
        setting = self.setting
        request = trial_request(setting.request, self.changes, setting.labelled)
        plan = trial_plan(request, setting.inputs, setting.labelled)
        self._run = Run(plan, setting.hardware, self.stream, setting.record)
        if self._given_up.is_set():
            raise runtime.Cancelled("pruned before it began")
        if setting.probed:
            self.stream.subscribe(_Prober(plan, self.results))
        backend = self._backend(self.stream)
        try:
            self._run.execute(backend)
        finally:
            # Ray Tune may start the next trial in another process.
            backend.session.release()
        return plan


class _Prober:
    """Probes the first repetition's student between its epochs, on the thread of the events."""

    def __init__(self, plan: Plan, results: queue.Queue[dict[str, Any]]) -> None:
        self._plan, self._results = plan, results
        self._prefix = plan.repetitions[0]
        self._probe: quality.Probe | None = None
        self._left = list(PROBES)

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochDone) and event.node == f"{self._prefix}{METHOD.student}":
            self._look(event.node, 100 * event.epoch // event.num_epochs)

    def _look(self, node: str, progress: int) -> None:
        due = [share for share in self._left if share <= progress < 100]
        if not due:
            return
        self._left = [share for share in self._left if share > progress]
        self._probe = self._probe or quality.Probe(self._plan, self._prefix)
        step = self._plan.steps[node]
        score = self._probe.score(self._plan.store.checkpoints("distill", str(step.key)))
        if score is not None:
            self._results.put({"progress": due[-1], "probe": score})


def outcome_of(plan: Plan, summary: dict[str, Any], judge: quality.Judge) -> dict[str, Any]:
    """Scores of a finished trial, and what it built and what others had built for it.

    Args:
        plan: of the trial.
        summary: of it; empty where no label was looked at.
        judge: for the scores without labels.
    """
    students = [plan.steps[f"{prefix}{METHOD.student}"] for prefix in plan.repetitions]
    scores = judge.scores(plan, plan.repetitions[0])
    scores["student_seconds"] = sum(_training_seconds(step) for step in students) / len(students)
    if summary:
        arm = summary["arms"][METHOD.name]
        scores["valid_accuracy"] = arm["accuracy"]["mean"]
        scores["valid_macro_f1"] = arm["macro_f1"]["mean"]
    return {"scores": scores, **costs(plan)}


def costs(plan: Plan) -> dict[str, float]:
    """How many nodes of a finished trial others had built, whenever they did, and seconds."""
    hits = [step for step in plan.steps.values() if step.status == "hit"]
    built = [step for step in plan.steps.values() if step.status != "hit"]
    return {
        "hits": len(hits),
        "built": len(built),
        "seconds": round(sum(map(_seconds, built)), 1),
        "saved_seconds": round(sum(map(_seconds, hits)), 1),
    }


def _seconds(step: Step) -> float:
    """What the artifact took whoever built it."""
    assert step.manifest is not None
    return float(step.manifest["seconds"])


def _training_seconds(step: Step) -> float:
    """What its epochs took."""
    return float(step.facts.training_seconds)
