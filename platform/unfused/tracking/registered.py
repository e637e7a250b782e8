"""Files of a registered model, for a run that takes its encoder for a teacher.

The rule of this file: a model is read, never run; its pickles, if somebody else's has any, stay
where they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from unfused.config import ConfigError
from unfused.store import Folder

CLASSIFIER = "classifier"
"""The folder of a registered model that holds its scorer (see `registry`)."""


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
    from mlflow import MlflowClient, MlflowException
    from mlflow.artifacts import download_artifacts

    name, _, version = uri.removeprefix("models:/").replace("@", "/@").partition("/")
    client = MlflowClient(tracking_uri)
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
            f"{tracking_uri} gives no model {uri} ({reason}); name one that is registered there."
        ) from None
    for folder in sorted(Path(place).rglob(CLASSIFIER)):
        if (folder / "scorer.json").is_file():
            return Folder.of(folder)
    raise ConfigError(f"{uri} is no classifier of this platform; name one that a run registered.")
