"""What a search may change: a small file of TOML, JSON, or Python with data only.

    space        dotted config key -> an Optuna distribution
    conditions   optional: key -> {other key: the value, or values, at which it is asked for}
    objectives   optional: one or two metrics -> "maximize" or "minimize"
    arm          optional: the arm that is judged; `unfused` if there is none

The rule of this room: a space is wrong before the search starts or not at all. Every value that it
can propose passes the one door for changes, `config.override`.
"""

from __future__ import annotations

import runpy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from unfused.arms import ARMS, METHOD, Arm
from unfused.config import Config, ConfigError, flatten, override, shown
from unfused.config.changes import kinds_of
from unfused.store import digest
from unfused.tuning import declared
from unfused.tuning.metrics import METRICS, Labels

DIRECTIONS = ("maximize", "minimize")
DEFAULT_OBJECTIVES = {"valid_accuracy": "maximize"}
FIXED = ("arms", "evaluate.split")
"""Keys that every trial sets."""
OF_ANY_ARM = tuple(name for name, metric in METRICS.items() if metric.labels != "none")
"""The metrics that any arm has."""
INSIDE = (0.0, 0.37, 1.0)
"""Where a numeric range is tried: its ends, and a point that is a whole number by chance alone."""


@dataclass(frozen=True)
class Space:
    """Keys, their distributions, when they are asked for, and what is better.

    Attributes:
        name: of the file.
        distributions: dotted key -> distribution, in the order in which they are asked for.
        conditions: key -> {other key: values at which it is asked for}.
        objectives: metric -> direction; one or two.
        judged: the name of the arm that trials are judged by.
    """

    name: str
    distributions: Mapping[str, BaseDistribution]
    conditions: Mapping[str, Mapping[str, tuple[Any, ...]]]
    objectives: Mapping[str, str]
    judged: str = METHOD.name

    @property
    def arm(self) -> Arm:
        return ARMS[self.judged]

    @property
    def labels(self) -> Labels:
        """The labels that its objectives look at."""
        seen = {METRICS[name].labels for name in self.objectives}
        return "valid" if "valid" in seen else "draw" if "draw" in seen else "none"

    @property
    def directions(self) -> list[str]:
        return list(self.objectives.values())

    def identity(self) -> str:
        """The same for the same space: 64 hexadecimal digits."""
        return digest(
            {
                "space": {
                    key: optuna.distributions.distribution_to_json(distribution)
                    for key, distribution in self.distributions.items()
                },
                "conditions": self.conditions,
                "objectives": self.objectives,
                "arm": self.judged,
            }
        )

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """Ask for the keys whose conditions hold."""
        found: dict[str, Any] = {}
        for key, distribution in self.distributions.items():
            if self._holds(key, found):
                found[key] = _suggest(trial, key, distribution)
        return found

    def defaults(self, config: Config) -> dict[str, Any]:
        """What `config` has for the keys that would be asked for."""
        flat, found = flatten(config), {}
        for key in self.distributions:
            if self._holds(key, found):
                found[key] = as_proposed(flat[key])
        return found

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Whether the space could propose these values."""
        return all(_contains(self.distributions[key], value) for key, value in values.items())

    def changes(self) -> Iterator[dict[str, Any]]:
        """One key at a time, its extreme values or all of its choices, where it is asked for."""
        for key, distribution in self.distributions.items():
            for value in _samples(distribution):
                yield {**self.context(key), key: value}

    def context(self, key: str) -> dict[str, Any]:
        """Values of other keys at which `key` is asked for."""
        found: dict[str, Any] = {}
        for other, values in self.conditions.get(key, {}).items():
            found |= {**self.context(other), other: values[0]}
        return found

    def _holds(self, key: str, values: Mapping[str, Any]) -> bool:
        wanted = self.conditions.get(key, {})
        return all(
            other in values and values[other] in allowed for other, allowed in wanted.items()
        )


def _suggest(trial: optuna.trial.Trial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(key, choices)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(key, low, high, step=step, log=log)
    raise TypeError(f"{distribution!r} is no distribution of Optuna's.")


def as_proposed(value: Any) -> Any:
    """A config value as a distribution's choice: lists are spelled as on the command line."""
    return shown(value) if isinstance(value, tuple) else value


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def load(path: str, config: Config, chosen: Collection[str] = ()) -> Space:
    """Read a space and hold it against the configuration that it is to change.

    Args:
        path: of the file.
        config: that trials change.
        chosen: the settings of it that a person chose, which the space must not rule out.

    Raises:
        ConfigError: one sentence, which names the file and the remedy.
    """
    names = _run(path)
    space = Space(
        Path(path).stem,
        _table(path, names, "space"),
        _conditions(path, names),
        names.get("objectives", DEFAULT_OBJECTIVES),
        names.get("arm", METHOD.name),
    )
    _check_objectives(path, space.objectives)
    _check_arm(path, space, config)
    for key, distribution in space.distributions.items():
        _check_key(path, key, distribution)
    _check_conditions(path, space)
    for key in space.distributions:
        _check_values(path, space, key, config)
    for key in chosen:
        _check_chosen(path, space, key, config)
    return space


