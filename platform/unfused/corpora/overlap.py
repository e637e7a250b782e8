"""Refuses clips that are both learned from and scored.

The rule of this file: a clip is its bytes; where it lies and what it is called do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping

from unfused.corpora.clip import ManifestError


class OverlapError(ManifestError):
    """The same bytes are in train or corpus and in valid or test."""


def refuse_overlap(train: Mapping[str, str], held_out: Mapping[str, str]) -> None:
    """Compare clips by the digests of their bytes.

    Args:
        train: Digest to path of what is learned from (train, or the corpus).
        held_out: Digest to path of what is scored (valid and test).

    Raises:
        OverlapError: There is a clip in both.
    """
    shared = sorted(train.keys() & held_out.keys(), key=train.__getitem__)
    if shared:
        raise overlap(len(shared), f"{train[shared[0]]!r} and {held_out[shared[0]]!r}")


def overlap(count: int, first: str) -> OverlapError:
    """The error that tells of `count` clips, the `first` of them by name."""
    clips = "1 clip has" if count == 1 else f"{count} clips have"
    return OverlapError(
        f"{clips} the same bytes in train or corpus as in valid or test, the first {first};"
        " remove them from one side, or set data.allow_overlap=true."
    )
