"""What a person asked of a search.

The rule of this file: the same request is the same study, which is gone on with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from unfused.config import ConfigError
from unfused.pipeline import Request
from unfused.store import Folder, digest
from unfused.tuning.space import Space

MOST = 120
"""Characters of a study's name."""
STUDY = re.compile(rf"[^./\s\0][^/\0]{{0,{MOST - 1}}}")


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

    def __post_init__(self) -> None:
        if self.study is not None and not STUDY.fullmatch(self.study):
            raise ConfigError(
                f"--study {self.study[:MOST]!r} cannot be the name of a file: give it 1 to {MOST}"
                " letters, digits and marks, without a slash and not with a dot first."
            )
        if self.storage is not None and "://" not in self.storage:
            path = Path(self.storage)
            if not self.storage.strip() or path.is_dir() or path.parent.is_file():
                raise ConfigError(
                    f"--study-storage {self.storage or '(empty)'} can be no file; name one, or a"
                    " database as in postgresql://user@host/optuna."
                )

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
