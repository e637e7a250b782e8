"""Writes the events of one run to MLflow, behind the run's back.

The rule of this file: only the driver's process writes, on a thread of its own, so that MLflow's
import, its waits and its outages cost a run nothing but a warning; what is told is in the journal
first, and stays there until MLflow has it.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from unfused import events
from unfused.events import Event
from unfused.secrets import hidden
from unfused.store import Folder
from unfused.tracking import entries, journal
from unfused.tracking.entries import Entry, Lost
from unfused.tracking.identity import PROMISED, Subject, Teller
from unfused.tracking.index import NOWHERE, Index
from unfused.tracking.journal import Journal, Reader
from unfused.tracking.patience import GivenUp, Patience, told
from unfused.tracking.place import bare
from unfused.tracking.registry import Classifier
from unfused.tracking.replay import Sent, head, replay
from unfused.tracking.tables import Said

log = logging.getLogger(__package__)

CLOSE_SECONDS = 120.0
PATIENT_SECONDS = 30.0
"""That nothing is said of: a run's last tables and its model take some of them. Likewise an MLflow
that is away may come back."""
LAST_SECONDS = 10.0
"""That one is waited for at the end which has been away for longer."""
LITTLE_PRIORITY = 10
LOOK_SECONDS = 0.1


class Tracker:
    """Writes the events of one run to MLflow, behind the run's back.

    Everything is written to a journal beside the store, and told to MLflow by a thread that imports
    it first (seconds), with the times at which it happened. While MLflow is away the thread waits
    for it; what it has not taken by the end stays in the journal, which the next run on the store,
    or `unfused sync`, tells it. What it refuses is warned of once and left out.

    Args:
        uri: from `initialise`.
        experiment: MLflow experiment; made if there is none.
        store: URI of the artifact store, which the tags lead to.
        parent: run of the search that this pipeline is a trial of, or the `promise` of one. Trials
            and their nodes are then both one level below it, because MLflow's UI shows no more than
            one level.
        name: what the run is of, which it is called; MLflow makes a name up otherwise.
        kind: "pipeline", "trial" or "search". A search of one name has one run, which is gone on
            with.
        trial: its number, where this is one. It is there from the run's first moment, so that no
            kill leaves a run of which nobody knows whose it is.
        settings: dotted names of the settings that tell the run from others; its name has them.
        places: folder or manifest of the `task` and the `corpus`, which its data sets are called
            after.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        store: str,
        *,
        parent: str = "",
        name: str | None = None,
        kind: str = "pipeline",
        trial: int | None = None,
        settings: Sequence[str] = (),
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.uri, self.experiment, self.store = uri, experiment, Folder.of(store)
        known = {role: hidden(Folder.of(path).uri) for role, path in (places or {}).items()}
        self.subject = Subject(name, kind, parent, trial, tuple(settings), known)
        about = head(uri, experiment, self.store, self.subject)
        self._journal = Journal.begin(journal.folder_of(self.store), about)
        self._state = threading.Condition()
        self._patience = Patience(heard=self._notify)
        self._told, self._done = 0, 0
        self._closed = self._complete = self._ended = self._warned = False
        self._where = dict(NOWHERE)
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def promise(self) -> str:
        """What a trial may have for its `parent` before the run is there."""
        return f"{PROMISED}{self._journal.id}"

    def __call__(self, event: Event) -> None:
        """Take note of an event; returns at once."""
        if not isinstance(event, events.Progress | events.Note):
            self._tell(entries.of_event(event))

    def describe(self, timeout: float = CLOSE_SECONDS) -> dict[str, str]:
        """Where the pipeline run is, once it is there: all blank where MLflow does not work now."""
        with self._state:
            self._state.wait_for(self._settled, timeout)
            return dict(self._where)

    def register(self, classifier: Classifier, name: str) -> None:
        """Make a model a version of a registered one; returns at once.

        Args:
            classifier: what is registered already gets no new version.
            name: experiment or task; the model is called `unfused-<name>`.
        """
        self._tell(entries.to_register(classifier, name, self.store))

    def show(self, said: Said) -> None:
        """Keep what the chosen classifier says of the scored clips: a picture of what it confuses,
        a table of the classes and one of the clips; returns at once."""
        self._tell(entries.to_show(said))

    def refuse(self, reason: str) -> None:
        """Note that what is about to end the run is its request, which leaves no failed run."""
        self._tell(entries.to_refuse(reason))

    def tag(self, values: Mapping[str, Any]) -> None:
        """Tag the pipeline run; returns at once."""
        self._tell(entries.to_tag(values))

    def end_search(self, result: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Tag the best trial's run, and keep a search's tables and pictures; returns at once.

        Args:
            result: of the search: its `best` and all ended `trials` (what a kill kept from being
                written of them is written now), and the `folder` of the files in the store.
            files: name -> content.
        """
        self._tell(entries.to_end_search(result, files))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Wait until all is written, but no longer than `timeout` seconds, and less where MLflow
        has been away for long."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._patience.hurry()
        began, patience = time.monotonic(), min(PATIENT_SECONDS, timeout)
        self._wait_until(began + patience)
        if self._is_worth_waiting(began) and timeout > patience:
            log.warning("Waiting up to %.0f s for MLflow at %s.", timeout, bare(self.uri))
            self._wait_until(began + timeout)
        self._patience.give_up()
        self._thread.join(LOOK_SECONDS)
        self._end(timeout)

    def _wait_until(self, end: float) -> None:
        began = time.monotonic()
        while self._is_worth_waiting(began) and time.monotonic() < end:
            self._thread.join(LOOK_SECONDS)

    def _is_worth_waiting(self, began: float) -> bool:
        """Whether the thread works, and MLflow is not away for long."""
        since, now = self._patience.since or math.inf, time.monotonic()
        away = now > max(since + PATIENT_SECONDS, began + LAST_SECONDS)
        return self._thread.is_alive() and not away

    def _end(self, timeout: float) -> None:
        """Say what is left, if anything is, and let others have it."""
        if not self._complete:
            slow = f"it did not take everything within {timeout:.0f} s"
            self._say_what_is_left(self._patience.reason or slow)
        if not self._thread.is_alive():
            self._journal.release()

    def _tell(self, entry: Entry) -> None:
        with self._state:
            self._journal.append(entry)
            self._told += 1
            self._ended |= entries.ends_run(entry)
            self._state.notify_all()

    def _notify(self) -> None:
        with self._state:
            self._state.notify_all()

    def _settled(self) -> bool:
        """Whether `describe` can say no more by waiting."""
        working = self._thread.is_alive() and not self._patience.since
        return bool(self._where["run_id"]) or self._done == self._told or not working

    def _work(self) -> None:
        with suppress(OSError):
            # MLflow's import and a new database take CPU time that the run's own start needs.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LITTLE_PRIORITY)
        try:
            self._send()
            self._complete = True
            if self._ended:
                self._journal.remove()
        except GivenUp as error:
            self._patience.reason = str(error)
        except Exception as error:
            self._patience.reason = told(error)
        with self._state:
            self._state.notify_all()
            if self._closed:
                self._journal.release()

    def _send(self) -> None:
        """Tell all; from the beginning where MLflow has lost what it was told."""
        again = False
        while True:
            index = self._open(again)
            try:
                for entry in self._entries():
                    self._take(index, entry)
                return
            except Lost:
                if again:
                    raise
                again, self._done = True, 0

    def _open(self, again: bool) -> Index:
        teller = Teller(self._journal.id, again)
        place = self.store.uri
        what = (self.uri, self.experiment, place, self.subject, self._patience, teller)
        index = self._patience.try_on(partial(Index.open, *what))
        if self.subject.kind != "trial" and not again:
            mine = bare(self.uri)
            uri = lambda meant: self.uri if meant == mine else None  # noqa: E731
            replay(self.store, self._patience, uri, self._say_what_was_sent)
        return index

    def _take(self, index: Index, entry: Entry) -> None:
        if trouble := entries.tell(index, entry):
            self._warn(trouble)
        with self._state:
            self._done, self._where = self._done + 1, index.describe()
            self._state.notify_all()

    def _entries(self) -> Iterator[Entry]:
        """All that is told, until nothing more will be."""
        reader = Reader(self._journal)
        reader.next()
        for number in itertools.count(1):
            with self._state:
                self._state.wait_for(lambda: self._told >= number or self._closed)  # noqa: B023
                if self._told < number:
                    return
            if entry := reader.next():
                yield entry

    def _warn(self, trouble: str) -> None:
        if not self._warned:
            self._warned = True
            where, why = bare(self.uri), hidden(trouble)
            log.warning("This run is not fully recorded in MLflow at %s: %s", where, why)

    def _say_what_was_sent(self, sent: Sent) -> None:
        if sent.trouble:
            why = hidden(sent.trouble)
            log.warning("%s, an earlier run, is not fully recorded: %s", sent.name, why)

    def _say_what_is_left(self, reason: str) -> None:
        """Once for a search and its trials, which share the reason."""
        text = (
            f"MLflow at {bare(self.uri)} has not taken all of this run ({hidden(reason)});"
            f" {self._remedy()}"
        )
        of = self.subject.parent or self.promise
        if (of, text) not in _said:
            _said.add((of, text))
            log.warning(text)

    def _remedy(self) -> str:
        if not self._journal.safe:
            return f"{self._journal.path.parent} could not be written, so the rest is lost."
        store = shlex.quote(bare(self.store.uri))
        return f"the next run on this store, or `unfused sync --store {store}`, sends the rest."


_said: set[tuple[str, str]] = set()
"""Searches and runs that a person was told of, and what."""
