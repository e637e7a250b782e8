"""Settings by their dotted names: how they are listed, described and changed.

The rule of this file: every change, from the command line, a search space or a test, goes through
`override`.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from unfused.config.choices import Choice, Inline, kinds, settings
from unfused.config.section import ConfigError, Section
from unfused.config.sections import Config

Path = tuple[str, ...]
"""The attributes that lead from a configuration to a setting."""
TOGETHER = {"encoder": ("teacher", "student")}
"""Sections' names that stand for several."""
SHOWN = 80
"""Characters of a wrong value that are said again."""


def paths(section: Section, prefix: str = "", before: Path = ()) -> Iterator[tuple[str, Path]]:
    """The dotted name of every setting, and where it is, in order of declaration."""
    for name, field, value in section.fields():
        here = (*before, name)
        if not isinstance(value, Section):
            yield f"{prefix}{name}", here
        elif any(isinstance(mark, Inline) for mark in field.metadata):
            for inner, path in paths(value, prefix, here):
                yield (f"{prefix}{name}" if path == (*here, "kind") else inner), path
        else:
            yield from paths(value, f"{prefix}{name}.", here)


def flatten(config: Section) -> dict[str, Any]:
    """Every setting under its dotted name, in order of declaration."""
    return {name: at(config, path) for name, path in paths(config)}


def describe(config: Section) -> dict[str, str]:
    """What every setting means, under its dotted name."""
    return {name: meaning(at(config, path[:-1]), path[-1]) for name, path in paths(config)}


def meaning(section: Section, name: str) -> str:
    """A field's docstring; where a section only gives another default, that of the base."""
    for kind in type(section).__mro__:
        field = getattr(kind, "model_fields", {}).get(name)
        if field is not None and field.description:
            return " ".join(field.description.split())
    return ""


