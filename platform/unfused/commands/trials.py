"""The trackers of a search's trials.

The rule of this file: every trial that began has a run of its own, and that run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from unfused import tracking
from unfused.events import Event, OfTrial, RunFinished, RunStarted, TrialEnded


class TrialTrackers:
    """The trackers of a search's trials.

    Args:
        new: makes the tracker of trial n.
    """

    def __init__(self, new: Callable[[int], tracking.Tracker]) -> None:
        self._new = new
        self._trackers: dict[int, tracking.Tracker] = {}
        self._running: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Record an event of a trial, or tag what came of it."""
        match event:
            case OfTrial(number, inner):
                self._record(number, inner)
            case TrialEnded() if event.number in self._trackers:
                self._trackers[event.number].tag({"state": event.state})

    def _record(self, number: int, event: Event) -> None:
        if number not in self._trackers:
            self._trackers[number] = self._new(number)
        self._trackers[number](event)
        if isinstance(event, RunStarted):
            self._running.add(number)
        if isinstance(event, RunFinished):
            self._running.discard(number)

    def close(self) -> None:
        """End the runs of trials that nothing ended, and wait until all is written."""
        for number in sorted(self._running):
            self._trackers[number](RunFinished("KILLED"))
        trackers = self._trackers.values()
        with ThreadPoolExecutor(max(1, len(trackers))) as together:
            list(together.map(lambda tracker: tracker.close(), trackers))
