"""How long what is left of a node takes, judged by what this run has done of it.

The rule of this file: nothing is said before there is something to judge by; what a node has waited
for before it began does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class _Began:
    at: float
    place: float
    """How far it was then, in epochs."""
    working: bool = False
    """Whether it was seen at work then; else it may have begun later."""


class Pace:
    """The pace of every node of a run; places are in epochs, or shares of the one."""

    def __init__(self) -> None:
        self._began: dict[str, _Began] = {}

    def start(self, node: str, place: float = 0.0) -> None:
        """It begins, or goes on from there."""
        self._began[node] = _Began(time.monotonic(), place)

    def within(self, node: str, place: float, end: float) -> float | None:
        """Seconds that are left, told while an epoch is under way; None where nobody knows yet."""
        began = self._began.get(node)
        if began is None or not began.working:
            # What came before its first steps, as reading clips, is not how fast they are.
            self._began[node] = _Began(time.monotonic(), place, working=True)
            return None
        return self._left(began, place, end)

    def after(self, node: str, place: float, end: float) -> float | None:
        """Seconds that are left, told at the end of an epoch."""
        began = self._began.get(node)
        return self._left(began, place, end) if began else None

    def _left(self, began: _Began, place: float, end: float) -> float | None:
        if place <= began.place:
            return None
        each = (time.monotonic() - began.at) / (place - began.place)
        return max(0.0, each * (end - place))
