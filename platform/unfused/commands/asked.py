"""The request behind a command line: what was typed, understood as a whole.

The rule of this file: whatever is wrong with what was typed is said before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unfused import tracking
from unfused.commands.named import scratch
from unfused.config import Config, RunOptions
from unfused.corpora import Columns
from unfused.pipeline import Request, heard
from unfused.store import Folder, Store


def understood(
    config: Config,
    options: RunOptions,
    corpus: str | None,
    task: str | None,
    seeds: int,
    folds: bool,
    specs: Sequence[str],
    columns: Columns,
) -> Request:
    """The request.

    Args:
        config: as the overrides make it.
        options: where and how it runs.
        corpus: of unlabelled clips.
        task: of labelled ones.
        seeds: repetitions.
        folds: whether to cross-validate.
        specs: of teachers, as in `--teacher`.
        columns: of manifests.

    Raises:
        ConfigError: a teacher cannot be used.
    """

    def registered(uri: str) -> Folder:
        where = tracking.initialise(options.tracking_uri)
        return tracking.registered_files(uri, where, Path(scratch().name))

    store = Store.at(options.store)
    config, teachers = heard(config, specs, store, registered)
    named = {"teachers": teachers, "specs": tuple(specs), "columns": columns}
    return Request(config, options, corpus, task, seeds, folds, **named)
