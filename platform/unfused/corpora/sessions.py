"""Groups that nobody asked for, such as folders below a class or a reader's chapters.

The rule of this file: such a group stays whole for as long as its class can still be in every
split; where it cannot, the class comes first, and the score is said to be in doubt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unfused.corpora.clip import Clip

NAMED = 3
"""Classes named in a note."""


def where_they_can(clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """Clips without the groups that leave no split to be drawn.

    A class of enough clips in too few groups gives them up. Clips with a fold, or with a split and
    a valid one among them, need no split and are left alone.

    Args:
        clips: whose `group` is what was found, not what a person has said.

    Returns:
        The clips, and what is to be said of them.
    """
    needed = _splits_to_draw(clips)
    units: dict[str, set[str]] = defaultdict(set)
    sizes: dict[str, int] = defaultdict(int)
    for clip in clips:
        if clip.label is not None and clip.split in (None, "train"):
            # A clip without a group goes alone.
            units[clip.label].add(f"group {clip.group}" if clip.group else f"clip {clip.name}")
            sizes[clip.label] += 1
    short = {
        label: len(some)
        for label, some in sorted(units.items())
        if len(some) < needed <= sizes[label]
    }
    if not short:
        return list(clips), []
    kept = [replace(clip, group=None) if clip.label in short else clip for clip in clips]
    return kept, [_note(short)]


def _splits_to_draw(clips: Sequence[Clip]) -> int:
    """Among how many splits clips are going to be divided; 0 where that is settled."""
    present = {clip.split for clip in clips if clip.label is not None}
    if any(clip.fold for clip in clips) or "valid" in present:
        return 0
    return 2 if "train" in present else 3


def _note(short: dict[str, int]) -> str:
    shown = [f"{label!r} {count}" for label, count in list(short.items())[:NAMED]]
    more = [f"and {left} more"] if (left := len(short) - len(shown)) else []
    lie = "1 class lies" if len(short) == 1 else f"{len(short)} classes lie"
    return (
        f"{lie} in too few groups to be in every split with each of them whole"
        f" ({', '.join([*shown, *more])}); these are torn apart, so the score may be too good."
    )