def _run(path: str) -> dict[str, Any]:
    kind = Path(path).suffix
    if not Path(path).is_file():
        raise ConfigError(f"--space {path}: there is no such file; search_spaces/ has some.")
    if kind in declared.READERS:
        return declared.read(path)
    if kind != ".py":
        raise ConfigError(f"--space {path}: a search space is a .toml, .json or .py file.")
    try:
        return runpy.run_path(path)
    except (Exception, SystemExit) as error:
        reason = str(error).strip().rstrip(".").replace("\n", " ")
        raise ConfigError(f"{path} cannot be read as a search space: {reason}.") from None


def _table(path: str, names: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = names.get(name)
    if not isinstance(table, dict) or not table:
        raise ConfigError(
            f"{path} has no `{name}`; write {name} = {{'cluster.num_clusters':"
            " IntDistribution(8, 256, log=True)}."
        )
    return table


def _conditions(path: str, names: Mapping[str, Any]) -> dict[str, dict[str, tuple[Any, ...]]]:
    found = names.get("conditions", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ConfigError(
            f"{path}: `conditions` is a table of tables, as in"
            " {'cluster.whiten': {'cluster.num_components': (32, 64)}}."
        )
    return {
        key: {other: _as_tuple(values) for other, values in wanted.items()}
        for key, wanted in found.items()
    }


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)


def _check_objectives(path: str, objectives: Any) -> None:
    if not isinstance(objectives, dict) or not 1 <= len(objectives) <= 2:
        raise ConfigError(
            f"{path}: `objectives` names one or two metrics and their directions, as in"
            f" {DEFAULT_OBJECTIVES}."
        )
    for name, direction in objectives.items():
        if name not in METRICS:
            known = ", ".join(METRICS)
            raise ConfigError(f"{path}: there is no objective {name!r}; choose from {known}.")
        if direction not in DIRECTIONS:
            raise ConfigError(f"{path}: {name} is to {direction!r}; say maximize or minimize.")


def _check_arm(path: str, space: Space, config: Config) -> None:
    if space.judged not in ARMS:
        raise ConfigError(
            f"{path}: there is no arm {space.judged!r}; choose from {', '.join(ARMS)}."
        )
    for name in space.objectives:
        if name not in OF_ANY_ARM and space.arm.source != "student":
            raise ConfigError(
                f"{path}: {name} is of a student of pseudo-labels, which the arm {space.judged}"
                f" does not end in; choose from {', '.join(OF_ANY_ARM)}, or another arm."
            )
        if name == "cross_validated" and not config.finetune.num_folds and _is_tuned(space):
            raise ConfigError(
                f"{path}: {name} leaves labelled clips out in turn, which finetune.num_folds=0"
                " turns off; set it to 2 or more."
            )


def _is_tuned(space: Space) -> bool:
    """Whether the arm ends in `finetune`, whose folds can be turned off."""
    return space.arm.classifier.startswith("finetune/")


def _check_conditions(path: str, space: Space) -> None:
    order = list(space.distributions)
    for key, wanted in space.conditions.items():
        for other, values in wanted.items():
            known = key in order and other in order
            if not known or order.index(other) >= order.index(key):
                raise ConfigError(
                    f"{path}: {key!r} depends on {other!r}, so `space` must name both,"
                    f" {other!r} first."
                )
            for value in values:
                if not _contains(space.distributions[other], value):
                    raise ConfigError(
                        f"{path}: {key!r} is asked for where {other!r} is {value!r}, which is not"
                        " in its range; write a value that is."
                    )


def _check_key(path: str, key: str, distribution: Any) -> None:
    if not isinstance(distribution, BaseDistribution):
        raise ConfigError(
            f"{path}: {key} is {distribution!r}; it must be an Optuna distribution, as in"
            " FloatDistribution(0.1, 1.0)."
        )
    if distribution.single():
        raise ConfigError(
            f"{path}: the range of {key} is empty or holds one value; widen it, or set the value"
            " on the command line."
        )
    if key in FIXED:
        raise ConfigError(
            f"{path}: {key} is the same in all trials (one arm, scored on validation clips); leave"
            " it out, or name the arm with `arm`."
        )
    if key.startswith("data."):
        raise ConfigError(
            f"{path}: {key} cannot differ between trials, whose clips are listed once for all; set"
            " it on the command line."
        )


def _check_values(path: str, space: Space, key: str, config: Config) -> None:
    """Every value of a key is possible wherever the space asks for it."""
    for context in _contexts(space, key, config):
        for value in _samples(space.distributions[key]):
            try:
                override(config, {**context, key: value})
            except ConfigError as error:
                where = "".join(f" (where {k}={shown(v)})" for k, v in context.items())
                raise ConfigError(f"{path}{where}: {error}") from None


def _check_chosen(path: str, space: Space, key: str, config: Config) -> None:
    """What a person chose is what some trial may have."""
    value = as_proposed(flatten(config)[key])
    ruled_out = f"{path} rules out {key}={shown(value)}"
    if key == "arms" and config.arms != (space.judged,):
        raise ConfigError(
            f"{ruled_out}: its trials have the arm {space.judged} alone; leave the setting out, or"
            " name another arm in the space."
        )
    if key == "evaluate.split" and config.evaluate.split != "test":
        raise ConfigError(
            f"{ruled_out}: the best trial of a search is scored on test clips, and no other one;"
            " leave the setting out."
        )
    distribution = space.distributions.get(key)
    if distribution is not None and not _contains(distribution, value):
        raise ConfigError(
            f"{ruled_out}: its trials have {_told(distribution)}; set one of these, or take the"
            " key out of the space."
        )
    for chooser in _choosers(space, config) - {key}:
        kinds = _samples(space.distributions[chooser])
        if not any(key in flatten(override(config, {chooser: kind})) for kind in kinds):
            raise ConfigError(
                f"{ruled_out}: its trials have {chooser}={' or '.join(map(shown, kinds))}, and"
                " none of these has that setting; leave it out, or name a kind that has it in the"
                " space."
            )


def _told(distribution: BaseDistribution) -> str:
    """The values of a distribution in words."""
    if isinstance(distribution, CategoricalDistribution):
        return " or ".join(map(shown, distribution.choices))
    low, *_, high = _samples(distribution)
    return f"{low:g} to {high:g}"


def _choosers(space: Space, config: Config) -> set[str]:
    """The keys of a space that choose a kind of objective or encoder."""
    return space.distributions.keys() & kinds_of(config).keys()


def _contexts(space: Space, key: str, config: Config) -> Iterator[dict[str, Any]]:
    """What else may be chosen where a key is asked for: every kind of objective or encoder."""
    base = space.context(key)
    yield base
    for chooser in _choosers(space, config) - {key}:
        allowed = space.conditions.get(key, {}).get(chooser)
        for kind in allowed or _samples(space.distributions[chooser]):
            yield {**base, chooser: kind}


def _samples(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return [low, high]
    if distribution.step:
        return [low, min(high, low + distribution.step), high]
    return [low + share * (high - low) for share in INSIDE]
