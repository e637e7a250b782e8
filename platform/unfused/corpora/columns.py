"""Which column of a manifest is what.

The rule of this file: a column is taken for what it is usually called; where that is not plain, a
sentence lists the columns and names the option that says it.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from unfused.corpora.clip import ManifestError
from unfused.corpora.folders import SPLIT_NAMES, UNLABELLED
from unfused.corpora.listing import Columns
from unfused.corpora.tables import Table

PATHS = (
    "path", "files", "file", "wav", "wav_path", "file_path", "filepath", "file_name", "filename",
    "slice_file_name", "audio_path", "audio_file", "audio_filename", "audio_filepath", "audio",
    "clip_path", "clip", "recording", "fname", "begin_path", "begin_file", "uri", "url",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "class_name", "category", "species", "target_name", "label_name",
    "classname", "annotation", "keyword", "word", "emotion", "event_label", "scene_label",
    "primary_label", "tag", "tags", "target", "class_id", "classid", "label_id",
)  # fmt: skip
SPLITS = ("set", "subset", "partition")
"""Taken for the split where there is no column of that name and all their values are splits."""
GROUPS = ("speaker", "speaker_id", "client_id", "session", "session_id")
"""Taken for the group where there is no column of that name, and told."""
STRETCHES = (
    ("start", "end"), ("begin", "end"), ("onset", "offset"), ("start_time", "end_time"),
    ("begin_time", "end_time"), ("begin_time_(s)", "end_time_(s)"), ("start_s", "end_s"),
    ("start_seconds", "end_seconds"), ("start_ms", "end_ms"), ("start_(s)", "end_(s)"),
    ("start_time_(s)", "end_time_(s)"), ("start_(ms)", "end_(ms)"), ("begin_ms", "end_ms"),
    ("starttime", "endtime"), ("begintime", "endtime"), ("start_sec", "end_sec"),
    ("start_sec", "stop_sec"), ("start_second", "end_second"), ("start", "stop"),
    ("start_time", "stop_time"), ("start", "finish"), ("time_start", "time_end"),
    ("t_start", "t_end"), ("tstart", "tend"), ("tmin", "tmax"), ("t_min", "t_max"),
    ("min_t", "max_t"), ("onset_s", "offset_s"), ("onset_time", "offset_time"),
    ("segment_start", "segment_end"), ("beginn", "ende"), ("von", "bis"), ("from", "to"),
)  # fmt: skip
MILLISECONDS = re.compile(r"_\(?ms\)?$")
DURATIONS = ("duration", "duration_s", "duration_seconds", "length_s")
SLICES = "slice_file_name"
"""UrbanSound8K's: its start and end are of the recording that a file was cut from."""


@dataclass(frozen=True)
class Meaning:
    """The columns of a table by what they are, as the table writes their names."""

    path: str
    label: str | None
    split: str | None
    group: str | None
    fold: str | None
    stretch: tuple[str, str] | None
    lasts: bool = False
    """Whether the second of the stretch is its duration, not its end."""
    unit: float = 1.0
    """Of the stretch, in seconds."""


def may_matter(chosen: Columns):
    """Whether a column of a name can have a meaning here, as a function."""
    known = {*PATHS, *LABELS, *SPLITS, *GROUPS, *DURATIONS, "split", "group", "fold"}
    known |= {name for pair in STRETCHES for name in pair}

    def matters(name: str) -> bool:
        return plain_name(name) in known or name in (chosen.path, chosen.label)

    return matters


def meaning(
    table: Table, place: str, chosen: Columns, *, labelled: bool = True
) -> tuple[Meaning, list[str]]:
    """What the columns of a table are, and what is to be said of that.

    Raises:
        ManifestError: no column names the files, or it is not plain which has the labels.
    """
    plain: dict[str, str] = {}
    for name in table:
        plain.setdefault(plain_name(name), name)
    notes: list[str] = []
    path = chosen_column(table, chosen.path, "--path-column", place) or _path(table, plain)
    if path is None:
        raise ManifestError(
            f"{place!r} has no column `path`, only {', '.join(table) or 'nothing'}; name the"
            " column of the files with --path-column."
        )
    label = None
    if labelled:
        label = chosen_column(table, chosen.label, "--label-column", place)
        label = label or _label(table, plain, place)
    group = plain.get("group")
    if group is None:
        aliases = [plain[name] for name in GROUPS if name in plain]
        group = next((alias for alias in aliases if _groups(table, alias, label)), None)
        if group:
            notes.append(
                f"The column {group!r} is taken for the group that a split keeps together."
            )
    split = plain.get("split")
    if split is None and (alias := _first(plain, SPLITS)):
        if odd := _no_split(table[alias]):
            notes.append(f"The column {alias!r} is not taken for the split: it has {odd!r}.")
        else:
            split = alias
    stretch, lasts = _stretch(plain, notes)
    unit = 0.001 if stretch and MILLISECONDS.search(plain_name(stretch[0])) else 1.0
    return Meaning(path, label, split, group, plain.get("fold"), stretch, lasts, unit), notes


