"""The events of workers on their way to the driver."""

from __future__ import annotations

import queue
from contextlib import suppress
from dataclasses import dataclass

from unfused.events import Event

TAKING = "taking"
"""Ray's concurrency group of the actor's `take`: while it waits, the actor's other thread puts."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Stands in the queue for a `drain`: whatever was sent before it stands before it."""

    number: int


class Mailbox:
    """The actor between workers and driver.

    It has threads and is not asynchronous: Ray keeps no order among the calls of an asynchronous
    actor, and the first large event would be overtaken by those that follow it.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event | Mark] = queue.SimpleQueue()

    def put(self, sent: Event | Mark) -> None:
        self._queue.put(sent)

    def take(self, seconds: float) -> list[Event | Mark]:
        """What is there, in order; waits so long for a first one."""
        taken: list[Event | Mark] = []
        with suppress(queue.Empty):
            taken.append(self._queue.get(timeout=seconds))
        taken += (self._queue.get_nowait() for _ in range(self._queue.qsize()))
        return taken
