"""Label Studio's JSON export, the full and the short one, of regions in audio.

The rule of this file: a region has one label; a choice is one only where no label is given, and
what is not taken for a label is told.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from unfused.corpora.clip import ManifestError, Stretch
from unfused.corpora.folders import AUDIO_EXTENSIONS


@dataclass(eq=False)
class _Region:
    """What one person says of a stretch of a recording, or of all of it, whose end is infinite."""

    file: str
    start: float
    end: float
    labels: list[str]
    choices: list[str]

    @property
    def is_whole(self) -> bool:
        return math.isinf(self.end)


def is_export(data: bytes) -> bool:
    """Whether a file holds tasks of Label Studio."""
    try:
        tasks = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(tasks, list)
        and bool(tasks)
        and all(isinstance(one, dict) for one in tasks)
        and any("annotations" in one or "audio" in one for one in tasks)
    )


def has_answers(data: bytes) -> bool:
    """Whether the tasks of an export have regions or choices at all."""
    return any(map(_has_answers, json.loads(data)))


def _has_answers(task: Mapping[str, Any]) -> bool:
    some = [one for value in task.values() if isinstance(value, list) for one in value]
    parts = [one for one in some if isinstance(one, dict)]
    full = any(isinstance(one.get("result"), list) and one["result"] for one in parts)
    return full or any("start" in one and one.keys() & {"labels", "choices"} for one in parts)


def stretches(table: str, data: bytes, notes: list[str]) -> Iterator[Stretch]:
    """The regions of an export, and the choices for whole recordings.

    Args:
        table: the file's name.
        data: its bytes.
        notes: to which is added what is no label.

    Raises:
        ManifestError: a region has several labels, or a task is none of Label Studio.
    """
    tasks = enumerate(json.loads(data), 1)
    regions = [one for i, task in tasks for one in _regions(task, f"Task {i} of {table!r}")]
    labelled = any(one.labels for one in regions)
    marked = labelled or any(one.choices and not one.is_whole for one in regions)
    no_labels = [one for one in regions if one.choices and (marked if one.is_whole else labelled)]
    notes += _told(table, no_labels)
    aside = set(no_labels)
    for one in regions:
        names = one.labels or ([] if one in aside else one.choices)
        if names or not one.is_whole:
            yield Stretch(one.file, one.start, one.end, _single(names, one.file))


def _told(table: str, no_labels: Sequence[_Region]) -> Iterator[str]:
    """What is to be said of choices that are no labels."""
    if of_regions := [one for one in no_labels if not one.is_whole]:
        yield (
            f"{_choices(of_regions)} for regions of {table!r} are attributes beside the labels, and"
            " no labels."
        )
    if of_whole := [one for one in no_labels if one.is_whole]:
        yield (
            f"{_choices(of_whole)} for whole recordings of {table!r} stand beside labelled regions,"
            " and are no labels."
        )


def _choices(regions: Sequence[_Region]) -> str:
    """How many there are, and one of them."""
    return f"{len(regions)} choices (as {regions[0].choices[0]!r})"


def _single(names: list[str], file: str) -> str | None:
    if len(distinct := list(dict.fromkeys(names))) > 1:
        raise ManifestError(
            f"A region of {file!r} has several labels ({', '.join(distinct)}); give each a"
            " region of its own: several at a time are not supported yet."
        )
    return distinct[0] if distinct else None


def _regions(task: Mapping[str, Any], where: str) -> Iterator[_Region]:
    """What is said of one region by one person, known by its id or its times, is one."""
    for results in _answers(task, where):
        found, at = [], {}
        file = _named(task, where) if results else ""
        read = [(one.get("id"), _region(file, one, where)) for one in results]
        # Labels first: whatever else is said of their regions is added to them.
        for name, new in sorted(read, key=lambda one: not one[1].labels):
            times = new.start, new.end
            known = (name and at.get(str(name))) or (None if new.labels else at.get(times))
            if known:
                known.labels += new.labels
                known.choices += new.choices
            else:
                found.append(new)
                at[times] = at[str(name)] = new
        yield from found


def _region(file: str, result: Mapping[str, Any], where: str) -> _Region:
    (value,) = _objects([result.get("value", result)], where)
    labels, choices = (_texts(value.get(name), where) for name in ("labels", "choices"))
    if "start" not in value and "end" not in value:
        return _Region(file, 0.0, math.inf, labels, choices)
    start, end = (_seconds(value.get(name), name, where) for name in ("start", "end"))
    return _Region(file, start, end, labels, choices)


def _texts(told: Any, where: str) -> list[str]:
    """One label or a list of them, of which numbers are labels too."""
    some = told if isinstance(told, list) else [] if told is None else [told]
    if odd := [one for one in some if not isinstance(one, str | int | float)]:
        raise ManifestError(f"{where} has {_short(odd[0])} for a label; give each a name.")
    return [text for one in some if (text := str(one).strip())]


def _seconds(told: Any, name: str, where: str) -> float:
    try:
        seconds = float(told)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ManifestError(f"{where} has {_short(told)} for the {name} of a region; give seconds.")
    return seconds


def _answers(task: Mapping[str, Any], where: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The results of each annotator in the full export; those of the short one."""
    for annotation in _objects(task.get("annotations"), where):
        if not annotation.get("was_cancelled"):
            yield _objects(annotation.get("result"), where)
    lists = [value for value in task.values() if isinstance(value, list)]
    yield [one for some in lists for one in some if isinstance(one, dict) and "start" in one]


def _objects(told: Any, where: str) -> Sequence[Mapping[str, Any]]:
    """A list of what has names and values, or nothing.

    Raises:
        ManifestError: it is anything else.
    """
    some = told or ()
    if isinstance(some, list | tuple) and all(isinstance(one, dict) for one in some):
        return some
    raise ManifestError(
        f"{where} has {_short(told)} where annotations have regions or choices; export it anew as"
        " JSON, or give a .csv."
    )


def _short(told: Any) -> str:
    return reprlib.repr(told)


def _named(task: Mapping[str, Any], where: str) -> str:
    """The recording's path: of an upload, a local file, or an address."""
    told = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = {name: value for name, value in told.items() if isinstance(value, str)}
    places = [value for value in texts.values() if "/" in value]
    sounds = [value for value in places if _ends_like_audio(value)]
    values = [*([texts["audio"]] if "audio" in texts else []), *sounds, *places]
    written = values[0] if values else str(task.get("file_upload") or "")
    try:
        address = urlparse(written)
        local = parse_qs(address.query).get("d")
    except ValueError as error:
        raise ManifestError(
            f"{where} has {written!r} for its recording ({error}); write a path or an address."
        ) from None
    if not (path := unquote(local[0] if local else address.path)):
        raise ManifestError(f"{where} names no recording; give its path as `audio`.")
    return path


def _ends_like_audio(address: str) -> bool:
    return re.split(r"[?#]", address)[0].lower().endswith(AUDIO_EXTENSIONS)
