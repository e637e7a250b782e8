"""What a person asked of a search.

The rule of this file: the same request is the same study, which is gone on with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unfused.pipeline import Request
from unfused.search.space import Space
from unfused.store import Folder, digest


@dataclass(frozen=True)
class SearchRequest:
    """What a person asked for."""

    request: Request
    space: Space
    num_trials: int = 20
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    study: str | None = None
    """By default named after the space and all that its trials depend on."""
    storage: str | None = None
    """A file, or the URL of a database; by default a file beside a local store."""

    @property
    def name(self) -> str:
        if self.study:
            return self.study
        request = self.request
        config = request.config.identity()
        same = [config, request.corpus, request.task, request.seeds, request.folds]
        return f"{self.space.name}-{digest([self.space.identity(), *same])[:8]}"

    @property
    def location(self) -> str:
        if self.storage:
            return self.storage
        beside = Folder.of(self.request.options.store).local or Path()
        return str(beside / "searches" / f"{self.name}.journal")

    @property
    def folder(self) -> Folder:
        """Where its tables and pictures go."""
        return Folder.of(self.request.options.store) / "searches" / self.name
