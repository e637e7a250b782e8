"""The typed events of a run, and the one stream that carries them.

The rule of this room: whatever a run wants known is an event. Progress display, tracking and
pruning subscribe; a subscriber that fails is reported once and never stops the run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unfused.secrets import hidden

log = logging.getLogger(__name__)
INTERRUPTED = "interrupted"
"""The reason of a node that a person has stopped."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run."""


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    config: dict[str, Any]
    """Every knob under its dotted name."""
    nodes: tuple[str, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Phase(Event):
    """What the run as a whole waits for before its nodes begin; empty when that is there."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class NodeHit(Event):
    """The store already has the artifact."""

    node: str
    stage: str
    key: str
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    node: str
    stage: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class NodeFinished(Event):
    """The artifact is committed."""

    node: str
    stage: str
    key: str
    seconds: float
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeFailed(Event):
    node: str
    reason: str
    given_up: bool = False
    """Whether nobody wanted it any more."""


@dataclass(frozen=True, slots=True)
class EpochDone(Event):
    """An epoch has ended and its checkpoint, where there is one, is safe."""

    node: str
    epoch: int
    num_epochs: int
    metrics: dict[str, float]
    clips_per_second: float
    wait_seconds: float = 0.0
    """How long the epoch's steps waited for their batches."""
    first_wait_seconds: float = 0.0
    """The part of it before the first step."""


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Work inside a stage or an epoch: `done` of `total` units; of none at all where a worker has
    begun and there is no more to tell yet."""

    node: str
    done: int
    total: int
    unit: str = "clips"
    doing: str = ""
    part: int = 0
    """Which of several pieces of work side by side has done so much; `total` is of all of them."""
    epoch: int = 0
    """Epochs that were finished before this one."""
    num_epochs: int = 1
    """Of all epochs; 0 in a pass before the first."""


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """Training goes on after this many finished epochs."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something a person should know (level "info" or "warning")."""

    text: str
    node: str = ""
    level: str = "info"
    setting: str = ""
    """The setting that it is about, where only those who have set it need to know."""


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    status: str
    """"FINISHED", "FAILED" or "KILLED"."""
    summary: dict[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OfTrial(Event):
    """An event of the pipeline that is trial `number` of a search."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class TrialEnded(Event):
    """What came of a trial: "COMPLETE", "PRUNED" or "FAIL"."""

    number: int
    state: str
    changes: dict[str, Any]
    outcome: dict[str, Any]
    """`scores`, `hits`, `built`, `seconds`, `saved_seconds`, or `failed`, the reason."""


Subscriber = Callable[[Event], None]


@dataclass
class Stream:
    """Hands every event to every subscriber, in order, one at a time; what a person was told is not
    said again, and no sentence holds a secret."""

    subscribers: list[Subscriber] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _broken: set[int] = field(default_factory=set)
    _noted: set[Note] = field(default_factory=set)

    def subscribe(self, subscriber: Subscriber) -> None:
        self.subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        event = _discreet(event)
        with self._lock:
            if isinstance(event, Note):
                # What a setting leads to is the same wherever it is seen.
                told = replace(event, node="") if event.setting else event
                if told in self._noted:
                    return
                self._noted.add(told)
            for subscriber in self.subscribers:
                self._hand(subscriber, event)

    def _hand(self, subscriber: Subscriber, event: Event) -> None:
        try:
            subscriber(event)
        except Exception as error:
            if id(subscriber) not in self._broken:
                self._broken.add(id(subscriber))
                told = hidden(str(error))
                name = getattr(subscriber, "__name__", type(subscriber).__name__)
                log.warning("%s failed on %s: %s", name, type(event).__name__, told)


def _discreet(event: Event) -> Event:
    """An event whose sentences hold no secret."""
    match event:
        case Note() | Phase():
            return replace(event, text=hidden(event.text))
        case NodeFailed() | RunFinished():
            return replace(event, reason=hidden(event.reason))
        case OfTrial():
            return replace(event, event=_discreet(event.event))
    return event
