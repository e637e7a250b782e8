"""The request behind a command line: what was typed, understood as a whole.

The rule of this file: whatever is wrong with what was typed is said before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfused import config as configuration
from unfused import tracking
from unfused.commands.named import scratch
from unfused.commands.places import check_named, usable
from unfused.config import ConfigError, RunOptions
from unfused.corpora import Columns
from unfused.pipeline import Request, heard
from unfused.store import Folder

MOST_SEEDS = 1000
"""Each is a pipeline's learned stages once more, all of them in one plan."""


def understood(
    preset: str,
    changes: Mapping[str, Any],
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
        preset: that the settings are those of.
        changes: to settings, by dotted name.
        options: where and how it runs.
        corpus: of unlabelled clips.
        task: of labelled ones.
        seeds: repetitions.
        folds: whether to cross-validate.
        specs: of teachers, as in `--teacher`.
        columns: of manifests.

    Raises:
        ConfigError: what was typed can be no request; a teacher cannot be used.
    """
    config = configuration.override(configuration.preset(preset), changes)
    chosen = frozenset(configuration.chosen_names(config, changes))
    words = {"--task": task, "--corpus": corpus, "--path-column": columns.path}
    check_named(words | {"--label-column": columns.label, "--audio-root": columns.root})
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"--seeds {seeds} is not from 1 to {MOST_SEEDS}; ask for fewer.")
    store = usable(options.store)
    tracking.named(options.tracking_uri)

    def registered(uri: str) -> Folder:
        where = tracking.initialise(options.tracking_uri)
        return tracking.registered_files(uri, where, Path(scratch().name))

    config, teachers = heard(config, specs, store, registered)
    named = {"teachers": teachers, "specs": tuple(specs), "columns": columns, "chosen": chosen}
    return Request(config, options, corpus, task, seeds, folds, **named)
