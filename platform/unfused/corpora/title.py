"""What people call a corpus or a task: by its folder or manifest.

The rule of this file: a title is read off the path; nothing is opened and no name is made up.
"""

from __future__ import annotations

from pathlib import PurePath

from unfused.corpora import known

EVERYDAY = ("manifest", "labels", "labelled", "labeled", "metadata", "clips", "data", "index")
"""Names of files that say nothing; the folder says more."""
DEMO = "demo"
"""What has no task of its own is the embedded corpus."""


def title(path: str | None) -> str:
    """`sounds` for `data/sounds/` and `data/sounds.csv`, a published data set's own name, and
    `DEMO` where there is no path."""
    if path is None:
        return DEMO
    name = path.partition(":")[0]
    if name in known.SETS and known.names(path):
        return name
    place = PurePath(path.partition("://")[2] or path)
    stem = place.stem if place.suffix in (".csv", ".parquet") else place.name
    return place.parent.name or stem if stem.lower() in EVERYDAY else stem
