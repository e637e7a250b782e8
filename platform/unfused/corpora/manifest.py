"""Reads a manifest (CSV or Parquet) or a folder of audio into clips.

The rule of this file: every cell is text, exactly as written, and a clip whose file is missing is
listed all the same (it is quarantined later); a manifest that contradicts itself is refused.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from unfused.corpora import known, location
from unfused.corpora.clip import Clip, ManifestError
from unfused.corpora.listing import Columns, Listing

PATH_COLUMNS = ("path", "files", "wav", "wav_path")
LABEL_COLUMNS = ("label", "labels")
AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
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

Table = Mapping[str, Sequence[str | None]]


def read(source: str | Path, columns: Columns | None = None) -> Listing:
    """List the clips of a manifest, in its order, or of a folder, sorted.

    A manifest has a column `path` (LAPE's `files`, `wav` and `wav_path` are understood) and may
    have `label` (or `labels`), `split`, `group` and `fold`; others are ignored. Relative paths are
    relative to the manifest. A folder is `class/clip.wav` or flat, either below split folders or
    not.

    Args:
        source: Local path or a URI that Arrow reads (s3://, gs://, ...).
        columns: What the manifest calls its columns.

    Raises:
        ManifestError: There is nothing there, or it is no usable list of clips.
    """
    if known.names(source):
        return known.read(source)
    place = location.absolute(str(source))
    kind = location.kind(place)
    if kind == fs.FileType.NotFound:
        raise ManifestError(f"There is no file or folder {str(source)!r}; check the path.")
    if kind == fs.FileType.Directory:
        return Listing(_read_folder(place))
    return Listing(_read_manifest(place))


def _read_manifest(place: str) -> list[Clip]:
    columns = _columns(place)
    names = _names(columns, place)
    folder = location.parent(place)
    label = next((column for column in LABEL_COLUMNS if column in columns), LABEL_COLUMNS[0])
    table = zip(
        names,
        _cells(columns, label, len(names)),
        _splits(_cells(columns, "split", len(names)), place),
        _cells(columns, "group", len(names)),
        _cells(columns, "fold", len(names)),
        strict=True,
    )
    clips = [
        Clip(location.join(folder, name), label, split, group, fold, name=name)
        for name, label, split, group, fold in table
    ]
    return _with_status(_without_repeats(clips, place))


def _columns(place: str) -> Table:
    readers: dict[str, Callable[[bytes], Table]] = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".pq": _read_parquet,
    }
    bare = place.partition("?")[0] if "://" in place else place
    extension = posixpath.splitext(bare)[1].lower()
    if extension not in readers:
        raise ManifestError(
            f"{place!r} is no manifest that can be read; give a .csv, a .parquet or a folder."
        )
    try:
        return readers[extension](location.read_bytes(place))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        told = " ".join(str(error).split())
        raise ManifestError(
            f"Cannot read {place!r} ({told}); save it again as UTF-8 CSV or as Parquet."
        ) from None
    except _Ragged as error:
        raise ManifestError(f"{error} of {place!r}; quote the cells that contain commas.") from None


class _Ragged(Exception):
    """A row of a CSV has more or fewer cells than its header."""


def _read_csv(data: bytes) -> Table:
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    header = [name.strip() for name in next(rows, [])]
    body = []
    for row in filter(None, rows):
        if len(row) != len(header):
            told = f"{len(row)} cells where the header has {len(header)}"
            raise _Ragged(f"There are {told} in line {rows.line_num}")
        body.append(row)
    return dict(zip(header, zip(*body, strict=True) if body else [()] * len(header), strict=True))


def _read_parquet(data: bytes) -> Table:
    file = pq.ParquetFile(io.BytesIO(data))
    ours = {*PATH_COLUMNS, *LABEL_COLUMNS, "split", "group", "fold"}
    wanted = [name for name in file.schema_arrow.names if name in ours]
    table = file.read(columns=wanted)
    columns: dict[str, Sequence[str | None]] = dict.fromkeys(file.schema_arrow.names, ())
    return columns | {name: table[name].cast(pa.string()).to_pylist() for name in wanted}


def _names(columns: Table, place: str) -> list[str]:
    """The paths as written, all there."""
    column = next((name for name in PATH_COLUMNS if name in columns), None)
    if column is None:
        raise ManifestError(
            f"{place!r} has no column `path`, only {', '.join(columns) or 'nothing'}; rename the"
            " column that names the files."
        )
    names = [name or "" for name in columns[column]]
    if not names:
        raise ManifestError(f"{place!r} lists no clips; add a row for each.")
    if "" in names:
        raise ManifestError(f"Row {names.index('') + 1} of {place!r} has no path; name its file.")
    return names


def _cells(columns: Table, name: str, num_rows: int) -> list[str | None]:
    """A column with empty cells as None, also where there is no such column."""
    return [cell or None for cell in columns.get(name, [None] * num_rows)]


def _splits(cells: list[str | None], place: str) -> list[str | None]:
    """The canonical names, in every row or in none."""
    if not any(cells):
        return cells
    splits = [SPLIT_NAMES.get((cell or "").strip().lower()) for cell in cells]
    if None in splits:
        row = splits.index(None)
        raise ManifestError(
            f"Row {row + 1} of {place!r} has the split {cells[row] or ''!r}; use train, valid or"
            " test."
        )
    return splits


def _without_repeats(clips: list[Clip], place: str) -> list[Clip]:
    """The first row of each path; another may repeat it but not contradict it."""
    first: dict[str, Clip] = {}
    for clip in clips:
        known = first.setdefault(clip.path, clip)
        for field in ("label", "split", "group", "fold"):
            one, other = getattr(known, field), getattr(clip, field)
            if one != other:
                raise ManifestError(
                    f"{place!r} lists {clip.path!r} with the {field} {one!r} and with {other!r};"
                    " keep one of the rows."
                )
    return list(first.values())


def _with_status(clips: list[Clip]) -> list[Clip]:
    status = location.listed([clip.path for clip in clips])
    return [
        replace(clip, size=size, modified=modified)
        for clip, (size, modified) in zip(clips, status, strict=True)
    ]


def _read_folder(place: str) -> list[Clip]:
    """Labels are the folders that clips lie in; first-level folders may be splits."""
    found = [
        (name, status)
        for name, status in location.files_under(place)
        if name.lower().endswith(AUDIO_EXTENSIONS) and not _is_hidden(name)
    ]
    if not found:
        raise ManifestError(
            f"There is no audio in {place!r}; give a folder with {', '.join(AUDIO_EXTENSIONS)}"
            " files or a manifest."
        )
    in_splits = all(_first_folder(name).lower() in SPLIT_NAMES for name, _ in found)
    return [_clip_of_file(place, name, status, in_splits) for name, status in found]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _first_folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _clip_of_file(place: str, name: str, status: location.Listed, in_splits: bool) -> Clip:
    split, below = None, name
    if in_splits:
        first, _, below = name.partition("/")
        split = SPLIT_NAMES[first.lower()]
    label = posixpath.basename(posixpath.dirname(below)) or None
    return Clip(
        location.join(place, name), label, split, size=status[0], modified=status[1], name=name
    )
