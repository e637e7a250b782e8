"""What a journal has in it: events and calls as plain data, and what they do to an index.

    {"at": 1764.5, "event": "EpochDone", "of": {...}}     an event of the run
    {"at": 1764.5, "call": "tag", "with": {...}}          what its command wants kept of it

The rule of this file: an entry is all that its doing needs, in another process, on another day.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from unfused import events, inference
from unfused.events import Event
from unfused.store import Folder
from unfused.tracking import registry, searches
from unfused.tracking.identity import is_lost
from unfused.tracking.index import Index
from unfused.tracking.patience import GivenUp
from unfused.tracking.registry import Classifier
from unfused.tracking.tables import Said

log = logging.getLogger(__package__)

Entry = Mapping[str, Any]


class Lost(Exception):
    """MLflow no longer has the run that is told to it."""


def of_event(event: Event) -> Entry:
    """Of a manifest only its facts are told."""
    of = {field.name: getattr(event, field.name) for field in fields(event)}
    if "manifest" in of:
        of["manifest"] = {"facts": of["manifest"]["facts"]}
    return {"at": time.time(), "event": type(event).__name__, "of": of}


def to_register(classifier: Classifier, name: str, store: Folder) -> Entry:
    """A model is named by its place in the store, which may be moved."""
    folder = classifier.folder.uri
    if classifier.folder.path.startswith(f"{store.path}/"):
        folder = classifier.folder.path.removeprefix(f"{store.path}/")
    return _call("register", folder=folder, clips=classifier.clips, name=name)


def to_show(said: Said) -> Entry:
    return _call("show", **said.as_json())


def to_refuse(reason: str) -> Entry:
    return _call("refuse", reason=reason)


def to_tag(values: Mapping[str, Any]) -> Entry:
    return _call("tag", values={name: str(value) for name, value in values.items()})


def to_end_search(result: Mapping[str, Any], files: Mapping[str, bytes]) -> Entry:
    text = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return _call("end_search", result=dict(result), files=text)


def _call(call: str, **what: Any) -> Entry:
    return {"at": time.time(), "call": call, "with": what}


def is_whole(entry: Any) -> bool:
    """Whether a line that a journal has is an entry, as far as it must be to have its turn."""
    return isinstance(entry, Mapping) and isinstance(entry.get("at"), float)


def ends_run(entry: Entry) -> bool:
    return entry.get("event") == events.RunFinished.__name__


def tell(index: Index, entry: Entry) -> str:
    """Do what an entry says; returns why it is left out, or nothing.

    Raises:
        GivenUp: MLflow does not take it now.
        Lost: what was told before is gone.
    """
    try:
        _do(index, entry)
    except GivenUp:
        raise
    except Exception as error:
        missing = getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
        if missing and is_lost(index.client, index.run):
            raise Lost(str(error)) from error
        return str(error) or type(error).__name__
    return ""


def _do(index: Index, entry: Entry) -> None:
    if "event" in entry:
        event = getattr(events, entry["event"])(**entry["of"])
        index.record(event, entry["at"])
    else:
        _CALLS[entry["call"]](index, entry)


def _register(index: Index, entry: Entry) -> None:
    what = entry["with"]
    inside = "://" not in what["folder"] and not what["folder"].startswith("/")
    folder = Folder.of(index.place) / what["folder"] if inside else Folder.of(what["folder"])
    classifier = Classifier(folder, inference.read_facts(folder), what["clips"])
    registry.register(index, classifier, what["name"])


def _end_search(index: Index, entry: Entry) -> None:
    what = entry["with"]
    files = {name: base64.b64decode(text) for name, text in what["files"].items()}
    searches.end(index, what["result"], files, int(entry["at"] * 1000))


_CALLS: dict[str, Callable[[Index, Entry], None]] = {
    "register": _register,
    "show": lambda index, entry: registry.show(index, Said.from_json(entry["with"])),
    "refuse": lambda index, entry: index.refuse(entry["with"]["reason"]),
    "tag": lambda index, entry: index.tag(entry["with"]["values"]),
    "end_search": _end_search,
}
