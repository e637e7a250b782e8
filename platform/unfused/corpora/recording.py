"""Which recording of a folder a table of annotations is of.

The rule of this file: recorders give files of several folders one name; what may be of several
recordings is refused.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from unfused.corpora.clip import ManifestError
from unfused.corpora.folders import AUDIO_EXTENSIONS

TABLES_OWN = re.compile(r"(\.table\.\d+)?(\.(selections|labels))?$", re.IGNORECASE)
"""What stands between a recording's name and a table's ending."""
MOST_NAMED = 3
"""Of the recordings that one may be."""
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def recording_of(file: str, table: str, names: Mapping[str, list[str]]) -> str | None:
    """The recording that a stretch is of, relative to the root.

    Raises:
        ManifestError: it may be of several.
    """
    if not file:
        return _of_own_name(table, names)
    *folders, base = re.split(r"[\\/]", file)
    for name in (base, UPLOADED.sub("", base)):
        if found := names.get(name):
            return _meant(found, [*folders, name], table)
    return None


def _meant(found: Sequence[str], parts: Sequence[str], table: str) -> str:
    """Of files of one name the one that a path means: most of its end is that file's; of several
    it is the one beside the table, or whose folders the table's name has."""
    fit = _most(found, lambda one: _shared(one.split("/"), parts))
    folder = posixpath.dirname(table)
    if len(parts) > 1 and (written := posixpath.normpath(posixpath.join(folder, *parts))) in fit:
        return written
    if len(fit) == 1:
        return fit[0]
    told = {one for one in fit if posixpath.dirname(one) == folder}
    for words in (posixpath.basename(_stem(table)), folder, _stem(table)):
        named = _most(fit, lambda one, words=words: _folders_in(one, words))
        told.update(named if len(named) == 1 else ())
    if len(told) == 1:
        return told.pop()
    raise ManifestError(
        f"{table!r} has annotations of {'/'.join(parts)!r}, which may be {_either(fit)}; put the"
        " table beside its recording, or write the recording's folder before its name in it."
    )


def _most(found: Sequence[str], count: Callable[[str], int]) -> list[str]:
    """Those that have most of something."""
    counts = [count(one) for one in found]
    most = max(counts)
    return [one for one, number in zip(found, counts, strict=True) if number == most]


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts the ends of two paths have in common."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _folders_in(recording: str, words: str) -> int:
    """How many of a recording's folders a table's name, or its folders', has as words."""
    folder, base = posixpath.split(recording)
    told = _word(posixpath.splitext(base)[0]).sub(" ", words)
    return sum(bool(_word(one).search(told)) for one in folder.split("/") if one)


def _word(text: str) -> re.Pattern[str]:
    """Finds it where no letter and no digit is next to it."""
    return re.compile(rf"(?<![^\W_]){re.escape(text)}(?![^\W_])", re.IGNORECASE)


def _either(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        shown[1:] = [*shown[1:-1], f"{len(names) - MOST_NAMED + 1} others"]
    return " or ".join(shown)


def _stem(table: str) -> str:
    """A table's path without what its program and its format add to its name."""
    return TABLES_OWN.sub("", posixpath.splitext(table)[0])


def _of_own_name(table: str, names: Mapping[str, list[str]]) -> str | None:
    """`a.wav` for `a.txt`, `a.wav.txt`, `a.selections.txt` and `a.Table.1.selections.txt`.

    Raises:
        ManifestError: there is `a.flac` as well.
    """
    folder, stem = posixpath.split(_stem(table))
    named = (stem, *(f"{stem}{ending}" for ending in _either_case(AUDIO_EXTENSIONS)))
    there = [name for name in named if posixpath.join(folder, name) in names.get(name, ())]
    if len(there) > 1 and stem not in there:
        raise ManifestError(
            f"{table!r} may be of {_either(there)}; call it {f'{there[0]}.txt'!r} if it is of that."
        )
    return posixpath.join(folder, there[0]) if there else None


def _either_case(endings: Sequence[str]) -> Iterator[str]:
    for ending in endings:
        yield ending
        yield ending.upper()
