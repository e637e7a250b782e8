"""What there is to know about a published data set.

The rule of this file: what is not known for certain is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing


@dataclass(frozen=True)
class KnownSet:
    """A published data set, and how its clips are listed."""

    name: str
    """What `--task NAME:DIR` calls it."""
    title: str
    source: str
    """Who made it, and where it is described."""
    num_classes: int
    split: str
    """How its clips are divided."""
    clips_of: Callable[[Tree], Listing] = field(repr=False)
    """Those of its lists, there or not, and what is to be said of them."""
    num_clips: int | None = None
    """As published."""
    hours: float | None = None
    gigabytes: float | None = None
    """Of what is downloaded."""
    licence: str | None = None
    num_folds: int = 0
    """Of its own, where its protocol is a cross-validation over them."""
    remark: str = ""
    """What a person who compares scores should know."""
    home: str = ""
    """The set whose files these are, where that is another."""
