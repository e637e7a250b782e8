"""Writes the events of one run to MLflow, behind the run's back.

The rule of this file: only the driver's process writes, on a thread of its own, so that MLflow's
import, its waits and its outages cost a run nothing but a warning.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from unfused import events
from unfused.events import Event
from unfused.secrets import hidden
from unfused.store import Folder
from unfused.tracking import registry, searches
from unfused.tracking.index import NOWHERE, Index, Subject
from unfused.tracking.place import check_server
from unfused.tracking.registry import Classifier
from unfused.tracking.tables import Said

log = logging.getLogger(__package__)

CLOSE_SECONDS = 120.0
PATIENT_SECONDS = 30.0
"""That nothing is said of: a run's last tables and its model take some of them."""
LEAST_PRIORITY = 19

Job = Callable[["Index | None"], None]


class Tracker:
    """Writes the events of one run to MLflow, behind the run's back.

    Everything is queued and written by a thread that imports MLflow first (seconds), with the times
    at which it happened. What fails is warned of once and left out.

    Args:
        uri: from `initialise`.
        experiment: MLflow experiment; made if there is none.
        store: URI of the artifact store, which the tags lead to.
        parent: run of the search that this pipeline is a trial of. Trials and their nodes are then
            both one level below it, because MLflow's UI shows no more than one level.
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
        self.uri = uri
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._warned = False
        place = hidden(Folder.of(store).uri)
        known = {role: hidden(Folder.of(path).uri) for role, path in (places or {}).items()}
        subject = Subject(name, kind, parent, trial, tuple(settings), known)
        open_index = partial(Index.open, uri, experiment, place, subject)
        self._thread = threading.Thread(
            target=self._work, args=(open_index,), name="tracking", daemon=True
        )
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take note of an event; returns at once."""
        if not isinstance(event, events.Progress | events.Note):
            self._queue(partial(Index.record, event=_kept(event), now=time.time()))

    def describe(self, timeout: float = CLOSE_SECONDS) -> dict[str, str]:
        """Where the pipeline run is, once it is there: all blank where tracking does not work."""
        answer: Future[dict[str, str]] = Future()
        self._jobs.put(lambda index: answer.set_result(index.describe() if index else NOWHERE))
        try:
            return dict(answer.result(timeout))
        except TimeoutError:
            return dict(NOWHERE)

    def register(self, classifier: Classifier, name: str) -> None:
        """Make a model a version of a registered one; returns at once.

        Args:
            classifier: what is registered already gets no new version.
            name: experiment or task; the model is called `unfused-<name>`.
        """
        self._queue(partial(registry.register, classifier=classifier, name=name))

    def show(self, said: Said) -> None:
        """Keep what the chosen classifier says of the scored clips: a picture of what it confuses,
        a table of the classes and one of the clips; returns at once."""
        self._queue(partial(registry.show, said=said))

    def refuse(self, reason: str) -> None:
        """Note that what is about to end the run is its request, which leaves no failed run."""
        self._queue(partial(Index.refuse, reason=reason))

    def tag(self, values: Mapping[str, Any]) -> None:
        """Tag the pipeline run; returns at once."""
        self._queue(partial(Index.tag, values=values))

    def end_search(self, result: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Tag the best trial's run, and keep a search's tables and pictures; returns at once.

        Args:
            result: of the search: its `best` and all ended `trials` (what a kill kept from being
                written of them is written now), and the `folder` of the files in the store.
            files: name -> content.
        """
        self._queue(partial(searches.end, result=result, files=files))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Wait until all is written, but no longer than `timeout` seconds."""
        self._jobs.put(None)
        patience = min(PATIENT_SECONDS, timeout)
        self._thread.join(patience)
        if self._thread.is_alive() and timeout > patience:
            log.warning("Waiting up to %.0f s for MLflow at %s.", timeout, hidden(self.uri))
            self._thread.join(timeout - patience)
        if self._thread.is_alive():
            self._warn(f"it did not take everything within {timeout:.0f} s")

    def _queue(self, job: Callable[[Index], None]) -> None:
        self._jobs.put(partial(self._write, job))

    def _write(self, job: Callable[[Index], None], index: Index | None) -> None:
        if index is None:
            return
        if self._warned:
            # What waits for a server that is gone would only hold up the end of the run.
            check_server(self.uri)
        job(index)

    def _work(self, open_index: Callable[[], Index]) -> None:
        index = None
        with suppress(OSError):
            # MLflow's import and a new database take CPU time that the run's own start needs.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        try:
            index = open_index()
        except Exception as error:
            self._warn(error)
        while (job := self._jobs.get()) is not None:
            try:
                job(index)
            except Exception as error:
                self._warn(error)

    def _warn(self, trouble: object) -> None:
        if not self._warned:
            self._warned = True
            where, why = hidden(self.uri), hidden(str(trouble))
            log.warning("This run is not fully recorded in MLflow at %s: %s", where, why)


def _kept(event: Event) -> Event:
    """The event as it is now: the summary's owner may write into it while it waits in the queue."""
    if isinstance(event, events.RunFinished) and event.summary is not None:
        summary = json.loads(json.dumps(event.summary, default=str))
        return events.RunFinished(event.status, summary, event.reason)
    return event
