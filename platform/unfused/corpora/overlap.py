"""Refuses clips that are both learned from and scored.

The rule of this file: a clip is its bytes; where it lies and what it is called do not matter.
"""

from __future__ import annotations

from unfused.corpora.clip import ManifestError


class OverlapError(ManifestError):
    """The same bytes are in train and in valid or test."""


def overlap(count: int, first: str) -> OverlapError:
    """The error that tells of `count` clips, the `first` of them by name."""
    clips = "1 clip has" if count == 1 else f"{count} clips have"
    return OverlapError(
        f"{clips} the same bytes in train as in valid or test, the first {first};"
        " remove them from one side, or set data.allow_overlap=true."
    )
