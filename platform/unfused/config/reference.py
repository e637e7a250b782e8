"""What a person may want to know of a setting: its meaning, what it may be, and its default.

The rule of this file: all of it is read off the declarations; nothing is written down twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unfused.arms import ARMS
from unfused.config.changes import (
    Path,
    at,
    chosen_names,
    kinds_of,
    meaning,
    override,
    paths,
    unknown,
)
from unfused.config.choices import Choice, kinds
from unfused.config.presets import PRESETS
from unfused.config.sections import Config

OF_CONFIG: Mapping[str, Callable[[Config], str]] = {
    "arms": lambda config: f"a list of these: {', '.join(ARMS)}",
    "embed.layer": lambda config: _or(config.teacher.layers),
}
"""What settings may be that no declaration says: it depends on others."""


@dataclass(frozen=True)
class Reference:
    """One setting, explained."""

    name: str
    value: Any
    default: Any
    """Of the kinds of objective and encoders that are chosen."""
    presets: Mapping[str, Any]
    """Those that have another value."""
    allowed: str
    """What it may be, in words."""
    meaning: str


def reference(config: Config, keys: Sequence[str] = ()) -> list[Reference]:
    """Settings explained, in order of declaration.

    Args:
        config: whose values these are.
        keys: dotted names of settings, or of sections for all that they have; none for every one.

    Raises:
        ConfigError: there is no such setting or section.
    """
    known = dict(paths(config))
    wanted = {name for key in keys for name in _named(key, config, known)} if keys else set(known)
    defaults = override(Config(), kinds_of(config))
    return [
        _explained(config, defaults, name, path) for name, path in known.items() if name in wanted
    ]


def _named(key: str, config: Config, known: Mapping[str, Path]) -> list[str]:
    """The settings that a key stands for."""
    found = []
    for name in chosen_names(config, [key.rstrip(".")]):
        found += [one for one in known if one == name or one.startswith(f"{name}.")]
    if not found:
        raise unknown(key, config, known)
    return found


def _explained(config: Config, defaults: Config, name: str, path: Path) -> Reference:
    section = at(config, path[:-1])
    base = Config() if path[-1] == "kind" else defaults
    default = at(base, path)
    others = {
        preset: changes[name]
        for preset, changes in PRESETS.items()
        if name in changes and changes[name] != default
    }
    if name in OF_CONFIG:
        allowed = OF_CONFIG[name](config)
    elif path[-1] == "kind" and isinstance(section, Choice):
        allowed = _or(kinds(section.room))
    else:
        field = type(section).model_fields[path[-1]]
        allowed = in_words(field.annotation, field.metadata)
    return Reference(name, at(config, path), default, others, allowed, meaning(section, path[-1]))


def in_words(kind: Any, limits: Sequence[Any] = ()) -> str:
    """What a value of a declared type may be.

    Args:
        kind: the type.
        limits: what bounds it, with an attribute `ge`, `gt`, `le` or `lt`.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        marks = [m for mark in inner[1:] for m in _limits(mark)]
        return in_words(inner[0], [*marks, *limits])
    if origin in (Union, types.UnionType):
        return ", or ".join(in_words(one, limits) for one in inner)
    if origin is Literal:
        return _or([str(one) for one in inner])
    if origin is tuple:
        return _list_of(inner)
    return _plain(kind, limits)


def _limits(mark: Any) -> Sequence[Any]:
    return mark.metadata if isinstance(mark, FieldInfo) else [mark]


def _list_of(inner: tuple[Any, ...]) -> str:
    if inner[-1] is not Ellipsis:
        return f"[{', '.join(in_words(one) for one in inner)}]"
    if get_origin(inner[0]) is Literal:
        return f"a list of these: {', '.join(get_args(inner[0]))}"
    return "a list of names"


def _plain(kind: Any, limits: Sequence[Any]) -> str:
    if kind in (None, type(None)):
        return "none"
    if kind is bool:
        return "true or false"
    if kind not in (int, float):
        return "a name"
    noun = "a whole number" if kind is int else "a number"
    return " ".join([noun, *_bounds(limits)])


def _bounds(limits: Sequence[Any]) -> list[str]:
    """As `from 0 to 1`, `of 2 or more`, `above 0 and below 0.5`."""
    sides = ("ge", "gt", "le", "lt")
    found = {side: getattr(m, side) for side in sides for m in limits if hasattr(m, side)}
    if {"ge", "le"} <= set(found):
        return [f"from {_number(found['ge'])} to {_number(found['le'])}"]
    said = {"ge": "of {} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    words = [said[side].format(_number(limit)) for side, limit in found.items()]
    return [" and ".join(words)] if words else []


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _or(words: Sequence[str] | Mapping[str, Any]) -> str:
    """As `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
