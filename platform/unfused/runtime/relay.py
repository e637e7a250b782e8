"""Events of worker processes reach the run's listeners, each sender's in the order it sent them.

The rule of this file: one queue, which its actor fills in order, and one thread that takes from it.
Whoever wants to know that all has arrived sends a mark through that queue.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from unfused.actors import TAKING, Mailbox, Mark
from unfused.events import Event

TAKE_SECONDS = 0.5
DRAIN_SECONDS = 120.0
"""How long `Pump.drain` waits for listeners that take their time over what came before."""


class RemoteMethod(Protocol):
    """A method of a Ray actor's handle."""

    def remote(self, *arguments: Any) -> Any:
        """Have the actor do it; what `ray.get` waits for."""

    def options(self, *, concurrency_group: str) -> RemoteMethod:
        """The same method, in that group of the actor's threads."""


class Relay(Protocol):
    """The handle of a `Mailbox`: what a process that has events to send is given."""

    put: RemoteMethod
    take: RemoteMethod


def start_mailbox(options: Mapping[str, Any]) -> Relay:
    """A new `Mailbox` with these options of a Ray actor (where it runs)."""
    import ray

    actor = ray.remote(concurrency_groups={TAKING: 1})(Mailbox)
    return actor.options(**options).remote()


class Pump:
    """The driver's side: a thread that hands on what comes over `relay`, and nobody else does."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._passed: dict[int, threading.Event] = {}
        """Of every drain that waits, by its mark's number."""
        self._thread = threading.Thread()

    def start(self, hand: Callable[[Event], None]) -> None:
        """Begin to call `hand` with every event, one after the other."""
        self._thread = threading.Thread(target=self._run, args=(hand,), daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread, and wait so long for that; what has not come yet never will."""
        self._stop.set()
        self._thread.join(seconds)

    def drain(self) -> None:
        """Wait until every event that the relay has by now was handed on.

        Returns at once where the pump has ended, and to a listener that asks while it is handed an
        event: it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            return
        number, passed = next(self._numbers), threading.Event()
        self._passed[number] = passed
        until = time.monotonic() + DRAIN_SECONDS
        if self._thread.is_alive():
            self.relay.put.remote(Mark(number))
        # A look at the thread now and then: it may end before the mark has come.
        while self._thread.is_alive() and time.monotonic() < until and not passed.wait(0.5):
            pass
        self._passed.pop(number, None)

    def _run(self, hand: Callable[[Event], None]) -> None:
        import ray

        take = self.relay.take.options(concurrency_group=TAKING)
        while not self._stop.is_set():
            try:
                arrived = ray.get(take.remote(TAKE_SECONDS))
            except Exception:
                return
            for sent in arrived:
                if isinstance(sent, Mark):
                    self._pass(sent)
                else:
                    hand(sent)

    def _pass(self, mark: Mark) -> None:
        if (passed := self._passed.get(mark.number)) is not None:
            passed.set()
