"""What is damaged in the store, set aside and built again while a run goes on.

The rule of this file: nothing is taken for damaged that was not read and found so; a node that
fails again and again over what it was built from ends the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from threading import Lock

from unfused.events import Note, Stream
from unfused.pipeline.plan import Plan, Step
from unfused.store import Damaged, Folder

MOST = 3
"""How often a node is begun again because what it was built from was damaged."""


class Healing:
    """Finds what is damaged of a plan's artifacts, and has the plan build it again.

    Args:
        plan: whose artifacts these are.
        stream: where what was damaged is told.
        lock: held while the plan changes.
    """

    def __init__(self, plan: Plan, stream: Stream, lock: Lock) -> None:
        self._plan, self._stream, self._lock = plan, stream, lock
        self._healed: dict[str, float] = {}
        """When what was damaged was set aside, by `stage/key`."""
        self._again: Counter[str] = Counter()
        """How often nodes were begun again."""

    def of_failure(self, group: Sequence[Step], began: float) -> bool:
        """Look for the reason of a failure in what nodes were built from, and set aside what is
        damaged; whether there was such a thing, so that they may be begun again.

        Args:
            group: the nodes that have failed.
            began: when they were begun.

        Raises:
            Damaged: there was, and the run is strict.
            OSError: the store fails.
        """
        if any(self._again[step.node.name] >= MOST for step in group):
            return False
        reads = sorted({name for step in group for name in step.reads})
        damaged = [self._is_damaged(self._plan.steps[name], began) for name in reads]
        if any(damaged):
            self._again.update(step.node.name for step in group)
        return any(damaged)

    def of_reading(self, damage: Damaged) -> bool:
        """Set aside the artifact that was found damaged; whether it is one of the plan's.

        Raises:
            Damaged: it is, and the run is strict.
        """
        for step in self._plan.steps.values():
            place = self._plan.store.folder(step.node.stage, str(step.key))
            known = step.manifest and not step.node.given
            if known and place.holds(damage.folder):
                self._set_aside(step, damage)
                return True
        return False

    def make_room(self, step: Step) -> None:
        """Have nothing in the place of an artifact that is to be built, and tell of what was
        there."""
        found = self._plan.set_aside(step)
        if found is None:
            return
        self._stream.emit(Note(told(step.place, *found), step.node.name, "warning"))

    def _is_damaged(self, step: Step, began: float) -> bool:
        if self._healed.get(step.place, 0.0) >= began:
            return True
        if step.node.given or step.manifest is None:
            return False
        wrong = self._plan.store.check(step.node.stage, str(step.key))
        if wrong:
            self._set_aside(step, wrong[0])
        return bool(wrong)

    def _set_aside(self, step: Step, damage: Damaged) -> None:
        with self._lock:
            self._plan.note(step, damage)
            self._healed[step.place] = time.time()
            self.make_room(step)


def told(place: str, damage: Damaged, aside: Folder) -> str:
    """The sentence on an artifact, `stage/key`, that was set aside."""
    return (
        f"{place} of the store was damaged ({damage.file}: {damage.what}); it is set aside in"
        f" {aside.uri} and built again"
    )
