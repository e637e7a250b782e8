"""Names of files as other systems write them.

The rule of this file: a name that is there as written is taken as written; others are tried only
where it is not, and what was found by them is told.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote

from unfused.corpora import location

ADDRESS = re.compile(r"file://(?:localhost)?/?(?=[A-Za-z]:[\\/])|file://(?:localhost)?(?=/)", re.I)
DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
MOST_PARTS = 12
"""Of a path, whose ends are tried below the folder."""


def found(names: Sequence[str], folder: str) -> tuple[list[str], list[location.Listed], list[str]]:
    """Where the files of a manifest are.

    Args:
        names: as written.
        folder: that relative ones are relative to.

    Returns:
        Their absolute places, size and time of each, and what is to be said of them.
    """
    written = [location.join(folder, name.strip()) for name in names]
    names = [_of_address(name.strip()) for name in names]
    places, listed = list(written), location.listed(written)
    notes = []
    for told, other in WAYS:
        missing = [i for i, one in enumerate(listed) if one == location.MISSING]
        tries = {i: list(dict.fromkeys(other(names[i]))) for i in missing}
        count = 0
        while tries:
            at = {i: location.join(folder, some.pop(0)) for i, some in tries.items() if some}
            for i, one in zip(at, location.listed(list(at.values())), strict=True):
                if one != location.MISSING:
                    places[i], listed[i], count = at[i], one, count + 1
            tries = {i: tries[i] for i in at if listed[i] == location.MISSING and tries[i]}
        if count:
            notes.append(f"{count} of {len(names)} names are {told}.")
    if doubtful := _on_one_file(places, written):
        notes.append(f"{len(doubtful)} of them fall on a file that others are, and are missing.")
        for i in doubtful:
            places[i], listed[i] = written[i], location.MISSING
    return places, listed, notes


def _of_address(name: str) -> str:
    """The path in a file:// address, which may have a drive; any other name as it is."""
    address = ADDRESS.match(name)
    return unquote(name[address.end() :]) if address else name


def _on_one_file(places: Sequence[str], written: Sequence[str]) -> list[int]:
    """The names that were found in another way, of files that other names mean too."""
    meant: dict[str, set[str]] = {}
    for place, name in zip(places, written, strict=True):
        meant.setdefault(place, set()).add(name)
    found = zip(places, written, strict=True)
    return [i for i, (place, name) in enumerate(found) if place != name and len(meant[place]) > 1]


def _slashes(name: str) -> Iterator[str]:
    if "\\" in name and not DRIVE.match(name):
        yield name.replace("\\", "/")


def _decoded(name: str) -> Iterator[str]:
    if "%" in name and "://" not in name:
        yield unquote(name)


def _composed(name: str) -> Iterator[str]:
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, name)) != name:
            yield other


def _western(name: str) -> Iterator[str]:
    try:
        other = location.spelled(os.fsdecode(name.encode("cp1252")))
    except UnicodeEncodeError:
        return
    if other != name:
        yield other


def _ends(name: str) -> Iterator[str]:
    """The path below ever deeper folders of it, the longest first."""
    if "://" in name or not (DRIVE.match(name) or name.startswith(("/", "\\"))):
        return
    parts = [part for part in re.split(r"[\\/]", DRIVE.sub("", name)) if part]
    for first in range(max(0, len(parts) - MOST_PARTS), len(parts)):
        yield "/".join(parts[first:])


def _with_ending(name: str) -> Iterator[str]:
    if name and not re.search(r"\.\w{2,4}$", name):
        yield from (f"{name}{ending}" for ending in (".wav", ".flac", ".mp3", ".ogg"))


def _other_case(name: str) -> Iterator[str]:
    stem, ending = posixpath.splitext(name)
    yield from (stem + other for other in (ending.lower(), ending.upper()) if other != ending)


WAYS: Sequence[tuple[str, Callable[[str], Iterator[str]]]] = (
    ("written with backslashes, and found with slashes", _slashes),
    ("percent-encoded", _decoded),
    ("written in another form of Unicode", _composed),
    ("written in UTF-8, and found in Windows' Western code page", _western),
    ("of another system, and found by what they end with below the folder", _ends),
    ("without an ending, and found with one", _with_ending),
    ("found with their ending in another case", _other_case),
)
