"""The Ray Train runs of a pipeline side by side: each takes one job after the other.

The rule of this file: what a job gives depends on no other, so any run may take any of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from typing import Any

from unfused.store import Folder
from unfused.training.learner import Job
from unfused.training.session import CLOSE_SECONDS, Session, SessionCluster

Turn = tuple[float, ...]


class Pool:
    """Sessions, of which a job takes the first that is free; one that is never needed never starts.

    Args:
        cluster: that they run on.
        storage: for Ray Train's own records while they run.
        size: how many there are.
    """

    def __init__(self, cluster: SessionCluster, storage: Folder, size: int) -> None:
        self._storage = storage
        self._sessions = [Session(cluster, storage / str(number)) for number in range(size)]
        self._free = [True] * size
        self._changed = threading.Condition()
        self._queue: list[tuple[Turn, int]] = []
        """Jobs that wait for a worker: their turns, those of one turn as they came."""
        self._came = count()
        self._waiting = 0
        """How many wait for what free workers may hold."""

    @property
    def size(self) -> int:
        """Jobs that run side by side."""
        return len(self._sessions)

    def start(self) -> None:
        """Start the first workers in the background."""
        self._sessions[0].start()

    def run(
        self,
        jobs: Sequence[Job],
        working: Callable[[], AbstractContextManager[None]] = nullcontext,
        turn: Turn = (),
    ) -> list[Any]:
        """Run jobs side by side; returns the facts of each.

        Args:
            jobs: that may wait for others to end.
            working: entered as a worker takes each, and left as it ends.
            turn: a free worker takes what has the lowest.

        Raises:
            TrainingFailed: with the reason a worker gave; the other jobs go on, for nobody.
            runtime.Cancelled: `cancel` was called.
        """
        if len(jobs) == 1:
            return [self._run(jobs[0], working, turn)]
        calls = [_Call(self._run, job, working, turn) for job in jobs]
        for call in calls:
            call.start()
        return [call.result() for call in calls]

    def _run(
        self, job: Job, working: Callable[[], AbstractContextManager[None]], turn: Turn
    ) -> Any:
        number = self._take(turn)
        try:
            with working():
                return self._sessions[number].run(job)
        finally:
            self._give_back(number)

    def _take(self, turn: Turn) -> int:
        with self._changed:
            mine = (turn, next(self._came))
            self._queue.append(mine)
            self._changed.wait_for(lambda: any(self._free) and mine == min(self._queue))
            self._queue.remove(mine)
            number = self._free.index(True)
            self._free[number] = False
            self._changed.notify_all()
        return number

    def _give_back(self, number: int) -> None:
        with self._changed:
            if self._waiting:
                self._sessions[number].release()
            self._free[number] = True
            self._changed.notify_all()

    @contextmanager
    def making_room(self) -> Iterator[None]:
        """Meanwhile no free worker holds what others may want (see `Session.release`)."""
        with self._changed:
            self._waiting += 1
        try:
            self.release()
            yield
        finally:
            with self._changed:
                self._waiting -= 1

    def release(self) -> None:
        """Let free workers go that hold what others may want."""
        with self._changed:
            for session, free in zip(self._sessions, self._free, strict=True):
                if free:
                    session.release()

    def cancel(self) -> None:
        """Have the workers give up what is at hand after its epoch: `run` raises Cancelled."""
        for session in self._sessions:
            session.cancel()

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Let all workers go, with so much patience; whether they are gone."""
        until = time.monotonic() + seconds
        for session in self._sessions:
            session.close(seconds=0)
        left = (session.close(max(0.0, until - time.monotonic())) for session in self._sessions)
        gone = all([*left])
        with suppress(OSError):
            self._storage.delete()
        return gone


class _Call(threading.Thread):
    """A function on a thread of its own, and what came of it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function(*self._arguments)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """What it returned, once it has."""
        self.join()
        if self._error:
            raise self._error
        return self._result
