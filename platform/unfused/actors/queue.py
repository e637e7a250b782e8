"""The jobs that the workers of a Ray Train run take, and what came of each, as bytes.

The rule of this file: a job is a number, counted from 0; every worker is handed every job, and a
worker that replaces a lost one begins with the first that has no outcome. Nothing that passes is
looked into: what unpickles a job imports torch, for seconds and a third of a gigabyte.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress


class JobQueue:
    """Hands out jobs to all workers, and takes what came of them.

    An asynchronous actor: workers wait in it for their next job, the driver for an outcome.
    """

    def __init__(self) -> None:
        self._jobs: list[bytes | None] = []
        self._outcomes: dict[int, bytes] = {}
        self._cancelled = -1
        self._changed = asyncio.Condition()

    async def put(self, job: bytes | None) -> None:
        """Add a job; None says that there will be no more."""
        async with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    async def close(self) -> None:
        """Let the workers end after the jobs that are there."""
        await self.put(None)

    async def next(self, number: int) -> bytes | None:
        """Job `number`, once it is there; None when there will be no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._jobs) > number)
        return self._jobs[number]

    async def first_unfinished(self) -> int:
        """The first job without an outcome: where a replaced worker begins."""
        return len(self._outcomes)

    async def cancel(self, number: int) -> None:
        """Have no more of job `number` and those before it."""
        self._cancelled = number

    async def is_cancelled(self, number: int) -> bool:
        return self._cancelled >= number

    async def finish(self, number: int, outcome: bytes) -> None:
        """Take what came of job `number`."""
        async with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()

    async def outcome(self, number: int, seconds: float) -> bytes | None:
        """What came of job `number`, or None if nothing has after `seconds`."""
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: number in self._outcomes), seconds
                )
        return self._outcomes.get(number)
