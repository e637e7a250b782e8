"""What a stage is: its version, what it may touch, the facts that it leaves, and how it runs.

The rule of this file: all that the pipeline knows of a stage stands in its `Stage`, at the end of
the stage's own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unfused.config import Section
from unfused.corpora.clip import Clip
from unfused.stages.access import Access
from unfused.store import Artifact, Facts, Folder, Work
from unfused.teachers import Outside


@dataclass(frozen=True)
class Build:
    """One node to be built."""

    node: str
    config: Mapping[str, Any]
    """The sections that the node reads, by name."""
    inputs: Mapping[str, Artifact]
    out: Work
    checkpoints: Folder
    clips: Sequence[Clip] = field(default=(), repr=False)
    """What ingest is to read; empty for every other stage."""
    outside: Outside | None = None
    """The teacher that is to be taken in; none for every other stage."""


@dataclass(frozen=True)
class Built:
    """What came of a `Build`."""

    facts: Facts


@dataclass(frozen=True)
class Stage:
    """The contract of one stage."""

    version: int
    """Part of every key: raise it when the same inputs would give other numbers, or files or facts
    of another form."""
    facts: type[Facts]
    access: type[Access]
    """What it may touch of the cluster, and with that what it asks for."""
    run: Callable[[Sequence[Build], Any], list[Built]]
    """Builds one node into its `out`, or several, each into its own."""
    check: Callable[[Mapping[str, Section], Mapping[str, Any]], None] | None = None
    """Refuses, by a ConfigError, what the node's config and the ingested parts that it reads rule
    out, before anything is trained."""
    together: bool = False
    """Whether nodes that are ready at the same time are built by one call: clips that are read once
    serve all of them."""
