"""Tables as people save them: CSV with any separator and encoding, Parquet, JSON lines.

The rule of this file: every cell is text, exactly as written; what a column means is not known
here.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unfused.corpora.clip import ManifestError

Table = Mapping[str, Sequence[str | None]]
HOLES = frozenset(b"\x81\x8d\x8f\x90\x9d")
"""Bytes that Windows' Western code page leaves undefined."""
SEPARATORS = (",", ";", "\t", "|")


class Several(ManifestError):
    """A cell holds a list of more than one."""


class _Ragged(Exception):
    """A row of a CSV has more or fewer cells than its header."""


def read_table(place: str, data: bytes, wanted: Callable[[str], bool]) -> tuple[Table, list[str]]:
    """A table's columns by name, and what is to be said of how it was read.

    Args:
        place: where it is, whose ending says what it is.
        data: its bytes.
        wanted: which columns are read; of the others only the name is.

    Raises:
        ManifestError: it is no table, or damaged.
    """
    notes: list[str] = []
    try:
        return READERS[extension(place)](data, wanted, notes), notes
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, pa.ArrowException) as error:
        if isinstance(error, ManifestError):
            raise
        told = " ".join(str(error).split())
        raise ManifestError(
            f"Cannot read {place!r} ({told}); save it again as UTF-8 CSV or as Parquet."
        ) from None
    except _Ragged as error:
        raise ManifestError(f"{error} of {place!r}; quote the cells that contain commas.") from None


def extension(place: str) -> str:
    """The ending of a file's name, in lower case."""
    bare = place.partition("?")[0] if "://" in place else place
    return posixpath.splitext(bare)[1].lower()


def text_of(data: bytes, notes: list[str]) -> str:
    """Bytes as text: UTF-8, UTF-16, or else Windows' Western code page, which is told."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if b"\0" in data[:64]:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append("The manifest is not UTF-8; it is read in Windows' Western code page.")
        # Where that has holes it is Latin-1 that was meant.
        return data.decode("cp1252" if not set(data) & HOLES else "latin-1")


def _read_csv(data: bytes, wanted: Callable[[str], bool], notes: list[str]) -> Table:
    text = _from_header(text_of(data, notes).lstrip("\r\n"), wanted, notes)
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep="):
        # A line for spreadsheets alone.
        first, text = rest.partition("\n")[0], rest
    separator = max(SEPARATORS, key=first.count)
    header, body = _rows(text, separator)
    _refuse_twice([name for name in header if wanted(name)])
    return dict(zip(header, zip(*body, strict=True) if body else [()] * len(header), strict=True))


def _from_header(text: str, wanted: Callable[[str], bool], notes: list[str]) -> str:
    """A table without the comments before it; the last one is its header where it names columns
    that are wanted and the line after it none."""
    if not text.startswith("#"):
        return text
    lines = text.splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment, first = lines[count - 1].lstrip("# "), "".join(lines[count : count + 1])
    separator = max(SEPARATORS, key=comment.count)
    named, others = (
        any(wanted(cell.strip()) for cell in line.split(separator)) for line in (comment, first)
    )
    is_header = named and not others
    if left_out := count - is_header:
        are = "1 line that begins" if left_out == 1 else f"{left_out} lines that begin"
        notes.append(f"{are} with # before the table {'is' if left_out == 1 else 'are'} left out.")
    return "".join([comment] * is_header + lines[count:])


def _rows(text: str, separator: str) -> tuple[list[str], list[list[str]]]:
    """The header, and the other rows, each with as many cells.

    Between tabs a quotation mark is its own character, unless it stands at both ends of a cell; or
    unless that leaves rows of other lengths, as cells of several lines do.

    Raises:
        _Ragged: a row has more or fewer.
    """
    if separator == "\t":
        try:
            header, body = _parsed(text, separator, csv.QUOTE_NONE)
            return [_unquoted(name) for name in header], [[*map(_unquoted, row)] for row in body]
        except _Ragged:
            pass
    return _parsed(text, separator, csv.QUOTE_MINIMAL)


def _parsed(text: str, separator: str, quoting: int) -> tuple[list[str], list[list[str]]]:
    spaced = re.search(rf'{re.escape(separator)} +"', text) is not None
    rows = csv.reader(
        io.StringIO(text, newline=""),
        strict=True,
        delimiter=separator,
        quoting=quoting,
        skipinitialspace=spaced,
    )
    header = [name.strip() for name in next(rows, [])]
    body = []
    for row in rows:
        if not any(cell.strip() for cell in row):
            # A spreadsheet keeps the separators of rows that were emptied.
            continue
        if len(row) != len(header):
            told = f"{len(row)} cells where the header has {len(header)}"
            raise _Ragged(f"There are {told} in line {rows.line_num}")
        body.append(row)
    return header, body


def _unquoted(cell: str) -> str:
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def _refuse_twice(names: Sequence[str]) -> None:
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"there are two columns {twice!r}")


def _read_parquet(data: bytes, wanted: Callable[[str], bool], notes: list[str]) -> Table:
    file = pq.ParquetFile(io.BytesIO(data))
    names = [name for name in file.schema_arrow.names if wanted(name)]
    _refuse_twice(names)
    table = file.read(columns=names)
    columns: dict[str, Sequence[str | None]] = dict.fromkeys(file.schema_arrow.names, ())
    for name in names:
        kind = table.schema.field(name).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            columns[name] = [_single(name, cell) for cell in table[name].to_pylist()]
        else:
            cells = _in_seconds(table[name]).cast(pa.string()).to_pylist()
            is_none = "nan" if pa.types.is_floating(kind) else None
            columns[name] = [None if cell == is_none else cell for cell in cells]
    return columns


def _in_seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Spans and times of day as seconds; anything else as it is."""
    kind = column.type
    if pa.types.is_time(kind):
        column = column.cast(pa.time64("us"), safe=False).cast(pa.int64())
    elif pa.types.is_duration(kind):
        column = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
    else:
        return column
    return pc.divide(column.cast(pa.float64()), 1e6)


def _read_json_lines(data: bytes, wanted: Callable[[str], bool], notes: list[str]) -> Table:
    rows = [json.loads(line) for line in text_of(data, notes).splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: [_text(name, row.get(name)) for row in rows] if wanted(name) else () for name in names
    }


def _text(name: str, value: Any) -> str | None:
    if isinstance(value, list):
        return _single(name, value)
    if isinstance(value, float):
        return None if math.isnan(value) else str(value).removesuffix(".0")
    return None if value is None else str(value)


def _single(name: str, cell: Sequence[Any] | None) -> str | None:
    """The one entry of a list; none of an empty one."""
    if cell is not None and len(cell) > 1:
        raise Several(
            f"The column {name!r} has lists of several labels, as {list(cell)!r}; give a clip one"
            " label, or a row with `start` and `end` for each: several at a time are not supported"
            " yet."
        )
    return str(cell[0]) if cell else None


READERS: Mapping[str, Callable[[bytes, Callable[[str], bool], list[str]], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".jsonl": _read_json_lines,
}
