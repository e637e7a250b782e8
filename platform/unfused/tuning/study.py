"""The memory of a search: an Optuna study on disk or in a database, behind Ray Tune's interface.

The rule of this room: the study alone is what a search resumes from. Every trial that it holds ends
as complete, pruned or failed, and one that a killed search left open is taken up again under its
own number.

Ray's own OptunaSearch is not used: it leaves a trial without a finite objective open for ever,
tells a pruned one as complete, and cannot take an open one up again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper
from sqlalchemy.exc import SQLAlchemyError

from unfused import locks
from unfused.config import ConfigError, database_url
from unfused.tuning.journal import mend
from unfused.tuning.space import Space

SAMPLERS = ("tpe", "nsga2", "random")
PRUNERS = ("median", "halving", "none")
STARTUP_TRIALS = 4
"""Trials that are never pruned, for the others to be held against."""
HOPELESS_TRIALS = 5
"""So many failures with nothing else stop a search."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql", "oracle")


def check_choices(sampler: str, pruner: str) -> None:
    """Refuse a sampler or a pruner that is not there.

    Raises:
        ConfigError: it names those that are.
    """
    for what, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            raise ConfigError(f"There is no {what} {name!r}; choose one of {', '.join(known)}.")


def check_location(location: str) -> None:
    """Refuse an address of a database of a kind that Optuna does not know.

    Raises:
        ConfigError: it names what it takes.
    """
    scheme = location.partition(":")[0].partition("+")[0]
    if "://" in location and scheme not in DATABASES:
        raise ConfigError(
            f"--study-storage {location}: name a file, or a database as in"
            " postgresql://user@host/optuna."
        )


@contextmanager
def opened(
    location: str,
    name: str,
    space: Space,
    sampler: str,
    pruner: str,
    seed: int,
    identity: Mapping[str, str],
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[optuna.Study]:
    """The study called `name`, made if there is none.

    Args:
        location: a file for Optuna's journal, or the URL of a database.
        name: of the study.
        space: what its trials change, and the directions.
        sampler: tpe, nsga2 or random (see `_ByTrial`).
        pruner: median, halving or none; two objectives are never pruned.
        seed: of the sampler.
        identity: of all that makes trials comparable beside the space; the study keeps it.
        tell: takes a sentence about a journal that was torn.

    Raises:
        ConfigError: the storage cannot be opened, another search holds it, or its study has trials
            that are not comparable.
    """
    check_choices(sampler, pruner)
    check_location(location)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage(location, tell) as storage:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=space.directions, load_if_exists=True
        )
        _hold_against(study, location, space, identity)
        study.sampler = _ByTrial(partial(_sampler, sampler, space), seed)
        study.pruner = _pruner(pruner, space)
        yield study


def _hold_against(
    study: optuna.Study, location: str, space: Space, identity: Mapping[str, str]
) -> None:
    """Refuse a study with trials that are not comparable; an empty one notes what ours will be."""
    wanted = {
        "objectives": ", ".join(f"{better} {name}" for name, better in space.objectives.items()),
        "distributions": space.identity(),
        **identity,
    }
    has_trials = bool(study.get_trials(deepcopy=False))
    found = study.user_attrs
    differ = [what for what, value in wanted.items() if has_trials and found.get(what) != value]
    if [direction.name.lower() for direction in study.directions] != space.directions:
        differ.insert(0, "objectives")
    if differ:
        raise ConfigError(
            f"Study {study.study_name!r} in {location} has trials of other {differ[0]}; choose"
            " another with --study."
        )
    if not has_trials:
        for what, value in wanted.items():
            study.set_user_attr(what, value)


