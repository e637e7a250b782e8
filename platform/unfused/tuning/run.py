"""One search, from its first node to its last picture.

The rule of this file: it builds what all trials share, hands the trials to Ray Tune, and asks for
the best one's score on test clips once, at the end.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from unfused import data, report, runtime
from unfused.config import ConfigError
from unfused.events import Note, Stream, TrialEnded
from unfused.pipeline import Backend, Plan, Ref, Run, open_backend
from unfused.store import Folder, digest
from unfused.tuning import capacity, outcome, quality
from unfused.tuning.request import SearchRequest
from unfused.tuning.shared import shared_nodes
from unfused.tuning.study import (
    Proposer,
    Pruning,
    check_choices,
    check_location,
    completed,
    ended,
    opened,
)
from unfused.tuning.trial import Setting, Trial, costs, trial_plan, trial_request


class SearchFailed(RuntimeError):
    """No trial has a score; the message is the first one's reason."""


def validation_labels(plan: Plan) -> int:
    """Labelled validation clips of all tasks of a plan that is ingested."""
    trains = [Ref(f"{task.prefix}ingest/task", "train") for task in plan.inputs.tasks]
    parts = [quality.held_out(plan, train) for train in trains]
    return sum(data.num_clips(part) for part in parts if part)


class SearchRun:
    """One search from its first node to its last picture."""

    def __init__(self, search: SearchRequest, hardware: runtime.Hardware, stream: Stream) -> None:
        """Args:
        search: what was asked for, with `auto` settings resolved and its concurrency set.
        hardware: what trials may use.
        stream: where the search's events go.
        """
        self.search, self.hardware, self.stream = search, hardware, stream
        request = trial_request(search.request, search.space)
        self.plan = trial_plan(request, search.space)
        self.plan.keep(shared_nodes(self.plan, search.space))
        self.run = Run(self.plan, hardware, stream, check_parts=self.check_parts)

    def check(self) -> None:
        """Refuse what the cluster can never satisfy, before anything is written.

        Raises:
            ConfigError: one sentence.
        """
        check_choices(self.search.sampler, self.search.pruner)
        check_location(self.search.location)
        self.run.check_fit()
        capacity.check(self.search.request.options, self.hardware)

    def check_parts(self) -> None:
        """Refuse what the clips rule out in every trial, or in the score at the end.

        What is impossible as it was given may be possible where the space changes it.

        Raises:
            ConfigError: what a pipeline says to the settings as they were given.
        """
        if not any(step.node.stage == "ingest" for step in self.plan.steps.values()):
            return
        refusals: list[ConfigError] = []
        for changes in ({}, *self.search.space.changes()):
            request = trial_request(self.search.request, self.search.space, changes)
            try:
                return Plan(request, self.plan.inputs).check_parts()
            except ConfigError as error:
                refusals.append(error)
        raise refusals[0]

    def execute(self) -> dict[str, Any]:
        """Build what is shared, run the trials that are missing, score the best one on test clips.

        Raises:
            SearchFailed: every trial failed.
        """
        search, options = self.search, self.search.request.options
        asked = (search.space, search.sampler, search.pruner, search.seed, self.identity)
        with opened(search.location, search.name, *asked, self._warn) as study:
            storage = self.plan.store.root / "work" / self.run.id
            with open_backend(options, self.hardware, self.stream, storage, shared=True) as backend:
                self.run.execute(backend)
                self._note_shared(study)
                # A run that has nothing to train has not asked.
                self.check_parts()
                # Its workers go while those of the trials start.
                backend.pool.close(seconds=0)
                alone = f"search/{digest([search.location, search.name])}"
                with backend.cluster.lease([alone], self.run.id, backend.pool.making_room):
                    self._try(study, backend.cluster)
                best = self._best(study)
                plan = self._score(best, backend)
            test = report.summarize(plan)
            result = outcome.report(study, search.space, best)
            labels = self._labels(plan, test)
            result |= {"test": test, "labels": labels, "folder": search.folder.uri}
            result["files"] = outcome.save(search.folder, study, search.space, result)
            return result

    @property
    def identity(self) -> dict[str, str]:
        """What the trials of a study have in common, beside the space."""
        request, inputs = self.plan.request, self.plan.inputs
        listed = [
            [[clip.name, clip.label, clip.split, clip.size] for clip in clips]
            for clips in (inputs.corpus or (), *(task.clips for task in inputs.tasks))
        ]
        settings = [request.config.identity(), request.seeds]
        return {"settings": digest(settings), "clips": digest(listed)}

    def _warn(self, text: str) -> None:
        self.stream.emit(Note(text, level="warning"))

    def _labels(self, plan: Plan, test: Mapping[str, Any]) -> dict[str, int]:
        """How many labels the search has looked at."""
        seen = test["labels_per_draw"]
        valid = validation_labels(plan) if self.search.space.labels == "valid" else 0
        return {"train": seen["train"], "valid": max(valid, seen["valid"])}

    def _note_shared(self, study: optuna.Study) -> None:
        """Keep in the study what the stages of all trials have cost."""
        before = study.user_attrs.get(outcome.SHARED_SECONDS, 0.0)
        study.set_user_attr(outcome.SHARED_SECONDS, before + costs(self.plan)["seconds"])

    def _try(self, study: optuna.Study, cluster: runtime.Cluster) -> None:
        missing = self.search.num_trials - len(ended(study))
        if missing <= 0:
            self.stream.emit(Note(f"all {self.search.num_trials} trials are there already"))
            return
        if not study.trials:
            self._propose_defaults(study)

        def tell(trial: FrozenTrial) -> None:
            cluster.drain()
            said = dict(trial.user_attrs)
            self.stream.emit(TrialEnded(trial.number, trial.state.name, trial.params, said))

        # A killed search leaves what is in the store; what is this process's own goes with it.
        own, in_store = runtime.scratch(), self.plan.store.root / "work" / f"{self.run.id}-trials"
        proposer = Proposer(study, self.search.space, tell)
        setting = Setting(
            self.search.request,
            self.search.space,
            self.plan.inputs,
            self.hardware,
            cluster.relay,
            Folder.of(own / "trials") if own else in_store,
            self.run.record,
            not isinstance(study.pruner, optuna.pruners.NopPruner),
        )
        tune_trials(setting, proposer, missing, self.search.request.options.concurrency)
        cluster.drain()
        runtime.free_places(self.hardware)
        with suppress(OSError):
            setting.storage.delete()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
            self._sweep(trial.params)
        if open_trials := self.search.num_trials - len(ended(study)):
            self.stream.emit(
                Note(
                    f"the search gave up with {open_trials} of {self.search.num_trials} trials not"
                    f" run: all of the last {len(proposer.states)} failed; the same command runs"
                    " the others.",
                    level="warning",
                )
            )

    def _sweep(self, changes: Mapping[str, Any]) -> None:
        """Delete the checkpoints of a pruned trial.

        Its process does so itself, unless it is in the middle of an epoch when the search ends:
        Ray Tune waits some seconds for it.
        """
        space = self.search.space
        request = trial_request(self.search.request, space, changes)
        for step in trial_plan(request, space, self.plan.inputs).missing:
            if step.key and step.node.stage == "distill":
                self.plan.store.checkpoints("distill", step.key).delete()

    def _propose_defaults(self, study: optuna.Study) -> None:
        """Let the first trial be what the others are to beat."""
        values = self.search.space.defaults(self.search.request.config)
        if self.search.space.contains(values):
            study.enqueue_trial(values)

    def _best(self, study: optuna.Study) -> FrozenTrial:
        """The best trial; of several that no other one beats, the best by the first objective."""
        if not completed(study):
            reasons = [t.user_attrs["failed"] for t in ended(study) if "failed" in t.user_attrs]
            first = reasons[0] if reasons else "every trial was pruned"
            raise SearchFailed(
                f"No trial has a score; the first said: {first.rstrip('.')}. Try more of them with"
                " a larger --num-trials, or begin anew with another --study."
            )
        sign = 1 if self.search.space.directions[0] == "maximize" else -1
        return max(study.best_trials, key=lambda trial: sign * trial.values[0])

    def _score(self, best: FrozenTrial, backend: Backend) -> Plan:
        """The best trial's one look at the test clips; its plan with the scores."""
        request = trial_request(self.search.request, self.search.space, best.params, "test")
        plan = Plan(request, self.plan.inputs)
        Run(plan, self.hardware, self.stream, self.run.record).execute(backend)
        return plan


def tune_trials(setting: Setting, proposer: Proposer, num_trials: int, at_a_time: int) -> None:
    """Have Ray Tune run trials until `num_trials` more have ended."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune
    from ray.tune.execution import class_cache

    # Ray's record of a trial, and the log of its node, would have the keys of an object store.
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }
    for name in ("ray.tune", "ray.tune.search"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="tune-", dir=runtime.scratch()) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Trial, setting=setting), {"cpu": capacity.TRIAL_CPUS}
            ),
            tune_config=tune.TuneConfig(
                search_alg=proposer,
                num_samples=num_trials,
                max_concurrent_trials=at_a_time,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search", storage_path=scratch, verbose=0, stop=Pruning(proposer)
            ),
        )
        tuner.fit()
