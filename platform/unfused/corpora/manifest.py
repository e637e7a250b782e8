"""Reads a manifest, a folder of audio, tables of annotations or a published data set into clips.

The rule of this file: a clip whose file is missing is listed all the same (it is quarantined
later); what contradicts itself is refused, and what was understood or left out is a note.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pyarrow import fs

from unfused.corpora import annotations, folders, known, location, names
from unfused.corpora.clip import Clip, ManifestError
from unfused.corpora.columns import Meaning, like_times, may_matter, meaning
from unfused.corpora.folders import SPLIT_NAMES, UNLABELLED
from unfused.corpora.listing import Columns, Listing
from unfused.corpora.tables import READERS, Table, extension, read_table

SEPARATORS = re.compile(r"\s*[,;|]\s*")
"""Between several labels in one cell."""
JOINTS = re.compile(r"\s*[+&/]\s*")
"""Likewise, but also inside names, and between a class and one of its kinds (`birds/owl`)."""
LIST = re.compile(r"\[\s*(['\"]).*\1\s*,?\s*\]", re.DOTALL)
"""A list of texts, as Python and JSON write it."""
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d\d?(?:[.,]\d+)?)")
"""Hours, minutes and seconds."""
NO_LABELS = ("nan", "none", "null", "n/a", "na", "-", "?", "<na>")
"""What programs write, and people, where there is no label."""


def read(
    source: str | Path, columns: Columns | None = None, *, labelled: bool = True
) -> Listing:
    """List the clips of a manifest, in its order, or of a folder, sorted.

    A manifest has a column of files (`path` and other usual names) and may have one of labels,
    `split`, `group`, `fold`, and `start` and `end` in seconds; others are ignored. Relative paths
    are relative to the manifest. A folder is `class/clip.wav` or flat, either below split folders
    or not, or recordings with tables of annotations beside them. `NAME:DIR` is a published data
    set.

    Args:
        source: Local path or a URI that Arrow reads (s3://, gs://, ...).
        columns: What the manifest calls its columns, and where its paths start.
        labelled: Whether labels are looked for; if not, recordings with annotations are whole.

    Raises:
        ManifestError: There is nothing there, or it is no usable list of clips.
    """
    return _composed(_read(source, columns or Columns(), labelled=labelled))


def _composed(listing: Listing) -> Listing:
    """The same with labels in composed letters: folders of a Mac have `é` as two, tables as one."""
    written = {clip.label for clip in listing.clips if clip.label is not None}
    plain = {label: unicodedata.normalize("NFC", label) for label in written}
    twice = sorted(one for one, count in Counter(plain.values()).items() if count > 1)
    notes = [
        f"The label {one!r} is written in composed letters and in others, which are one class."
        for one in twice
    ]
    clips = [
        replace(clip, label=plain[clip.label]) if clip.label is not None else clip
        for clip in listing.clips
    ]
    return replace(listing, clips=clips, of_labels=(*listing.of_labels, *notes))


def _read(source: str | Path, chosen: Columns, *, labelled: bool) -> Listing:
    if known.names(source):
        return known.read(source)
    place = location.absolute(str(source))
    kind = location.kind(place)
    if kind == fs.FileType.NotFound:
        raise ManifestError(f"There is no file or folder {str(source)!r}; check the path.")
    if kind == fs.FileType.Directory:
        found = folders.look(place)
        tables, found = annotations.among(place, found) if labelled else ({}, found)
        if tables:
            return annotations.in_folder(place, found, tables, chosen)
        if labelled and (chosen.path or chosen.label):
            raise ManifestError(
                f"{str(source)!r} is a folder, and its classes are the folders in it; leave"
                " --path-column and --label-column out, or give a manifest."
            )
        return folders.listing(place, found, labelled=labelled)
    return _read_file(place, chosen, labelled=labelled)


def _read_file(place: str, chosen: Columns, *, labelled: bool) -> Listing:
    ending = extension(place)
    if ending not in (*READERS, *annotations.ENDINGS):
        raise ManifestError(
            f"{place!r} is no manifest that can be read; give a .csv, a .parquet or a folder."
        )
    try:
        data = location.read_bytes(place)
    except OSError as error:
        raise ManifestError(
            f"Cannot read {place!r} ({error.strerror or error}); check its permissions."
        ) from None
    if annotations.is_annotation(place, data):
        return annotations.in_file(place, data, chosen)
    if ending not in READERS:
        raise ManifestError(
            f"{place!r} is no export of Label Studio; give a .csv, a .parquet or a folder."
        )
    return _manifest(place, data, chosen, labelled=labelled)


def _manifest(place: str, data: bytes, chosen: Columns, *, labelled: bool) -> Listing:
    table, notes = read_table(place, data, may_matter(chosen))
    columns, told = meaning(table, place, chosen, labelled=labelled)
    notes += told
    files = _files(table, columns, place)
    if not files:
        raise ManifestError(f"{place!r} lists no clips; add a row for each.")
    root = location.absolute(chosen.root) if chosen.root else location.parent(place)
    places, listed, told = names.found(files, root)
    notes += told
    of_labels = _spaces(table, columns.label)
    labels = _labels(_cells(table, columns.label, len(files)), place, of_labels)
    splits, labels = _splits(_cells(table, columns.split, len(files)), labels, place)
    starts, ends = _stretches(table, columns, len(files), place)
    rows = zip(
        places, labels, splits, _cells(table, columns.group, len(files)),
        _cells(table, columns.fold, len(files)), listed, files, starts, ends, strict=True,
    )  # fmt: skip
    clips = [
        Clip(path, label, split, group, fold, *status, name, start, end)
        for path, label, split, group, fold, status, name, start, end in rows
    ]
    if labelled and columns.stretch is None and len(set(places)) < len(places):
        _refuse_unread_times(place, data, columns.path)
    clips = _without_repeats(clips, place)
    if again := len(files) - len(clips):
        repeat = "1 row repeats another" if again == 1 else f"{again} rows repeat others"
        notes.append(f"{repeat}, and {'is' if again == 1 else 'are'} left out.")
    of_labels += _bare(clips)
    clips = annotations.grouped(clips)
    of_labels += _torn(clips)
    return Listing(clips, tuple(notes), tuple(of_labels), tuple(table))


def _refuse_unread_times(place: str, data: bytes, path: str) -> None:
    """Refuse rows of one file that something tells apart which looks like times, and is not known
    as such: to leave them out as repeats would lose what they say.

    Raises:
        ManifestError: it names the columns.
    """
    try:
        table, _ = read_table(place, data, lambda name: True)
    except ManifestError:
        # Of a column that nobody wants.
        return
    if found := like_times(table, path):
        raise ManifestError(
            f"{place!r} has files in several rows, which the columns {found[0]!r} and {found[1]!r}"
            " tell apart: where these are seconds, call them `start` and `end`; else give a file"
            " one row."
        )


def _bare(clips: Sequence[Clip]) -> Iterator[str]:
    """What is to be said of rows without a label, or with a word for none."""
    bare = [clip for clip in clips if clip.label is None]
    held_out = sum(clip.split in ("valid", "test") for clip in bare)
    joining = len(bare) - held_out
    if joining and len(bare) < len(clips):
        have = "1 row has" if joining == 1 else f"{joining} of {len(clips)} rows have"
        yield f"{have} no label, and {'joins' if joining == 1 else 'join'} the corpus."
    if held_out and len(bare) < len(clips):
        rows = "1 row" if held_out == 1 else f"{held_out} rows"
        yield f"{rows} of valid or test {'has' if held_out == 1 else 'have'} no label: left out."
    words = Counter(c.label for c in clips if c.label and c.label.casefold() in NO_LABELS)
    if words:
        told = ", ".join(f"{word!r} ({count})" for word, count in sorted(words.items()))
        yield f"Labels that may mean none are classes: {told}; leave such cells empty."


def _torn(clips: Sequence[Clip]) -> Iterator[str]:
    """What is to be said of groups that are on both sides of the manifest's own split."""
    sides: dict[str, set[bool]] = defaultdict(set)
    for clip in clips:
        if clip.group and clip.split:
            sides[clip.group].add(clip.split == "train")
    if torn := sorted(group for group, some in sides.items() if len(some) > 1):
        are = "1 group is" if len(torn) == 1 else f"{len(torn)} of {len(sides)} groups are"
        yield (
            f"{are} in train and in valid or test by the manifest's own split, as {torn[0]!r}; the"
            " score may be too good."
        )


def _files(table: Table, columns: Meaning, place: str) -> list[str]:
    """The paths as written, all there."""
    found = [(name or "").strip() for name in table[columns.path]]
    if "" in found:
        raise ManifestError(f"Row {found.index('') + 1} of {place!r} has no path; name its file.")
    return found


def _cells(table: Table, name: str | None, num_rows: int) -> list[str | None]:
    """A column with empty cells as None, also where there is no such column."""
    if name is None:
        return [None] * num_rows
    return [(cell or "").strip() or None for cell in table[name]]


def _spaces(table: Table, name: str | None) -> list[str]:
    """What is to be said of labels with spaces around them."""
    cells = [cell for cell in table[name] if cell and cell.strip()] if name else []
    count = sum(cell != cell.strip() for cell in cells)
    have = "1 label has" if count == 1 else f"{count} labels have"
    return [f"{have} spaces around, which are no part of a label."] if count else []


def _labels(cells: list[str | None], place: str, notes: list[str]) -> list[str | None]:
    """The labels; those that differ in case alone are told.

    Raises:
        ManifestError: a cell holds several.
    """
    cells = [cell and _listed(cell) for cell in cells]
    distinct = {cell for cell in cells if cell is not None}
    if several := _several(distinct):
        raise ManifestError(
            f"{place!r} has several labels in one cell, as {several!r}; give a clip one label, or"
            " a row with `start` and `end` for each: several at a time are not supported yet (if"
            " these are names, write them without that mark)."
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(distinct):
        alike[label.casefold()].append(label)
    if pairs := [some for some in alike.values() if len(some) > 1]:
        told = "; ".join(" and ".join(map(repr, some)) for some in pairs[:3])
        notes.append(f"Labels that differ in case alone are different classes: {told}.")
    return cells


def _listed(cell: str) -> str | None:
    """The one label of a list of texts, none of an empty one; of several with a bar between."""
    if cell == "[]":
        return None
    if not LIST.fullmatch(cell):
        return cell
    try:
        return "|".join(str(one).strip() for one in ast.literal_eval(cell)) or None
    except (ValueError, SyntaxError):
        return cell


def _several(labels: set[str]) -> str:
    """A label that is several: with a semicolon or a bar in it; with a comma where one of its parts
    is a label, or part of one, elsewhere; or with a joint where all of them are labels; else ""."""
    parts = {label: SEPARATORS.split(label) for label in labels if SEPARATORS.search(label)}
    uses = Counter(part for some in parts.values() for part in set(some))
    joined = {label: JOINTS.split(label) for label in labels if JOINTS.search(label)}
    for label in sorted(joined):
        if labels.issuperset(joined[label]):
            return label
    for label in sorted(parts):
        if re.search(r"[;|]", label):
            return label
        if any(part in labels or uses[part] > 1 for part in parts[label] if part):
            return label
    return ""


def _splits(
    cells: list[str | None], labels: list[str | None], place: str
) -> tuple[list[str | None], list[str | None]]:
    """The canonical names, in every labelled row or in none; and the labels of those that have one.

    Raises:
        ManifestError: a name is none of a split.
    """
    if not any(cells):
        return cells, labels
    apart = [(cell or "").lower() in UNLABELLED for cell in cells]
    labels = [None if bare else label for label, bare in zip(labels, apart, strict=True)]
    splits: list[str | None] = []
    for row, cell in enumerate(cells):
        split = SPLIT_NAMES.get((cell or "").lower())
        if split is None and not apart[row] and (cell or labels[row] is not None):
            raise ManifestError(
                f"Row {row + 1} of {place!r} has the split {cell or ''!r}; use train, valid or"
                " test, or unlabeled."
            )
        splits.append(split)
    return splits, labels


def _stretches(
    table: Table, columns: Meaning, num_rows: int, place: str
) -> tuple[list[float | None], list[float | None]]:
    """Begin and end of each row, in seconds; None where it is the recording's own."""
    if columns.stretch is None:
        return [None] * num_rows, [None] * num_rows
    both = [
        [_seconds(cell, row, place) for row, cell in enumerate(_cells(table, name, num_rows))]
        for name in columns.stretch
    ]
    both = [[cell and cell * columns.unit for cell in cells] for cells in both]
    if columns.lasts:
        both[1] = [
            None if lasts is None else (start or 0.0) + lasts
            for start, lasts in zip(*both, strict=True)
        ]
    for row, (start, end) in enumerate(zip(*both, strict=True)):
        if end is not None and end <= (start or 0.0):
            raise ManifestError(
                f"Row {row + 1} of {place!r} ends at {end:g} s and begins at {start or 0:g} s;"
                " `end` must be above `start`."
            )
    return both[0], both[1]


def _seconds(cell: str | None, row: int, place: str) -> float | None:
    if cell is None:
        return None
    if clock := CLOCK.fullmatch(cell):
        hours, minutes, seconds = ((part or "0").replace(",", ".") for part in clock.groups())
        return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf):
        raise ManifestError(
            f"Row {row + 1} of {place!r} has {cell!r} for a time; give seconds of 0 or more, or"
            " minutes:seconds."
        )
    return value


def _without_repeats(clips: Sequence[Clip], place: str) -> list[Clip]:
    """The first row of each clip; another may repeat it but not contradict it."""
    first: dict[tuple[str, float | None, float | None], Clip] = {}
    for clip in clips:
        known_as = first.setdefault((clip.path, clip.start, clip.end), clip)
        for field in ("label", "split", "group", "fold"):
            one, other = getattr(known_as, field), getattr(clip, field)
            if one != other:
                raise ManifestError(
                    f"{place!r} lists {clip.path!r} with the {field} {one!r} and with {other!r};"
                    " keep one of the rows."
                )
    return [
        replace(clip, name=f"{clip.name}#{clip.start or 0:g}-{clip.end or math.inf:g}")
        if clip.is_stretch
        else clip
        for clip in first.values()
    ]
