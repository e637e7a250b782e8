"""What came of reading a manifest, a folder or a data set: its clips, and what a person is told.

The rule of this file: whatever was understood, left out or merged on the way is a note, one line
each, with how many clips it touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unfused.corpora.clip import Clip


@dataclass(frozen=True)
class Columns:
    """What a manifest calls its columns, and where its paths start.

    Attributes:
        path: the column that names the files; None for one of the usual names.
        label: likewise, of the classes.
        root: the folder that relative paths are relative to; None for the manifest's own.
    """

    path: str | None = None
    label: str | None = None
    root: str | None = None

    @property
    def words(self) -> list[str]:
        """As they are given on a command line."""
        named = {"path-column": self.path, "label-column": self.label, "audio-root": self.root}
        return [word for name, value in named.items() if value for word in (f"--{name}", value)]


@dataclass(frozen=True)
class Listing:
    """Clips in order, those without a label among them, and what is to be said of them."""

    clips: list[Clip] = field(repr=False)
    of_files: tuple[str, ...] = ()
    """What is to be said of the files."""
    of_labels: tuple[str, ...] = ()
    """What is to be said of labels and groups, which a corpus has none of."""
    columns: tuple[str, ...] = ()
    """Of the manifest, if there is one."""
    of_split: tuple[str, ...] = ()
    """What is to be said of a single split, where its folds are not taken."""

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is to be said, a line each."""
        return (*self.of_files, *self.of_labels)
