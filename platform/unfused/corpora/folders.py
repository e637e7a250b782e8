"""Folders of audio: what is in them, and what their layout says of the clips.

The rule of this file: the class is the folder below the root; what lies deeper is what a split
keeps together. Whatever is not a clip is counted.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from unfused.corpora import location, sessions
from unfused.corpora.clip import Clip, ManifestError
from unfused.corpora.listing import Listing
from unfused.trees import files_below

AUDIO_EXTENSIONS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".webm", ".mka",
    ".mkv", ".mov", ".avi", ".flv", ".mpg", ".mpeg", ".m4b", ".m4v", ".weba", ".3g2", ".amr",
    ".3gp", ".wma", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64",
    ".bwf", ".au", ".snd", ".mp2", ".ac3", ".wv", ".ape", ".tta", ".voc", ".sph", ".nist",
)  # fmt: skip
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
UNLABELLED = ("unlabeled", "unlabelled", "unsupervised", "none", "nan", "pretrain", "extra")
"""Splits of clips that have no label."""
FOLD = re.compile(r"fold[-_ ]?(\d+)", re.IGNORECASE)
NO_CLASS = re.compile(r"(\d{4}[-_.]?\d{2}[-_.]?\d{2}.*|(session|rec|recording|day)[-_ ]?\d+)", re.I)
"""What recorders and people call folders of one day or one session."""
JUNK = ("thumbs.db", "desktop.ini", "__macosx")
ENDINGS_NAMED = 6


@dataclass(frozen=True)
class Found:
    """The files below a folder.

    Attributes:
        audio: path relative to it, and size and time, sorted.
        others: paths that are no audio by their names.
        notes: what is to be said of them.
    """

    audio: Sequence[tuple[str, location.Listed]]
    others: Sequence[str]
    notes: Sequence[str]


def look(place: str) -> Found:
    """The files below an absolute folder, hidden ones left out."""
    files, notes = _local(place) if "://" not in place else (location.files_under(place), [])
    seen = [(name, listed) for name, listed in files if not _is_hidden(name)]
    audio = [one for one in seen if one[0].lower().endswith(AUDIO_EXTENSIONS)]
    others = [name for name, _ in seen if not name.lower().endswith(AUDIO_EXTENSIONS)]
    return Found(audio, others, notes)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in JUNK for part in name.split("/"))


def _local(place: str) -> tuple[list[tuple[str, location.Listed]], list[str]]:
    """Every file, through links to folders as well, each folder once."""
    try:
        found, again = files_below(location.on_disk(place), _is_named_like_a_clip)
    except OSError as error:
        raise _unlisted(error) from None
    notes = []
    if again:
        times = "1 link to a folder leads" if again == 1 else f"{again} links to folders lead"
        notes.append(f"{times} to where others lie already; every file is listed once.")
    strange = sorted(new for name in found if (new := location.spelled(name)) != name)
    names = sorted({*map(location.spelled, found)})
    if strange:
        count = "1 name is" if len(strange) == 1 else f"{len(strange)} names are"
        notes.append(f"{count} not UTF-8, and written percent-encoded, the first {strange[0]}.")
    if lost := len(found) - len(names):
        notes.append(f"{lost} of them fall on another file's name, and are left out; rename them.")
    return list(zip(names, location.listed([f"{place}/{n}" for n in names]), strict=True)), notes


def _is_named_like_a_clip(folder: os.DirEntry) -> bool:
    """Whether a folder looks like a clip and has nothing in it; it is told of like one."""
    try:
        return folder.name.lower().endswith(AUDIO_EXTENSIONS) and not os.listdir(folder.path)
    except OSError as error:
        raise _unlisted(error) from None


def _unlisted(error: OSError) -> ManifestError:
    return ManifestError(
        f"Cannot list {error.filename!r} ({error.strerror}); check its permissions."
    )


def listing(place: str, found: Found, *, labelled: bool = True) -> Listing:
    """The clips of a folder, with the class, split, fold and group that their folders say.

    Args:
        place: the folder, absolute.
        found: what is in it.
        labelled: whether its classes matter.

    Raises:
        ManifestError: there is no audio in it, or nothing that can be its classes.
    """
    if not found.audio:
        left = f" (there are {endings(found.others)})" if found.others else ""
        raise ManifestError(
            f"There is no audio in {place!r}{left}; give a folder with"
            f" {', '.join(AUDIO_EXTENSIONS[:6])}, ... files or a manifest."
        )
    notes = list(found.notes)
    if found.others:
        count = "1 file is" if len(found.others) == 1 else f"{len(found.others)} files are"
        notes.append(f"{count} no audio by name and left out: {endings(found.others)}.")
    top, of_labels = _common_top([name for name, _ in found.audio]), []
    if top:
        of_labels.append(f"All clips lie in {top!r}; the classes are the folders in it.")
    clips = [_clip(place, name, status, top) for name, status in found.audio]
    if labelled:
        _refuse_no_classes(place, clips)
    clips = _with_folds(_with_splits(clips), of_labels)
    of_labels += _doubts(clips)
    clips, torn = sessions.where_they_can(clips)
    return Listing(clips, tuple(notes), (*of_labels, *torn))


def endings(names: Sequence[str]) -> str:
    """How many files have which ending."""
    counts = Counter(posixpath.splitext(name)[1].lower() or "no ending" for name in names)
    shown = [f"{count} {ending}" for ending, count in counts.most_common(ENDINGS_NAMED)]
    more = len(counts) - len(shown)
    return ", ".join([*shown, *([f"{more} other endings"] if more else [])])


def _common_top(names: Sequence[str]) -> str:
    """The folders, one in the other, that hold nothing but a folder."""
    parts = [name.split("/")[:-1] for name in names]
    shared = []
    for level in range(min(map(len, parts))):
        first = {one[level] for one in parts}
        if len(first) > 1 or not all(len(one) > level + 1 for one in parts):
            break
        if next(iter(first)).lower() in SPLIT_NAMES:
            break
        shared.append(next(iter(first)))
    return "/".join(shared)


def _clip(place: str, name: str, status: location.Listed, top: str) -> Clip:
    """With the folders above it for a label, from the outermost to the innermost."""
    folders = posixpath.dirname(name.removeprefix(f"{top}/") if top else name)
    size, modified = status
    return Clip(
        location.join(place, name), folders or None, size=size, modified=modified, name=name
    )


def _refuse_no_classes(place: str, clips: Sequence[Clip]) -> None:
    """Refuse folders that are splits beside others, and folds that have no folders in them.

    Raises:
        ManifestError: they are.
    """
    names = sorted({_outermost(clip) for clip in clips} - {""})
    if others := [name for name in names if not _is_split(name)]:
        inside = {_outermost(clip).lower() for clip in clips if _inner(clip)}
        splits = {SPLIT_NAMES[name] for name in inside if name in SPLIT_NAMES}
        if "train" in splits and len(splits) > 1:
            raise ManifestError(
                f"{place!r} has folders of splits ({', '.join(n for n in names if _is_split(n))})"
                f" and {others[0]!r} beside them; move that elsewhere, or name it train, valid,"
                " test or unlabeled."
            )
    if names and not any(map(_inner, clips)) and all(map(FOLD.fullmatch, names)):
        raise ManifestError(
            f"The folders of {place!r} are folds ({', '.join(names[:2])}, ...) without folders of"
            " classes in them; give a manifest with a label for each file, or name the data set"
            " that it is (unfused datasets)."
        )


def _is_split(name: str) -> bool:
    return name.lower() in (*SPLIT_NAMES, *UNLABELLED)


def _with_splits(clips: list[Clip]) -> list[Clip]:
    """Those whose outermost folders are all splits, or of clips without a label; what lies beside
    the folders has none either."""
    names = {_outermost(clip).lower() for clip in clips}
    if names <= {*SPLIT_NAMES} or (
        names <= {"", *SPLIT_NAMES, *UNLABELLED}
        and any(_inner(clip) for clip in clips if _outermost(clip).lower() in SPLIT_NAMES)
    ):
        return [_with_split(clip) for clip in clips]
    return clips


def _with_split(clip: Clip) -> Clip:
    split = SPLIT_NAMES.get(_outermost(clip).lower())
    return replace(clip, split=split, label=_inner(clip) if split else None)


def _with_folds(clips: list[Clip], notes: list[str]) -> list[Clip]:
    """Those whose outermost folders are all folds with folders in them; then class and group."""
    folds = [FOLD.fullmatch(_outermost(clip)) for clip in clips]
    if all(folds) and all(_inner(clip) for clip in clips):
        notes.append("The outermost folders are taken for folds (--folds).")
        clips = [
            replace(clip, fold=str(int(fold[1])), label=_inner(clip))
            for clip, fold in zip(clips, folds, strict=True)
            if fold
        ]
    return [replace(clip, label=_outermost(clip) or None, group=_inner(clip)) for clip in clips]


def _outermost(clip: Clip) -> str:
    return (clip.label or "").partition("/")[0]


def _inner(clip: Clip) -> str | None:
    return (clip.label or "").partition("/")[2] or None


def _doubts(clips: Sequence[Clip]) -> Iterator[str]:
    """What may be other than it looks."""
    counts: Counter[str] = Counter(clip.label for clip in clips if clip.label)
    if (bare := len(clips) - counts.total()) and counts:
        lie = "1 clip lies" if bare == 1 else f"{bare} clips lie"
        yield f"{lie} beside the folders of the classes and {_has(bare)} no label."
    if groups := {clip.group for clip in clips if clip.group}:
        yield (
            f"Folders below the classes are groups that a split keeps together ({len(groups)} of"
            " them)."
        )
    if len(counts) < 2:
        return
    single = sum(count == 1 for count in counts.values())
    strange = [label for label in counts if NO_CLASS.fullmatch(label)]
    if 2 * len(strange) > len(counts):
        yield (
            f"The folders look like days or sessions, not classes (as {strange[0]!r}); if so, name"
            " the labels in a manifest."
        )
    elif inside := _alike_inside(clips):
        yield (
            f"Every folder has the same folders in it ({', '.join(inside)}): if those are the"
            " classes, name the labels in a manifest."
        )
    elif len(counts) > 2 and 2 * single > len(counts):
        yield f"{single} of {len(counts)} folders hold a single clip; are they classes?"


def _alike_inside(clips: Sequence[Clip]) -> list[str]:
    """The folders that are in every folder of a class, where there are several and no others; but
    for those with a number in their names, as days and sessions have."""
    inside: dict[str, set[str]] = {}
    for clip in clips:
        if clip.label:
            inside.setdefault(clip.label, set()).add((clip.group or "").partition("/")[0])
    first, *others = inside.values()
    words = all(re.fullmatch(r"\D+", name) for name in first)
    return sorted(first) if words and len(first) > 1 and all(o == first for o in others) else []


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def by_name(names: Sequence[str]) -> Mapping[str, list[str]]:
    """The files that have a name, whatever folder they are in."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(posixpath.basename(name), []).append(name)
    return found
