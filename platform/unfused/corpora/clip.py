"""One clip of a corpus or a task, as listed, and a stretch that annotations make a clip of.

The rule of this file: plain data about a clip, never its samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from unfused.config import ConfigError


class ManifestError(ConfigError):
    """A manifest, a folder or its splits cannot be used; one sentence that names the remedy."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of a manifest, or a file of a folder."""

    path: str
    """Absolute path, or URI."""
    label: str | None = None
    """The class, exactly as written."""
    split: str | None = None
    """train, valid or test."""
    group: str | None = None
    """What must not be torn apart by a split: a speaker, a recording, a site."""
    fold: str | None = None
    """The part of a cross-validation that the clip belongs to."""
    size: int = -1
    """Bytes; -1 where there is no such file."""
    modified: str = ""
    """Time of the last change in ns; empty where there is no such file."""
    name: str = ""
    """The path as the manifest writes it, or relative to the folder: it survives a move."""
    start: float | None = None
    """Seconds into the recording at which the clip begins; None is its beginning."""
    end: float | None = None
    """Seconds at which it ends; None is the recording's end."""

    @property
    def is_stretch(self) -> bool:
        """Whether it is a part of its recording."""
        return self.start is not None or self.end is not None


@dataclass(frozen=True)
class Stretch:
    """A labelled stretch of a recording.

    Attributes:
        file: the recording, as the table names it; "" is the one of the table's own name.
        start, end: seconds; an infinite end is of the whole recording.
        label: None where there is none.
    """

    file: str
    start: float
    end: float
    label: str | None
