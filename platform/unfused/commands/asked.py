"""The request behind a command line: what was typed, understood as a whole.

The rule of this file: whatever is wrong with what was typed is said before anything is written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from unfused import tracking
from unfused.commands.named import scratch
from unfused.config import Config, ConfigError, RunOptions
from unfused.corpora import Columns
from unfused.pipeline import Request, heard
from unfused.store import Folder, Store, StoreError

OTHER_STORE = "name a folder, s3://bucket/path or gs://bucket/path."
SHOWN = 80
"""Characters of a wrong name that are said again."""
MOST_SEEDS = 1000
"""Each is a pipeline's learned stages once more, all of them in one plan."""


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
        ConfigError: what was typed can be no request; a teacher cannot be used.
    """
    _check_words(task, corpus, columns)
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"--seeds {seeds} is not from 1 to {MOST_SEEDS}; ask for fewer.")
    store = usable(options.store)
    tracking.named(options.tracking_uri)

    def registered(uri: str) -> Folder:
        where = tracking.initialise(options.tracking_uri)
        return tracking.registered_files(uri, where, Path(scratch().name))

    config, teachers = heard(config, specs, store, registered)
    named = {"teachers": teachers, "specs": tuple(specs), "columns": columns}
    return Request(config, options, corpus, task, seeds, folds, **named)


def _check_words(task: str | None, corpus: str | None, columns: Columns) -> None:
    words = {"--task": task, "--corpus": corpus, "--path-column": columns.path}
    words |= {"--label-column": columns.label, "--audio-root": columns.root}
    for option, text in words.items():
        if text is not None and not text.strip():
            raise ConfigError(f"{option} is empty; say what it is, or leave it out.")


def usable(location: str) -> Store:
    """A store that is there or could be made.

    Raises:
        ConfigError: it is no place that files can be kept in.
    """
    said = location if len(location) <= SHOWN else f"{location[:SHOWN]}..."
    try:
        store = Store.at(location)
        local = store.root.local
        above = (local, *local.parents) if local else ()
        there = next((path for path in above if path.exists()), None)
    except (OSError, RuntimeError, StoreError) as error:
        reason = str(error).partition("; ")[0].rstrip(".").replace(location, said)
        raise ConfigError(f"--store {said}: {reason}; {OTHER_STORE}") from None
    if store.root.filesystem.type_name == "mock" or not store.root.path.strip("/"):
        raise ConfigError(f"--store {said} names no place to keep anything in; {OTHER_STORE}")
    if there and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        what = "cannot be written in" if there.is_dir() else "is a file"
        raise ConfigError(f"--store {said}: {there} {what}; name another folder.")
    return store
