"""`unfused predict` and `unfused embed`: a model's word on recordings, as a table.

The rule of this file: a few recordings are dealt with here, without Ray; many stream through Ray
Data, a worker to a core, and the rows are the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import fs
from rich.markup import escape

from unfused import cores, corpora, display
from unfused.commands.places import check_named, writable
from unfused.config import ConfigError, RunOptions
from unfused.corpora import location
from unfused.corpora.tables import READERS, extension
from unfused.inference import Model, read_facts
from unfused.inference.files import Looking, embedded, predicted
from unfused.inference.tables import (
    OF_VECTORS,
    STANDARD_OUTPUT,
    VECTORS,
    WRITERS,
    Writer,
    columns_of,
    opened,
    writer,
)
from unfused.store import Folder

MANY = 1000
"""Recordings for which it is worth the wait that Ray starts."""
TASK_CLIPS = 256
"""Recordings of one task of Ray Data."""

Say = Callable[[Model, Iterable[str]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """What is to be said of which recordings.

    Attributes:
        folder: of the model.
        places: files, folders, manifests, as typed.
        out: a file's name, "-" for CSV on the standard output; none is for people to read.
    """

    folder: Folder
    places: Sequence[str]
    out: str | None


def predict(asked: Asked, looking: Looking) -> None:
    """Label recordings."""
    if asked.out is not None:
        usable_writer(asked.out)
    facts, clips = read_facts(asked.folder), listed(asked.places)
    rows = _rows(asked, clips, partial(predicted, looking=looking))
    if asked.out is None and sys.stdout.isatty():
        told = _Told(rows)
        _show(told)
        _sum_up(told, len(clips), None)
    else:
        finish(rows, columns_of(facts.classes), len(clips), asked.out)


def usable_writer(out: str, known: Mapping[str, Writer] = WRITERS) -> Writer:
    """What writes a file that could be written; see `inference.tables.writer`.

    Raises:
        ConfigError: of its name, or its place.
    """
    found = writer(out, known)
    if out != STANDARD_OUTPUT:
        writable("--out", out)
    return found


def finish(
    rows: Iterator[dict[str, Any]], columns: Sequence[str], total: int, out: str | None
) -> None:
    """Write a table, and say what came of it.

    Args:
        rows: of the table.
        columns: their names.
        total: recordings.
        out: a file's name; none is the standard output.
    """
    told, out = _Told(rows), out or STANDARD_OUTPUT
    write = writer(out)
    with opened(out) as file:
        write(file, columns, told)
    _sum_up(told, total, out)


def embed(asked: Asked) -> None:
    """Write the vectors of recordings."""
    out = str(asked.out)
    write, clips = usable_writer(out, OF_VECTORS), listed(asked.places)
    rows = _Told(_rows(asked, clips, embedded))
    first = rows.first_with_vectors()
    names = ["path", "digest", "reason", *(name for name in first if name.startswith(VECTORS))]
    with opened(out) as file:
        write(file, names, rows)
    _sum_up(rows, len(clips), out)


def listed(places: Sequence[str]) -> list[str]:
    """The recordings that files, folders and manifests stand for, in their order.

    Raises:
        ConfigError: there is nothing at a place.
    """
    found: list[str] = []
    for place in places:
        check_named({"A place of recordings": place})
        where = location.absolute(place)
        kind = location.kind(where)
        if kind == fs.FileType.NotFound:
            raise ConfigError(f"There is no file or folder {place!r}; check how it is written.")
        if kind == fs.FileType.File and extension(where) not in READERS:
            found.append(where)
        else:
            found += [clip.path for clip in corpora.read(where, labelled=False).clips]
    return list(dict.fromkeys(found))


def _rows(asked: Asked, clips: Sequence[str], say: Say) -> Iterator[dict[str, Any]]:
    if len(clips) < MANY:
        cores.prepare_process(cores.available_cpus() if len(clips) > 1 else None)
        return say(Model(asked.folder), clips)
    return _streamed(asked, clips, say)


def _streamed(asked: Asked, clips: Sequence[str], say: Say) -> Iterator[dict[str, Any]]:
    """Rows by Ray Data, in the order of the recordings."""
    import ray

    from unfused import runtime

    runtime.start(RunOptions())
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    pieces = [clips[i : i + TASK_CLIPS] for i in range(0, len(clips), TASK_CLIPS)]
    items = [{"clips": json.dumps(some)} for some in pieces]
    said = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Worker,
        fn_constructor_args=(asked.folder, say),
        batch_size=1,
        concurrency=cores.available_cpus(),
        num_cpus=1,
    )
    try:
        for row in said.iter_rows():
            yield from json.loads(row["rows"])
    finally:
        runtime.stop()


class _Worker:
    """A process that has the model."""

    def __init__(self, folder: Folder, say: Say) -> None:
        cores.prepare_process(threads=1)
        self.model, self.say = Model(folder), say

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        said = [list(self.say(self.model, json.loads(some))) for some in batch["clips"]]
        return {"rows": [json.dumps(rows) for rows in said]}


class _Told:
    """Rows as they pass, and how many recordings had nothing to say, or not to their end."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self._held: list[dict[str, Any]] = []
        self.unread = self.partly = 0
        self.reason = self._before = ""

    def first_with_vectors(self) -> Mapping[str, Any]:
        """The first row that has vectors, or an empty one; none is lost."""
        for row in self._rows:
            self._held.append(row)
            if row["reason"] is None:
                return row
        return {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._held:
            yield self._seen(self._held.pop(0))
        for row in self._rows:
            yield self._seen(row)

    def _seen(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["reason"]:
            partly = row["path"] == self._before
            self.partly, self.unread = self.partly + partly, self.unread + (not partly)
            self.reason = self.reason or f"{row['path']} ({row['reason']})"
        self._before = row["path"]
        return row


def _show(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for every clip or segment."""
    console = display.make_console()
    for row in rows:
        place = escape(str(row["path"]))
        if row["label"] is None:
            console.print(f"[red]-[/]  {place}  {escape(str(row['reason']))}", highlight=False)
        else:
            when = f"  {row['start']:.2f}-{row['end']:.2f} s"
            label, sure = escape(row["label"]), row["probability"]
            console.print(f"[bold]{label}[/]  {sure:.3f}{when}  {place}", highlight=False)


def _sum_up(rows: _Told, total: int, out: str | None) -> None:
    """What came of it, beside the table."""
    console = display.make_console(error=True)
    if out and out != STANDARD_OUTPUT:
        many = "1 recording" if total == 1 else f"{total} recordings"
        console.print(f"{many}: {escape(str(Path(out)))}", highlight=False)
    counts = {"without an answer": rows.unread, "up to where it could be read": rows.partly}
    if told := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
        console.print(f"[yellow]{told}[/], the first: {escape(rows.reason)}", highlight=False)
