"""Holds the numbers of some runs against the recorded ones.

The rule of this file: numbers may change only with the version of their stage, or of one before it
in the run; every sentence says what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

TOLERANCE = 1e-3
"""Of floats, relative; everything else is equal or it is not."""
ELSEWHERE = 0.2
"""The same on another processor: rounding that training carries on, and nothing else is
held, because a clip between two clusters may fall on either side."""
ANEW = "record anew with `python tests/golden/record.py`"

Nodes = Mapping[str, Mapping[str, Any]]
"""Stage, version and numbers of every node of a run, in its order."""


def unexplained(
    recorded: Mapping[str, Nodes], found: Mapping[str, Nodes], *, elsewhere: bool = False
) -> list[str]:
    """One sentence for every run in which numbers changed and no version says so.

    It is about the first such node: what comes after it in the run may be built on it.

    Args:
        recorded: runs by name.
        found: of now.
        elsewhere: they were computed on another processor than the recorded ones.
    """
    firsts = (
        next(_changed(nodes, found.get(run, {}), elsewhere), None)
        for run, nodes in recorded.items()
    )
    return [sentence for sentence in firsts if sentence]


def outdated(recorded: Mapping[str, Nodes], found: Mapping[str, Nodes]) -> list[str]:
    """One sentence for every node that is gone, or of another version than the recorded one."""
    return [
        sentence
        for run, nodes in recorded.items()
        for sentence in _outdated(run, nodes, found.get(run, {}))
    ]


def _changed(recorded: Nodes, found: Nodes, elsewhere: bool) -> Iterator[str]:
    for name, old in recorded.items():
        new = found.get(name)
        if new and new["version"] != old["version"]:
            return
        told = new and _difference(old["numbers"], new["numbers"], elsewhere)
        if told:
            yield (
                f"The numbers of {name} changed ({told}) and the version of stage {old['stage']} is"
                f" still {old['version']}: raise it, or undo the change; then {ANEW}."
            )


def _outdated(run: str, recorded: Nodes, found: Nodes) -> Iterator[str]:
    for name, old in recorded.items():
        if name not in found:
            yield f"The run {run!r} no longer builds {name}: bring it back, or {ANEW}."
        elif found[name]["version"] != old["version"]:
            yield (
                f"The numbers of {name} are those of version {old['version']} of stage"
                f" {old['stage']}, which is at {found[name]['version']}: {ANEW}."
            )


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], elsewhere: bool) -> str:
    """The first of the recorded numbers that is another one now, and how many more there are."""
    differ = [name for name, value in old.items() if not _same(value, new.get(name), elsewhere)]
    if not differ:
        return ""
    first, more = differ[0], len(differ) - 1
    told = f"{first}: {old[first]} -> {new.get(first, 'missing')}"
    return told + (f", and {more} more" if more else "")


def _same(old: Any, new: Any, elsewhere: bool) -> bool:
    if isinstance(old, float) and isinstance(new, float | int):
        return math.isclose(old, new, rel_tol=ELSEWHERE if elsewhere else TOLERANCE)
    return old == new or (elsewhere and new is not None)


def made_elsewhere(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """A sentence where the numbers were recorded with other libraries or on another processor."""
    differ = [f"{k} {v} (here {found.get(k)})" for k, v in recorded.items() if v != found.get(k)]
    if not differ:
        return []
    return [
        f"They were recorded with {', '.join(differ)}: where the code before your change differs"
        f" as well, {ANEW} --force there."
    ]
