"""A run that kills itself at one place: `python benchmarks/faults.py FAULT NUMBER run ...`.

The rule of this file: nothing of it is in the package; what is broken here is broken from outside,
by SIGKILL, the NUMBERth time that the place is passed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

COMMITS = ("_rename", "_upload")
"""Of a store on a disk, and of an object store."""


def _targets() -> dict[str, tuple[Any, tuple[str, ...], bool]]:
    """Whose functions are struck, their names, and whether before one is called or after."""
    from unfused.pipeline import product
    from unfused.store import Store, Work
    from unfused.tracking import registry

    return {
        "commit begun": (Work, ("sums",), False),
        "commit noted": (Work, ("sums",), True),
        "commit written": (Store, COMMITS, False),
        "commit done": (Store, COMMITS, True),
        "model left": (product, ("_facts",), True),
        "registration begun": (registry, ("register",), False),
        "registration made": (registry, ("_ensure_registered",), True),
        "registration done": (registry, ("register",), True),
    }


FAULTS = (
    "commit begun",
    "commit noted",
    "commit written",
    "commit done",
    "model left",
    "registration begun",
    "registration made",
    "registration done",
)


def _struck(whole: Callable[..., Any], number: int, *, after: bool) -> Callable[..., Any]:
    passed = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed < number:
            return whole(*arguments, **named)
        if after:
            whole(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def main(fault: str, number: str, *arguments: str) -> None:
    owner, names, after = _targets()[fault]
    for name in names:
        setattr(owner, name, _struck(getattr(owner, name), int(number), after=after))
    from unfused.cli import main as unfused

    unfused([*arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
