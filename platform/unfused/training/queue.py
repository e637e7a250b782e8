"""The batches of jobs that a session's workers take, and what came of each.

The rule of this file: a batch is a number, counted from 0; every worker is handed every batch, and
a worker that replaces a lost one begins with the first that has no outcome.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from unfused.training.learner import Job

Outcome = tuple[list[Any] | None, str]
"""The facts of a batch's jobs (None: cancelled), and why there are none."""


class JobQueue:
    """Hands out batches of jobs to all workers, and takes what came of them.

    An asynchronous actor: workers wait in it for their next batch, the driver for an outcome.
    """

    def __init__(self) -> None:
        self._batches: list[list[Job] | None] = []
        self._outcomes: dict[int, Outcome] = {}
        self._cancelled = -1
        self._changed = asyncio.Condition()

    async def put(self, jobs: list[Job] | None) -> None:
        """Add a batch; None says that there will be no more."""
        async with self._changed:
            self._batches.append(jobs)
            self._changed.notify_all()

    async def close(self) -> None:
        """Let the workers end after the batches that are there."""
        await self.put(None)

    async def next(self, number: int) -> list[Job] | None:
        """Batch `number`, once it is there; None when there will be no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._batches) > number)
        return self._batches[number]

    async def first_unfinished(self) -> int:
        """The first batch without an outcome: where a replaced worker begins."""
        return len(self._outcomes)

    async def cancel(self, number: int) -> None:
        """Have no more of batch `number` and those before it."""
        self._cancelled = number

    async def is_cancelled(self, number: int) -> bool:
        return self._cancelled >= number

    async def finish(self, number: int, outcome: Outcome) -> None:
        """Take what came of batch `number`."""
        async with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()

    async def outcome(self, number: int, seconds: float) -> Outcome | None:
        """What came of batch `number`, or None if nothing has after `seconds`."""
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: number in self._outcomes), seconds
                )
        return self._outcomes.get(number)