def at(config: Any, path: Path) -> Any:
    """The section or value that a path leads to."""
    for name in path:
        config = getattr(config, name)
    return config


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with dotted keys changed: the one door for every change.

    Values are coerced to the declared type ("64", 64 and NumPy's 64 are one value). Another kind of
    objective or encoder keeps what was set of the last one and means something to it as well.

    Raises:
        ConfigError: an unknown key (the nearest one is named), one that the chosen kind has not, or
            a value out of type or range.
    """
    wanted = {name: _plain(value) for key, value in changes.items() for name in _names(key)}
    tree = _tree(config)
    known = dict(paths(config))
    picked = {_canonical(name, known): value for name, value in wanted.items()}
    picked = {name: kind for name, kind in picked.items() if known.get(name, " ")[-1] == "kind"}
    for name, kind in picked.items():
        _choose(name, str(kind), at(config, known[name][:-1]), _branch(tree, known[name][:-1]))
    if picked:
        config = _validated(tree, known)
        known = dict(paths(config))
    for name, value in wanted.items():
        name = _canonical(name, known)
        if name not in known:
            raise unknown(name, config, known)
        *section, leaf = known[name]
        _branch(tree, tuple(section))[leaf] = value
    return _validated(tree, known)


def difference(base: Config, config: Config) -> dict[str, Any]:
    """What `override` has to be given to make `config` of `base`."""
    chosen = kinds_of(config)
    like, before = flatten(override(base, chosen)), flatten(base)
    return {
        name: value
        for name, value in flatten(config).items()
        if value != (before if name in chosen else like)[name]
    }


def kinds_of(config: Config) -> dict[str, Any]:
    """The kinds of objective and encoders, under their dotted names."""
    return {name: at(config, path) for name, path in paths(config) if path[-1] == "kind"}


def chosen_names(config: Config, keys: Iterable[str]) -> list[str]:
    """The dotted names of `config` that keys stand for, however they are spelled."""
    known = dict(paths(config))
    return [_canonical(name, known) for key in keys for name in _names(key)]


def _names(key: str) -> list[str]:
    section, dot, rest = key.partition(".")
    return [f"{one}{dot}{rest}" for one in TOGETHER.get(section, (section,))]


def _canonical(name: str, known: Mapping[str, Path]) -> str:
    """The dotted name of a setting that was spelled attribute by attribute."""
    return next((key for key, path in known.items() if ".".join(path) == name), name)


def _tree(section: Section) -> dict[str, Any]:
    """The settings as a tree; of a choice, its kind and what was set."""
    tree = {}
    for name, _, value in section.fields():
        is_default = isinstance(section, Choice) and name not in section.model_fields_set
        if name == "kind" or not is_default:
            tree[name] = _tree(value) if isinstance(value, Section) else value
    return tree


def _branch(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path:
        tree = tree[name]
    return tree


def _choose(name: str, kind: str, choice: Choice, branch: dict[str, Any]) -> None:
    """Make a branch one of another kind."""
    try:
        fields = settings(choice.room, kind).model_fields
    except ConfigError as error:
        raise ConfigError(f"{name}={kind} is not possible: {error}.") from None
    kept = {field: value for field, value in branch.items() if field in fields}
    branch.clear()
    branch.update(kept, kind=kind)


def _validated(tree: Mapping[str, Any], known: Mapping[str, Path]) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(sentence(error, known)) from None


def parse_overrides(arguments: Iterable[str]) -> dict[str, str]:
    """`["cluster.num_clusters=64"]` -> `{"cluster.num_clusters": "64"}`; of two the last holds."""
    changes: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{argument!r} is not section.key=value, as in distill.temperature=2."
            )
        # What is set again comes after what was set in between (`encoder.` and `student.`).
        changes.pop(key, None)
        changes[key] = value
    return changes


def repeated(arguments: Iterable[str]) -> list[str]:
    """A sentence for every key that is set more than once."""
    counts = Counter(argument.partition("=")[0] for argument in arguments)
    last = parse_overrides(arguments)
    return [
        f"{key} is set {'twice' if count == 2 else f'{count} times'}; the last one holds:"
        f" {key}={last[key]}"
        for key, count in counts.items()
        if count > 1
    ]


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    return "none" if value is None else str(value)


def _plain(value: Any) -> Any:
    """A command line's or NumPy's spelling of a value as plain Python."""
    if hasattr(value, "item"):
        return value.item()
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in {"none", "null"}:
        return None
    if text.startswith("[") and text.endswith("]"):
        return [_plain(part) for part in text[1:-1].split(",") if part.strip()]
    return text.strip("'\"")


def unknown(key: str, config: Config, known: Mapping[str, Path]) -> ConfigError:
    """What to say of a setting that is not there: the nearest one, or the kinds that have it."""
    if other := _of_another_kind(key, config, known):
        return ConfigError(other)
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        leaf = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1)
        near = [leaves[name] for name in leaf]
    hint = f"did you mean {near[0]}?" if near else "`unfused config` lists them all."
    return ConfigError(f"There is no setting {key!r}; {hint}")


def _of_another_kind(key: str, config: Config, known: Mapping[str, Path]) -> str:
    """Why a setting is not there that another objective or encoder has; empty where none has."""
    section, _, leaf = key.rpartition(".")
    for chooser, path in known.items():
        if path[-1] != "kind" or section not in (chooser.rpartition(".")[0], ".".join(path[:-1])):
            continue
        choice = at(config, path[:-1])
        fields = {k: settings(choice.room, k).model_fields for k in kinds(choice.room)}
        owners = [kind for kind, names in fields.items() if leaf in names]
        if owners and leaf != "kind":
            return (
                f"{key} is a setting of {' and '.join(owners)}, and {chooser} is {choice.kind};"
                f" choose {' or '.join(f'{chooser}={one}' for one in owners)}, or leave it out."
            )
    return ""


def _place(error: Mapping[str, Any]) -> Path:
    """The attributes that lead to what is wrong, without the names of types in between."""
    parts = [part for part in error["loc"] if isinstance(part, str) and part.isidentifier()]
    return tuple(part for part in parts if part.islower())


def sentence(error: ValidationError, known: Mapping[str, Path] | None = None) -> str:
    """What is wrong with the first setting that does not fit, as one sentence."""
    first, *others = error.errors()
    parts = _place(first)
    names = {path: name for name, path in (known or {}).items()}
    where = names.get(parts, ".".join(parts))
    what = first["msg"].removeprefix("Value error, ")
    for other in others:
        if parts and (_place(other), other["input"]) == (parts, first["input"]):
            what += f", or {other['msg'][0].lower()}{other['msg'][1:]}"
    if not where:
        word = what.partition(" ")[0]
        begins_with_a_setting = "." in word or word in (known or {})
        return f"{what}." if begins_with_a_setting else f"{what[0].upper()}{what[1:]}."
    given = json.dumps(first["input"], default=str)
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    return f"{where}={given} is not possible: {what[0].lower()}{what[1:]}."
