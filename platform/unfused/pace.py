"""How far a node is, and how long what is left of it takes, judged by what this run has done of it.

The rule of this file: nothing is said before there is something to judge by; what a node has waited
for before it began does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from unfused.events import Progress

SHORTEST = 1.0
"""Seconds that a pace is judged by, at least."""


@dataclass
class _Began:
    at: float
    place: float
    """How far it was then, in epochs."""
    last: float
    """How far it was when it was last seen."""
    working: bool = False
    """Whether it was seen at work then; else it may have begun later."""


@dataclass(frozen=True)
class Standing:
    """How far a node is."""

    share: float
    """Of all that it has to do."""
    doing: str
    """What it does, or how much it has done."""
    left: float | None
    """Seconds; None where nobody knows yet."""


class Pace:
    """The pace of every node of a run; places are in epochs, or shares of the one."""

    def __init__(self) -> None:
        self._began: dict[str, _Began] = {}
        self._parts: dict[str, dict[int, int]] = {}
        """What each of several pieces of a node's work has done."""

    def start(self, node: str, place: float = 0.0) -> None:
        """It begins, or goes on from there."""
        self._began[node] = _Began(time.monotonic(), place, place)
        if not place:
            self._parts.pop(node, None)

    def standing(self, event: Progress) -> Standing:
        """How far the node of this event is, with all that others have done of it side by side."""
        parts = self._parts.setdefault(event.node, {})
        parts[event.part] = event.done
        done = sum(parts.values())
        place, end = event.epoch + done / event.total, event.num_epochs
        return Standing(
            share=place / end if end else 0.0,
            doing=event.doing or f"{done}/{event.total} {event.unit}",
            left=self.within(event.node, place, end) if end else None,
        )

    def within(self, node: str, place: float, end: float) -> float | None:
        """Seconds that are left, told while an epoch is under way; None where nobody knows yet."""
        began = self._began.get(node)
        if began is None or not began.working or place < began.last:
            # What came before its first steps, as reading clips, is not how fast they are; nor is
            # what came before it began again from the start.
            self._began[node] = _Began(time.monotonic(), place, place, working=True)
            return None
        began.last = place
        if time.monotonic() - began.at < SHORTEST:
            return None
        return self._left(began, place, end)

    def after(self, node: str, place: float, end: float) -> float | None:
        """Seconds that are left, told at the end of an epoch."""
        began = self._began.get(node)
        return self._left(began, place, end) if began else None

    def _left(self, began: _Began, place: float, end: float) -> float | None:
        seconds = time.monotonic() - began.at
        if place <= began.place:
            return None
        return max(0.0, seconds / (place - began.place) * (end - place))
