"""What runs have left untold, told to MLflow afterwards.

The rule of this file: a journal is told from its beginning, with the times at which things
happened, and several in the order of these, as a search and its trials need it; one whose run died
is closed as killed, and what MLflow has taken is removed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from unfused.events import RunFinished
from unfused.store import Folder
from unfused.tracking import entries, journal
from unfused.tracking.entries import Entry
from unfused.tracking.identity import Subject, Teller
from unfused.tracking.index import Index
from unfused.tracking.journal import Journal
from unfused.tracking.patience import GivenUp, Patience
from unfused.tracking.place import TrackingError, bare


def head(uri: str, experiment: str, store: Folder, subject: Subject) -> dict[str, Any]:
    """What a journal says of its run: where it is told, and what it is."""
    told = {"uri": bare(uri), "experiment": experiment, "store": bare(store.uri)}
    return {**told, "subject": asdict(subject)}


@dataclass(frozen=True)
class Sent:
    """A run that was told afterwards."""

    name: str
    at: float
    """When it began (seconds since 1970)."""
    ended: bool = True
    """Whether it came to its end; it was killed otherwise."""
    trouble: str = ""
    """Why some of it was refused, if it was."""
    stays: bool = False
    """Whether all of it was, and is kept for another time."""


def replay(
    store: Folder,
    patience: Patience,
    where: Callable[[str], str | None],
    told: Callable[[Sent], None] = lambda sent: None,
) -> None:
    """Tell MLflow what the runs of a store have left untold.

    Args:
        store: the artifacts'.
        patience: how long MLflow is waited for.
        where: the tracking URI for what was meant for one; None leaves it for another time, and one
            that raises a `TrackingError` is told of and stays.
        told: takes note of each run.

    Raises:
        GivenUp: MLflow does not take it now; the rest stays.
    """
    found = journal.left(journal.folder_of(store))
    try:
        tellings = list[_Telling]()
        for one in found:
            try:
                if uri := where(one.head["uri"]):
                    tellings.append(_Telling(one, store, uri, patience))
            except TrackingError as error:
                told(Sent(_name(one), one.head["at"], trouble=str(error), stays=True))
        by_time = heapq.merge(*(one.entries() for one in tellings), key=itemgetter(0))
        for _, one, entry in by_time:
            if entry is not None:
                one.tell(entry)
            else:
                told(one.end())
    finally:
        for left in found:
            left.release()


class _Telling:
    """A journal that is told. One that cannot be told keeps up no other, and stays."""

    def __init__(self, one: Journal, store: Folder, uri: str, patience: Patience) -> None:
        self._journal, self._index = one, None
        self._store, self._uri, self._patience = store, uri, patience
        self._ended, self._stays, self._trouble = False, False, ""
        self._last = one.head["at"]

    def entries(self) -> Iterator[tuple[float, _Telling, Entry | None]]:
        """Those of the journal with their times, up to what is none; None is the end."""
        for entry in itertools.takewhile(entries.is_whole, self._journal.entries()):
            self._last, self._ended = entry["at"], self._ended or entries.ends_run(entry)
            yield entry["at"], self, entry
        if not self._ended:
            yield self._last, self, {**entries.of_event(RunFinished("KILLED")), "at": self._last}
        yield self._last, self, None

    def tell(self, entry: Entry) -> None:
        if self._stays:
            return
        try:
            self._index = self._index or self._open()
            self._trouble = entries.tell(self._index, entry) or self._trouble
        except GivenUp:
            raise
        except Exception as error:
            self._stays, self._trouble = True, str(error)

    def _open(self) -> Index:
        head, patience = self._journal.head, self._patience
        teller = Teller(self._journal.id, again=True, live=False)
        subject = Subject(**head["subject"])
        where = (self._uri, head["experiment"], self._store.uri, subject, patience, teller)
        return patience.try_on(partial(Index.open, *where))

    def end(self) -> Sent:
        """What came of it."""
        if not self._stays:
            self._journal.remove()
        name, began = _name(self._journal), self._journal.head["at"]
        return Sent(name, began, self._ended, self._trouble, self._stays)


def _name(one: Journal) -> str:
    return one.head["subject"].get("name") or "a run"
