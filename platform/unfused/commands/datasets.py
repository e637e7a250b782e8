"""`unfused datasets`: the published data sets that `--task NAME:DIR` reads.

The rule of this file: it shows what `corpora.known` says, and knows nothing itself.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from rich.markup import escape
from rich.table import Table

from unfused.corpora import known

NUMBERS = ("classes", "clips", "hours", "GB")


def table() -> Table:
    """A row for each set: its numbers, its licence, where it comes from, how it is split."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("--task", no_wrap=True)
    for name in NUMBERS:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("licence")
    shown.add_column("where it comes from, and its split")
    for one in known.SETS.values():
        about = [one.title, one.source, f"split: {one.split}"]
        if one.num_folds:
            about.append("run it with --folds")
        if one.remark:
            about.append(one.remark)
        numbers = (one.num_classes, one.num_clips, one.hours, one.gigabytes)
        cells = [f"{one.name}:DIR", *map(_number, numbers), one.licence or "-", "; ".join(about)]
        shown.add_row(*map(escape, cells))
    return shown


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def as_json() -> str:
    """The same for scripts: an object by name; null is what is not known."""
    return json.dumps({one.name: _record(one) for one in known.SETS.values()})


def _record(one: known.KnownSet) -> dict[str, Any]:
    names = (field.name for field in fields(one) if field.name not in ("name", "clips_of"))
    return {name: getattr(one, name) for name in names}