@contextmanager
def _storage(location: str, tell: Callable[[str], None]) -> Iterator[BaseStorage]:
    if "://" in location:
        try:
            database = RDBStorage(database_url(location))
        except (ImportError, SQLAlchemyError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"--study-storage {location} cannot be opened: {reason}.") from None
        yield database
        return
    path = Path(location)
    try:
        lock = locks.take(path)
    except locks.NoLocks:
        yield JournalStorage(JournalFileBackend(str(path)))
        return
    if lock is None:
        raise ConfigError(
            f"Another search holds {location}; wait for it, or name another with --study-storage."
        )
    try:
        if told := mend(path):
            tell(told)
        yield JournalStorage(JournalFileBackend(str(path), _Held(str(path))))
    finally:
        lock.release()


class _Held(JournalFileOpenLock):
    """The journal's own lock, where the search holds it for as long as it runs.

    Optuna's is a link that a killed search leaves, for which the next one waits half a minute.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing was taken."""


class _ByTrial(BaseSampler):
    """A sampler whose random numbers depend on the seed and a trial's number alone: a search that
    was killed, and one that is told to make more trials, go on as one that was left alone.

    Args:
        make: the sampler with a seed.
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        numbers = np.random.SeedSequence([self._seed, trial.number])
        self._sampler = self._make(int(numbers.generate_state(1)[0]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, of: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, of)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _sampler(name: str, space: Space, seed: int) -> BaseSampler:
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "nsga2":
        return NSGAIISampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, group=bool(space.conditions))


def _pruner(name: str, space: Space) -> BasePruner:
    if name == "none" or len(space.objectives) > 1 or space.labels != "valid":
        return NopPruner()
    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS)
    return SuccessiveHalvingPruner(min_resource=25, reduction_factor=2)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that are complete, pruned or failed, in order."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a score, in order."""
    return [t for t in ended(study) if t.state == TrialState.COMPLETE]


class _Unkept:
    """Tune writes its parts to disk to resume from; ours resumes from the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Proposer(_Unkept, Searcher):
    """Hands out the study's trials, and tells it what came of them.

    Args:
        study: from `opened`.
        space: what is asked for.
        on_end: called with every trial that has ended.
    """

    def __init__(
        self, study: optuna.Study, space: Space, on_end: Callable[[FrozenTrial], None]
    ) -> None:
        super().__init__()
        self.study, self.space, self._on_end = study, space, on_end
        left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._left = [trial._trial_id for trial in left]
        self._running: dict[str, optuna.trial.Trial] = {}
        self.states: list[TrialState] = []
        """How the trials that were handed out have ended."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        again = self._left.pop(0) if self._left else None
        trial = self.study.ask() if again is None else optuna.trial.Trial(self.study, again)
        self._running[trial_id] = trial
        return {"number": trial.number, "changes": self.space.suggest(trial)}

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Note an intermediate value; whether the trial is to be pruned."""
        trial = self._running[trial_id]
        trial.report(value if self.study.directions[0].name == "MAXIMIZE" else -value, step)
        return trial.should_prune()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        outcome = json.loads((result or {}).get("outcome") or "{}")
        reason = outcome.get("failed") or ("its process died" if error else "")
        scores = outcome.get("scores", {})
        for name, value in outcome.items():
            trial.set_user_attr(name, value)
        if not reason and not outcome:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif reason or (reason := self._unusable(scores)):
            trial.set_user_attr("failed", reason)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, [scores[name] for name in self.space.objectives])
        found = self.study.get_trials(deepcopy=False)[trial.number]
        self.states.append(found.state)
        self._on_end(found)

    def _unusable(self, scores: dict[str, float]) -> str:
        for name in self.space.objectives:
            if not math.isfinite(scores.get(name, math.nan)):
                return f"{name} is {scores.get(name, 'missing')}"
        return ""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""


class Pruning(_Unkept, Stopper):
    """Ends a trial that the study's pruner gives up, and a search in which everything fails."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if result.get("outcome"):
            return True
        return self._proposer.report(trial_id, result["progress"], result["probe"])

    def stop_all(self) -> bool:
        states = self._proposer.states
        return len(states) >= HOPELESS_TRIALS and set(states) == {TrialState.FAIL}
