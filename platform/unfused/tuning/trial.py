"""One trial at a time, in a process of Ray Tune's: a pipeline run, judged as it goes.

The rule of this room: a trial is the pipeline itself, with the store, the leases and the Ray Train
session that every run has. The process stays for the next trial, and so does its session where it
holds nothing that others want.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from types import MappingProxyType
from typing import Any

import ray
from ray import tune

from unfused import cores, report, runtime, training
from unfused.arms import Arm
from unfused.config import override
from unfused.events import EpochDone, Event, OfTrial, RunFinished, Stream
from unfused.pipeline import Backend, Inputs, Plan, Request, Run, Step, open_backend
from unfused.secrets import hidden
from unfused.store import Folder
from unfused.tuning import quality
from unfused.tuning.space import Space

PROBES = (25, 50, 75)
"""At these shares (percent) of a student's epochs a trial may be pruned."""
GIVE_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Setting:
    """What all trials of a search share."""

    request: Request
    """With the configuration that a trial's changes are put on."""
    space: Space
    """What may change, and by what trials are judged."""
    inputs: Inputs
    hardware: runtime.Hardware
    relay: runtime.Relay
    """Takes the events of all trials to the search."""
    storage: Folder
    """For the Ray Train records of all trials while they run."""
    record: dict[str, Any]
    """Provenance of the search."""
    probed: bool
    """Whether trials are probed on the way."""


def trial_request(
    request: Request,
    space: Space,
    changes: Mapping[str, Any] = MappingProxyType({}),
    split: str = "",
) -> Request:
    """The pipeline of one trial: the arm that the space judges.

    Args:
        request: of the search.
        space: of the search.
        changes: of the trial.
        split: that is scored; by default that of validation clips where their labels choose. A
            trial that they do not choose ends before it is scored.
    """
    split = split or ("valid" if space.labels == "valid" else "test")
    fixed = {"arms": (space.judged,), "evaluate.split": split}
    return replace(request, config=override(request.config, {**changes, **fixed}))


def trial_plan(request: Request, space: Space, inputs: Inputs | None = None) -> Plan:
    """Its plan, which ends with the classifier where the labels of the draws alone choose, and with
    the student where none does."""
    plan = Plan(request, inputs)
    last = {"draw": space.arm.classifier, "none": space.arm.student}.get(space.labels)
    if last:
        plan.keep(plan.upstream([f"{prefix}{last}" for prefix in plan.repetitions]))
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
                self._backend(self.stream).pool.cancel()
            self._thread.join(GIVE_UP_SECONDS)

    def _forward(self, event: Event) -> None:
        self._sent = self.setting.relay.put.remote(OfTrial(self.number, event))

    def _work(self) -> None:
        status, reason, outcome, summary = "FAILED", "", None, None
        try:
            plan = self._execute()
            space = self.setting.space
            whole = report.summarize(plan) if space.labels == "valid" else {}
            outcome = outcome_of(plan, space.arm, whole, self._judge)
            summary = {**whole, "scores": outcome["scores"]}
            status = "FINISHED"
        except runtime.Cancelled:
            status = "KILLED"
        except Exception as error:
            reason = hidden(training.root_cause(error))
            outcome = {"failed": reason}
        self.stream.emit(RunFinished(status, summary, reason))
        # The search hears of a trial's end only after all that the trial has told.
        ray.get(self._sent)
        if outcome is not None:
            self.results.put({"progress": 100, "outcome": json.dumps(outcome)})

    def _execute(self) -> Plan:
        """Build what is missing; the plan with all of it."""
        setting = self.setting
        request = trial_request(setting.request, setting.space, self.changes)
        plan = trial_plan(request, setting.space, setting.inputs)
        self._run = Run(plan, setting.hardware, self.stream, setting.record)
        if self._given_up.is_set():
            raise runtime.Cancelled("pruned before it began")
        if setting.probed and setting.space.arm.source == "student":
            self.stream.subscribe(_Prober(plan, setting.space.arm, self.results))
        backend = self._backend(self.stream)
        try:
            self._run.execute(backend)
        finally:
            # Ray Tune may start the next trial in another process.
            backend.pool.release()
        return plan


class _Prober:
    """Probes the first repetition's student between its epochs, on the thread of the events."""

    def __init__(self, plan: Plan, arm: Arm, results: queue.Queue[dict[str, Any]]) -> None:
        self._plan, self._arm, self._results = plan, arm, results
        self._prefix = plan.repetitions[0]
        self._probe: quality.Probe | None = None
        self._left = list(PROBES)

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochDone) and event.node == f"{self._prefix}{self._arm.student}":
            self._look(event.node, 100 * event.epoch // event.num_epochs)

    def _look(self, node: str, progress: int) -> None:
        due = [share for share in self._left if share <= progress < 100]
        if not due:
            return
        self._left = [share for share in self._left if share > progress]
        self._probe = self._probe or quality.Probe(self._plan, self._prefix, self._arm)
        step = self._plan.steps[node]
        score = self._probe.score(self._plan.store.checkpoints("distill", str(step.key)))
        if score is not None:
            self._results.put({"progress": due[-1], "probe": score})


def outcome_of(
    plan: Plan, arm: Arm, summary: dict[str, Any], judge: quality.Judge
) -> dict[str, Any]:
    """Scores of a finished trial, and what it built and what others had built for it.

    Args:
        plan: of the trial.
        arm: that it is judged by.
        summary: of it; empty where no validation label was looked at.
        judge: for the scores without labels.
    """
    scores: dict[str, float] = {}
    if arm.source == "student":
        students = [f"{prefix}{arm.student}" for prefix in plan.repetitions]
        scores |= judge.scores(plan, students[0])
        seconds = [_training_seconds(plan.steps[name]) for name in students]
        scores["student_seconds"] = fmean(seconds)
    names = [f"{prefix}{arm.classifier}" for prefix in plan.repetitions]
    estimates = [plan.steps[name].facts.cross_validated for name in names if name in plan.steps]
    if estimates and None not in estimates:
        scores["cross_validated"] = fmean(chain(*estimates))
    if summary:
        found = summary["arms"][arm.name]
        scores["valid_accuracy"] = found["accuracy"]["mean"]
        scores["valid_balanced_accuracy"] = found["balanced_accuracy"]["mean"]
        scores["valid_macro_f1"] = found["macro_f1"]["mean"]
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
