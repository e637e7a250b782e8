"""What was said of recordings, as files that other programs read.

    .csv .parquet .jsonl    a row for every clip or segment
    .selections.txt         Raven's selection table
    .labels.txt             Audacity's label track, of one recording

The rule of this file: rows come one at a time, and are written so; a file is there whole or not at
all.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from unfused.config import ConfigError
from unfused.inference.prediction import Segment

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "digest", "start", "end", "label", "probability", "entropy", "reason")
"""Before the probabilities of all classes, `probability.<class>`. `start` and `end` are seconds,
`entropy` is in nats, and `reason` says why there is no label."""
ROWS_TOGETHER = 1024
STANDARD_OUTPUT = "-"


def row(
    path: str, digest: str, segment: Segment | None = None, reason: str = ""
) -> dict[str, Any]:
    """A row of the table: of a segment (a whole clip is one), or why there is none."""
    told: dict[str, Any] = dict.fromkeys(COLUMNS)
    told |= {"path": path, "digest": digest or None, "reason": reason or None}
    if segment is not None:
        names = ("start", "end", "label", "probability", "entropy")
        told |= {name: getattr(segment, name) for name in names}
        told |= {f"probability.{name}": p for name, p in segment.probabilities.items()}
    return told


def columns_of(classes: Sequence[str]) -> list[str]:
    """The columns of a model's table."""
    return [*COLUMNS, *(f"probability.{name}" for name in classes)]


def frame(classes: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=columns_of(classes))


class Writer(Protocol):
    """Takes rows."""

    def __call__(self, file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
        """Write all rows to an open file."""


def write_csv(file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Comma-separated, with a header."""
    for line in _csv_lines(columns, rows):
        file.write(line.encode())


def _csv_lines(columns: Sequence[str], rows: Iterable[Mapping]) -> Iterator[str]:
    line = _Line()
    table = csv.DictWriter(line, columns, lineterminator="\n")
    table.writeheader()
    yield line.text
    for one in rows:
        table.writerow(one)
        yield line.text


class _Line:
    """What csv wrote last."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def write_json_lines(file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """A JSON object a line; what is not known is left out."""
    for one in rows:
        kept = {name: value for name, value in one.items() if value is not None}
        file.write(json.dumps(kept, ensure_ascii=False).encode() + b"\n")


def write_parquet(file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Parquet, some rows to a group; what holds numbers is double, or a list of floats. What a
    column holds is known by its name: rows that tell may be far behind those that say nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _type(name)) for name in columns])
    with pq.ParquetWriter(file, schema) as table:
        for some in _together(rows):
            table.write_table(pa.Table.from_pylist(some, schema=schema))


def _together(rows: Iterable[Mapping]) -> Iterator[list[Mapping]]:
    block: list[Mapping] = []
    for one in rows:
        block.append(one)
        if len(block) == ROWS_TOGETHER:
            yield block
            block = []
    if block:
        yield block


NUMBERS = {"cluster"}
TEXT = {"path", "digest", "label", "reason"}
VECTORS = "embedding"
"""What the names of columns of vectors begin with."""


def _type(name: str) -> Any:
    import pyarrow as pa

    if name in TEXT:
        return pa.string()
    if name in NUMBERS:
        return pa.int64()
    if name.startswith(VECTORS):
        return pa.list_(pa.float32())
    return pa.float64()


def write_raven(file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Raven's selection table (tab-separated), what has no label left out; a tab or the end of a
    line in a name is a space."""
    names = (
        "Selection", "View", "Channel", "Begin Path", "File Offset (s)", "Begin Time (s)",
        "End Time (s)", "Annotation", "Score",
    )  # fmt: skip
    file.write(("\t".join(names) + "\n").encode())
    for number, one in enumerate(_labelled(rows), 1):
        cells = (
            number, "Spectrogram 1", 1, one["path"], f"{one['start']:.3f}", f"{one['start']:.3f}",
            f"{one['end']:.3f}", one["label"], f"{one['probability']:.4f}",
        )  # fmt: skip
        file.write(("\t".join(map(_cell, cells)) + "\n").encode())


NO_CELL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
"""What ends a cell or a line, or is none: such tables have no quotes."""


def _cell(value: object) -> str:
    return NO_CELL.sub(" ", str(value))


def write_audacity(file: IO[bytes], columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Audacity's label track: begin, end and label, in which a tab or the end of a line is a space.

    Raises:
        ConfigError: the rows are of several recordings, which a track cannot tell apart.
    """
    first = None
    for one in _labelled(rows):
        first = first or one["path"]
        if one["path"] != first:
            raise ConfigError(
                "A label track of Audacity is of one recording; give one, or write"
                " .selections.txt (Raven) or .csv."
            )
        file.write(f"{one['start']:.3f}\t{one['end']:.3f}\t{_cell(one['label'])}\n".encode())


def _labelled(rows: Iterable[Mapping]) -> Iterator[Mapping]:
    return (one for one in rows if one["label"] is not None)


WRITERS: Mapping[str, Writer] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".jsonl": write_json_lines,
    ".selections.txt": write_raven,
    ".labels.txt": write_audacity,
}

OF_ANY_COLUMNS = {ending: WRITERS[ending] for ending in (".csv", ".parquet", ".jsonl")}
"""What writes rows that have no label and no moments, too."""
OF_VECTORS = {ending: WRITERS[ending] for ending in (".parquet", ".jsonl")}


def writer(out: str, known: Mapping[str, Writer] = WRITERS) -> Writer:
    """What writes a file of this name; `-` is CSV.

    Raises:
        ConfigError: the name has none of the endings.
    """
    if out == STANDARD_OUTPUT:
        return write_csv
    found = next((write for ending, write in known.items() if out.endswith(ending)), None)
    if found is None:
        raise ConfigError(f"--out {out}: write {', '.join(known)}, or - for CSV on the terminal.")
    return found


def partial_of(file: Path) -> Path:
    """Where a file is written until it is whole: beside it, by a short name however long its own
    is."""
    return file.with_name(f".{uuid4().hex[:8]}.partial")


@contextmanager
def opened(out: str) -> Iterator[IO[bytes]]:
    """A file that is there when all is written; `-` is the standard output."""
    if out == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    final = Path(out).expanduser()
    partial = partial_of(final)
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, final)
    except OSError as error:
        # What a full disk refuses has no name.
        error.filename = error.filename or str(final)
        raise
    finally:
        partial.unlink(missing_ok=True)
