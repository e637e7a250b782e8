"""Refuses clips that are both learned from and scored.

The rule of this file: a clip is its bytes; where it lies and what it is called do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from unfused.corpora.clip import ManifestError

REMEDY = "remove them from one side, or set data.allow_overlap=true."


class OverlapError(ManifestError):
    """The same bytes are in train and in valid or test."""


def overlapping(pairs: Sequence[tuple[str, str]]) -> str:
    """What there is to say of recordings on both sides, each with its name on either."""
    are = "1 recording is" if len(pairs) == 1 else f"{len(pairs)} recordings are"
    first, other = min(pairs)
    return f"{are} in train as well as in valid or test, the first {first!r} and {other!r}"