def _path(table: Table, plain: Mapping[str, str]) -> str | None:
    """The column of files, of several one that has no addresses of the web."""
    found = [plain[name] for name in PATHS if name in plain]
    here = (name for name in found if not any(map(_is_on_the_web, table[name])))
    return next(here, found[0] if found else None)


def _is_on_the_web(cell: str | None) -> bool:
    return (cell or "").strip().lower().startswith(("http://", "https://"))


def _stretch(
    plain: Mapping[str, str], notes: list[str]
) -> tuple[tuple[str, str] | None, bool]:
    """The columns of begin and end, or of begin and duration; and whether it is the latter."""
    if SLICES in plain:
        return None, False
    for start, end in STRETCHES:
        if start in plain and end in plain:
            return (plain[start], plain[end]), False
    starts, ends = zip(*STRETCHES, strict=True)
    # With `onset` beside it an offset is an end; with a duration alone it is a begin.
    start = _first(plain, (*starts, "offset"))
    if start and (lasting := _first(plain, DURATIONS)):
        return (start, lasting), True
    for name, other in ((_first(plain, starts), "end"), (_first(plain, ends), "begin")):
        if name:
            notes.append(
                f"The column {name!r} has no {other} beside it, and is ignored: a clip is the"
                " whole file."
            )
            break
    return None, False


def plain_name(name: str) -> str:
    """A column's name as it is usually written."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _first(plain: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((plain[name] for name in names if name in plain), None)


def chosen_column(
    table: Collection[str], name: str | None, option: str, place: str
) -> str | None:
    """The column that an option names, however it is written; None where it names none.

    Raises:
        ManifestError: there is no such column.
    """
    if name is None or name in table:
        return name
    alike = [one for one in table if plain_name(one) == plain_name(name)]
    if len(alike) == 1:
        return alike[0]
    raise ManifestError(
        f"{option} {name}: {place!r} has no such column, only {', '.join(table) or 'nothing'}."
    )


def _label(table: Table, plain: Mapping[str, str], place: str) -> str | None:
    """The column of classes: `label` if it is there, else one with names before one with numbers.

    Raises:
        ManifestError: several have names, and do not say the same.
    """
    found = [plain[name] for name in LABELS if name in plain]
    if not found or plain_name(found[0]) in LABELS[:2]:
        return found[0] if found else None
    named = [name for name in found if not _is_numeric(table[name])] or found[:1]
    if len(named) > 1 and not all(_say_the_same(table, named[0], one) for one in named[1:]):
        raise ManifestError(
            f"{place!r} may have its classes in {' or '.join(map(repr, named))}; say which with"
            " --label-column."
        )
    return named[0]


def like_times(table: Table, path: str) -> tuple[str, str] | None:
    """Two columns that may be where stretches begin and end: numbers, of which in every row the
    second is above the first, and which tell all rows of a file apart, each by itself some.

    Args:
        table: all of its columns.
        path: the column of files, of which some stand in several rows.
    """
    rows_of: dict[str | None, list[int]] = defaultdict(list)
    for row, file in enumerate(table[path]):
        rows_of[file].append(row)
    several = [rows for rows in rows_of.values() if len(rows) > 1]
    numbers = {name: _numbers(table[name], several) for name in table}
    varied = {name: of for name, of in numbers.items() if any(len({*some}) > 1 for some in of)}
    for one, other in itertools.combinations(varied, 2):
        columns = zip(varied[one], varied[other], strict=True)
        pairs = [[*zip(*both, strict=True)] for both in columns]
        apart = all(len({*some}) == len(some) for some in pairs)
        if apart and all(0 <= begin < end for some in pairs for begin, end in some):
            return one, other
    return None


def _numbers(
    cells: Sequence[str | None], several: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The cells of some rows as numbers; none at all where any is no number."""
    try:
        return [[float((cells[i] or "").replace(",", ".")) for i in rows] for rows in several]
    except ValueError:
        return []


def _no_split(cells: Sequence[str | None]) -> str:
    """The first value that names no split; "" where all do."""
    known = ("", *SPLIT_NAMES, *UNLABELLED)
    values = ((cell or "").strip() for cell in cells)
    return next((value for value in values if value.lower() not in known), "")


def _is_numeric(cells: Sequence[str | None]) -> bool:
    return all(re.fullmatch(r"\s*-?[\d.]*\s*", cell or "") for cell in cells)


def _say_the_same(table: Table, one: str, other: str) -> bool:
    """Whether each value of either column has one value of the other."""
    pairs = set(zip(table[one], table[other], strict=True))
    return len({a for a, _ in pairs}) == len(pairs) == len({b for _, b in pairs})


def _groups(table: Table, group: str, label: str | None) -> bool:
    """Whether a column can keep clips together: not where it is the label under another name."""
    return label is not None and label != group and not _say_the_same(table, group, label)
