"""`NAME:DIR`: which of the known sets is meant, and its clips as they lie below DIR.

The rule of this file: files that are not there are left out and counted, and what the whole set
has more is said.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from pyarrow import fs

from unfused.corpora import location
from unfused.corpora.clip import ManifestError
from unfused.corpora.known import sounds, speakers, speech, speech_commands
from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing

SINGLE_SPLIT = (
    "its protocol is its own {} folds (--folds): a score of a single split is not comparable with"
    " published ones"
)
SETS: Mapping[str, KnownSet] = {
    one.name: one for room in (speech_commands, speakers, speech, sounds) for one in room.SETS
}
NAMED = re.compile(r"([\w.-]{2,}):(?!//)(.*)", re.DOTALL)
"""A drive has one letter, and what has // after the colon is a URI."""


def names(source: str | Path) -> bool:
    """Whether this is NAME:DIR, or a known set's name alone, and no file or folder called so."""
    text = str(source)
    named = NAMED.fullmatch(text) or _canonical(text) in SETS
    return bool(named) and not Path(text).expanduser().exists()


def read(source: str | Path) -> Listing:
    """The clips of a known set, with the splits, folds and groups it was published with.

    Args:
        source: NAME:DIR, DIR a local folder or a URI.

    Raises:
        ManifestError: there is no set of this name, or DIR does not hold it.
    """
    name, _, place = str(source).partition(":")
    known = SETS.get(_canonical(name))
    if known is None:
        raise ManifestError(
            f"There is no known data set {name!r}, nor a file or folder {str(source)!r}; known are"
            f" {', '.join(SETS)}."
        )
    if not place:
        raise ManifestError(
            f"{name} is a known data set: say in which folder it lies, {known.name}:DIR."
        )
    where = location.absolute(place)
    if location.kind(where) != fs.FileType.Directory:
        raise ManifestError(f"There is no folder {place!r}; give the one that {name} is in.")
    return _those_there(known, where, _listed(known, where))


def _listed(known: KnownSet, where: str) -> Listing:
    try:
        return known.clips_of(Tree(where, known.title))
    except (OSError, ValueError, LookupError, RecursionError, csv.Error) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(
            f"The lists of {known.title} below {where!r} are not as they were published"
            f" ({' '.join(repr(error).split())}); unpack it again."
        ) from None


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


def _those_there(known: KnownSet, where: str, listed: Listing) -> Listing:
    clips = [clip for clip in listed.clips if clip.size >= 0]
    num_listed = len(listed.clips)
    if not num_listed:
        raise ManifestError(
            f"The lists of {known.title} below {where!r} name no clip; unpack it again."
        )
    if not clips:
        raise ManifestError(
            f"None of the {num_listed:,} files that the lists of {known.title} name is below"
            f" {where!r}; unpack its audio there."
        )
    notes = list(listed.notes)
    if missing := num_listed - len(clips):
        first = next(clip.name for clip in listed.clips if clip.size < 0)
        notes.append(
            f"{missing:,} of {num_listed:,} files of its list are not there, the first {first!r};"
            " scores without them are not those of the whole set"
        )
    if known.num_clips and num_listed < known.num_clips:
        notes.append(f"{num_listed:,} of the {known.num_clips:,} clips that it has are listed here")
    if (found := len({clip.label for clip in clips})) < known.num_classes:
        notes.append(f"{found:,} of its {known.num_classes:,} classes have clips here")
    if (found := len({clip.fold for clip in clips} - {None})) < known.num_folds:
        notes.append(f"{found} of its {known.num_folds} folds have clips here")
    if known.remark:
        notes.append(known.remark)
    single = [SINGLE_SPLIT.format(known.num_folds)] if known.num_folds else []
    of_files, of_split = ([f"{known.name}: {one}" for one in some] for some in (notes, single))
    return Listing(clips, tuple(of_files), of_split=tuple(of_split))
