"""The model that a person names on a command line.

    FOLDER or s3://...      with model.json in it
    KEY                     of the store's model/
    models:/NAME/VERSION    of MLflow's registry, or models:/NAME@ALIAS
    best, EXPERIMENT:best   the champion of an experiment's registered model

The rule of this file: a name that is not there is answered with those that are.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from unfused.commands.places import usable
from unfused.config import ConfigError
from unfused.inference.folder import MODEL_FILE, read_facts
from unfused.store import KEY, Folder, Kept, Store

BEST = "best"
SHOWN = 10
"""Models that an answer lists."""


@cache
def scratch() -> tempfile.TemporaryDirectory:
    """For files of registered models that lie on another machine, as long as this process lives."""
    return tempfile.TemporaryDirectory(prefix="unfused-model-")


def named(name: str, store: str, tracking_uri: str | None) -> Folder:
    """The folder of a model.

    Args:
        name: as in the first lines of this file.
        store: folder or URI of the artifacts.
        tracking_uri: MLflow, for a registered model.

    Raises:
        ConfigError: there is none of this name.
    """
    there = usable(store)
    if name.startswith("models:/"):
        return _registered(name, tracking_uri)
    if name == BEST or name.endswith(f":{BEST}"):
        experiment = name.removesuffix(BEST).removesuffix(":") or "unfused"
        return _registered(_champion(experiment), tracking_uri)
    if KEY.fullmatch(name) and (found := there.kept("model", name)).exists(MODEL_FILE):
        return found
    with suppress(RuntimeError):  # ~somebody who is not there
        if name.strip() and (folder := Kept.at(Folder.of(name))).exists(MODEL_FILE):
            return folder
    raise ConfigError(f"There is no model {name!r}; {_those_there(there, store)}")


def _champion(experiment: str) -> str:
    from unfused import tracking
    from unfused.tracking.champions import CHAMPION

    return f"models:/{tracking.model_name(experiment)}@{CHAMPION}"


def _registered(uri: str, tracking_uri: str | None) -> Folder:
    from unfused import tracking

    where = tracking.initialise(tracking_uri)
    classifier = tracking.registered_files(uri, where, Path(scratch().name))
    folder = Folder(classifier.uri.rpartition("/")[0])
    if not folder.exists(MODEL_FILE):
        raise ConfigError(
            f"{uri} was registered by an older version, without {MODEL_FILE}; run its pipeline"
            " again, which registers it anew."
        )
    return folder


def _those_there(there: Store, store: str) -> str:
    keys = there.keys("model")
    found = {key: there.kept("model", key) for key in keys[-SHOWN:]}
    models = {key: folder for key, folder in found.items() if folder.exists(MODEL_FILE)}
    if not models:
        return f"the store {store} has none: name a model's folder, or run a pipeline first."
    shown = []
    for key, folder in models.items():
        facts = read_facts(folder)
        shown.append(f"{key} ({facts.name}, {facts.arm}, {facts.measured.own_accuracy:.3f})")
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"the store {store} has {', '.join(shown)}{more}."
