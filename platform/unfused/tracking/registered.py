"""Files of a registered model, for a run that takes its encoder for a teacher.

The rule of this file: a model is read, never run; its pickles, if somebody else's has any, stay
where they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from unfused.config import ConfigError
from unfused.inference.folder import CLASSIFIER
from unfused.scorers import FACTS_FILE
from unfused.store import Folder
from unfused.tracking.patience import told
from unfused.tracking.place import bare, is_missing, quiet_client, reading

SHOWN = 10
"""Registered models that an answer lists."""


def registered_files(uri: str, tracking_uri: str, scratch: Path) -> Folder:
    """The scorer's files of a version of a registered model.

    Args:
        uri: `models:/NAME/VERSION`; `@alias` in the place of `/VERSION` is good as well.
        tracking_uri: of the server or database that has the registry.
        scratch: where files are put that lie on another machine.

    Raises:
        ConfigError: there is no such version, or it is no model of this platform.
    """
    if not re.fullmatch(r"models:/[^/@]+(/\d+|@[^/]+)", uri):
        raise ConfigError(f"{uri!r} is no registered model; write models:/NAME/VERSION.")
    if is_missing(tracking_uri):
        raise ConfigError(
            f"{bare(tracking_uri)} gives no model {uri} (there is no such file); run a pipeline"
            " first, or name another with --tracking-uri."
        )
    client = _opened(tracking_uri)
    from mlflow import MlflowException
    from mlflow.artifacts import download_artifacts

    name, _, version = uri.removeprefix("models:/").replace("@", "/@").partition("/")
    with reading():
        try:
            if version.startswith("@"):
                found = client.get_model_version_by_alias(name, version[1:])
            else:
                found = client.get_model_version(name, version)
            where = client.get_model_version_download_uri(name, found.version)
            place = download_artifacts(where, dst_path=str(scratch), tracking_uri=tracking_uri)
        except (MlflowException, OSError) as error:
            reason = str(error).strip().splitlines()[0][:160]
            raise ConfigError(
                f"{bare(tracking_uri)} gives no model {uri} ({reason}); {_those_there(client)}"
            ) from None
    for folder in sorted(Path(place).rglob(CLASSIFIER)):
        if (folder / FACTS_FILE).is_file():
            return Folder.of(folder)
    raise ConfigError(f"{uri} is no classifier of this platform; name one that a run registered.")


def _opened(uri: str) -> Any:
    """MLflow's client; a database is opened by it."""
    try:
        return quiet_client(uri)
    except Exception as error:
        raise ConfigError(
            f"{bare(uri)} cannot be opened ({told(error)}); a run sets a damaged database aside."
        ) from None


def _those_there(client: Any) -> str:
    """What can be named instead."""
    from mlflow import MlflowException

    try:
        names = [model.name for model in client.search_registered_models(max_results=SHOWN)]
    except (MlflowException, OSError):
        names = []
    return f"there are {', '.join(names)}." if names else "none is registered there."
