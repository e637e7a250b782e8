"""Requests drawn from what `unfused config` itself says that settings may be.

The rule of this file: values follow from declarations alone, so that a new setting is tried on the
day it is added: what is allowed, what lies on a bound or just beyond it, and what has no sense.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st

from unfused.config import Config, flatten, override
from unfused.config.changes import at, paths
from unfused.config.choices import Choice, kinds

GARBAGE = (
    "", " ", "none", "nan", "inf", "-inf", "1e999", "-1", "0", "1", "0.5", "1e-320", "true", "many",
    "auto", "[]", "[", "[,]", "[1,2]", "[2,1]", "[nan,1]", "[a,b,c]", "{}", "a=b", "'", '"',
    "[red]", "--seeds", "../..", "ünï🎵", "1_000", "0x10", "9" * 400, "2147483648",
    "1" + "0" * 30, "\\n",
)  # fmt: skip
"""Of the wrong type, or of none."""


@cache
def names() -> tuple[str, ...]:
    """Every setting of every kind of objective and encoder."""
    found: dict[str, None] = {}
    for key, kind in kinds_there():
        found |= dict.fromkeys(flatten(override(Config(), {key: kind})))
    return tuple(found)


def kinds_there() -> Iterator[tuple[str, str]]:
    """Each choice with each of its kinds."""
    for key, path in paths(Config()):
        section = at(Config(), path[:-1])
        if path[-1] == "kind" and isinstance(section, Choice):
            yield from ((key, kind) for kind in kinds(section.room))


@cache
def holders() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """For each setting, the kinds of which one must be chosen for it to be there; none mostly."""
    usual = set(flatten(Config()))
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in names()}
    for key, kind in kinds_there():
        for name in set(flatten(override(Config(), {key: kind}))) - usual:
            found[name].append((key, kind))
    return {name: tuple(some) for name, some in found.items()}


def spelled(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spelled, value))}]"
    return "none" if value is None else str(value)


@cache
def allowed(name: str) -> st.SearchStrategy[str]:
    """Values that the declaration of a setting allows, its bounds often among them."""
    config = override(Config(), dict(holders()[name][:1]))
    path = dict(paths(config))[name]
    section = at(config, path[:-1])
    if path[-1] == "kind":
        return st.sampled_from(kinds(section.room))
    if name == "embed.layer":
        return st.sampled_from(config.teacher.layers)
    if name == "arms":
        from unfused.arms import ARMS

        return st.lists(st.sampled_from(tuple(ARMS)), min_size=1, unique=True).map(spelled)
    field = type(section).model_fields[path[-1]]
    return of_type(field.annotation, field.metadata).map(spelled)


def of_type(kind: Any, limits: Sequence[Any] = ()) -> st.SearchStrategy[Any]:
    """Values of a declared type within its limits."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        marks = [m for mark in inner[1:] for m in getattr(mark, "metadata", [mark])]
        return of_type(inner[0], [*marks, *limits])
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(one, limits) for one in inner])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(of_type(inner[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(of_type, inner))
    if kind is bool:
        return st.booleans()
    if kind in (int, float):
        return within(kind, limits)
    return st.none() if kind in (None, type(None)) else st.sampled_from(("last", "own", "all"))


def within(kind: type, limits: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Numbers within limits, the ends first among them."""
    found = {side: getattr(m, side) for m in limits for side in SIDES if hasattr(m, side)}
    low, high = (found.get(a, found.get(b)) for a, b in (("ge", "gt"), ("le", "lt")))
    step = found.get("multiple_of", 1)
    if kind is int:
        low, high = (0 if low is None else low), (10**6 if high is None else high)
        some = st.integers(-(-low // step), high // step).map(lambda n: n * step)
        return st.sampled_from((low, high)) | some
    ends = [end for end in (low if "ge" in found else None, high if "le" in found else None)]
    numbers = st.floats(
        low, high, exclude_min="gt" in found, exclude_max="lt" in found,
        allow_nan=False, allow_infinity=False,
    )  # fmt: skip
    return st.sampled_from([end for end in ends if end is not None] or [0.25]) | numbers


SIDES = ("ge", "gt", "le", "lt", "multiple_of")


@cache
def beyond(name: str) -> tuple[str, ...]:
    """Values on the bounds of a number, next to them on both sides, and far beyond."""
    config = override(Config(), dict(holders()[name][:1]))
    path = dict(paths(config))[name]
    field = type(at(config, path[:-1])).model_fields[path[-1]]
    ends = [end for end in _ends(field.annotation, field.metadata)]
    near = [one for end in ends for one in (end - 1, end, end + 1, -end, 2 * end)]
    close = [math.nextafter(end, to) for end in ends for to in (-math.inf, math.inf)]
    return tuple(map(spelled, [*near, *close]))


def _ends(kind: Any, limits: Sequence[Any]) -> Iterator[float]:
    for mark in limits:
        for one in getattr(mark, "metadata", [mark]):
            yield from (getattr(one, side) for side in SIDES if hasattr(one, side))
    inner = get_args(kind)
    if get_origin(kind) is Annotated:
        yield from _ends(inner[0], inner[1:])
    elif get_origin(kind) in (Union, types.UnionType, tuple):
        for one in inner:
            yield from _ends(one, ())


def values(name: str) -> st.SearchStrategy[str]:
    """Any value of a setting, good or bad."""
    odd = [st.sampled_from(GARBAGE), st.text(max_size=12).filter(lambda s: "\0" not in s)]
    if beyond(name):
        odd.append(st.sampled_from(beyond(name)))
    return allowed(name) | st.one_of(odd)


@st.composite
def requests(draw: st.DrawFn, most: int = 2) -> list[str]:
    """Up to so many settings with any values, among them the kinds that they are settings of."""
    chosen = draw(st.lists(st.sampled_from(names()), min_size=1, max_size=most, unique=True))
    found = []
    for name in chosen:
        found += [f"{key}={kind}" for key, kind in holders()[name][:1]]
        found.append(f"{name}={draw(values(name))}")
    return found
