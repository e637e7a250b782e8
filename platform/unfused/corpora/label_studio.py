"""Label Studio's JSON export, the full and the short one, of regions in audio.

The rule of this file: a region has one label; what is none of audio is passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from unfused.corpora.clip import ManifestError, Stretch
from unfused.corpora.folders import AUDIO_EXTENSIONS


def is_export(data: bytes) -> bool:
    """Whether a file holds tasks of Label Studio."""
    try:
        tasks = json.loads(data)
    except ValueError:
        return False
    return (
        isinstance(tasks, list)
        and bool(tasks)
        and all(isinstance(one, dict) for one in tasks)
        and any("annotations" in one or "audio" in one for one in tasks)
    )


def stretches(data: bytes) -> Iterator[Stretch]:
    """The regions of an export, and the choices for whole recordings."""
    for task in json.loads(data):
        file = _named(task)
        for region in _regions(task):
            value = region.get("value", region)
            labels = value.get("labels") or value.get("choices") or []
            if not labels and ("start" not in value or "end" not in value):
                continue
            if len(labels) > 1:
                raise ManifestError(
                    f"A region of {file!r} has several labels ({', '.join(labels)}); give each a"
                    " region of its own: several at a time are not supported yet."
                )
            label = labels[0] if labels else None
            if "start" in value and "end" in value:
                yield Stretch(file, float(value["start"]), float(value["end"]), label)
            else:
                yield Stretch(file, 0.0, math.inf, label)


def _regions(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of the full export, of all its annotators, and of the short one."""
    for annotation in task.get("annotations") or ():
        if not annotation.get("was_cancelled"):
            yield from annotation.get("result") or ()
    for value in task.values():
        if isinstance(value, list):
            yield from (one for one in value if isinstance(one, dict) and "start" in one)


def _named(task: Mapping[str, Any]) -> str:
    """The recording's path: of an upload, a local file, or an address."""
    told = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = {name: value for name, value in told.items() if isinstance(value, str)}
    places = [value for value in texts.values() if "/" in value]
    sounds = [value for value in places if urlparse(value).path.lower().endswith(AUDIO_EXTENSIONS)]
    values = [*([texts["audio"]] if "audio" in texts else []), *sounds, *places]
    address = urlparse(values[0] if values else str(task.get("file_upload", "")))
    local = parse_qs(address.query).get("d")
    return unquote(local[0] if local else address.path)
