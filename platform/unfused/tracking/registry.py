"""Registered models: the classifier that a run ends in, as something that MLflow serves.

The rule of this file: a registered model is a scorer's files, its facts and this package's code,
run from source; there is no pickle, and nothing to install but libraries.
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from pathlib import Path
from typing import Any

from unfused import scorers
from unfused.scorers import ScorerFacts
from unfused.store import Folder
from unfused.tracking.index import Index

SERVED_PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "torchaudio")
EXAMPLE_SAMPLES = 16000
"""Of the input example of a model that takes whole clips."""


def register(index: Index, folder: Folder, facts: ScorerFacts, name: str) -> None:
    """Make the classifier of an arm's first draw a version of a registered model.

    Args:
        index: of the run.
        folder: the artifact; what is registered already gets no new version.
        facts: of its manifest.
        name: the model is called `unfused-<name>`.
    """
    from mlflow.entities import LoggedModelOutput

    if not index.run:
        return
    model_name, key = _model_name(name), folder.uri.rpartition("/")[2]
    same = f"name = '{model_name}' and tags.key = '{key}'"
    known = index.client.search_model_versions(same, max_results=1)
    model = known[0].tags["model_id"] if known else _log_model(index, folder, facts, key)
    index.client.log_outputs(index.run, [LoggedModelOutput(model, step=0)])
    if not known:
        _add_version(index, model_name, model, folder, key)


def _log_model(index: Index, folder: Folder, facts: ScorerFacts, key: str) -> str:
    tags = {"store": folder.uri, "key": key}
    model = index.client.create_logged_model(
        index.experiment_id, "classifier", index.run, tags, model_type="classifier"
    ).model_id
    status = "FAILED"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            saved = _save_model(Path(scratch), folder, facts, run=index.run, model=model)
            index.client.log_model_artifacts(model, str(saved))
        status = "READY"
    finally:
        index.client.finalize_logged_model(model, status)
    return model


def _add_version(index: Index, name: str, model: str, folder: Folder, key: str) -> None:
    _ensure_registered(index.client, name)
    # By location: a database's registry looks "models:/<id>" up in this process's default URI,
    # and it forgets the id, which is a tag for that reason.
    where = index.client.get_logged_model(model).artifact_location
    tags = {"store": folder.uri, "key": key, "pipeline": index.run, "model_id": model}
    index.client.create_model_version(name, where, index.run, tags, model_id=model)


def _model_name(name: str) -> str:
    legal = re.sub(r"[/:'\"]", "-", name)
    return legal if legal.startswith("unfused") else f"unfused-{legal}"


def _ensure_registered(client: Any, name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _save_model(
    scratch: Path, folder: Folder, facts: ScorerFacts, *, run: str, model: str
) -> Path:
    """Write the classifier of the first draw to `scratch`/model: weights, facts and code."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model

    package = Path(__file__).parents[1]
    kept = Folder.of(scratch / "classifier")
    for name in scorers.files(folder, facts, repeat=0):
        kept.write(name, folder.read(name))
    one = facts.model_copy(update={"num_repeats": 1})
    kept.write_json(scorers.FACTS_FILE, one.model_dump(mode="json"))
    saved = scratch / "model"
    pyfunc.save_model(
        str(saved),
        mlflow_model=Model(run_id=run, model_id=model, model_uuid=model),
        python_model=str(package / "serving.py"),
        artifacts={"classifier": kept.uri},
        code_paths=[str(package)],
        signature=_signature(facts.classes),
        input_example=np.zeros((1, facts.crop_samples or EXAMPLE_SAMPLES), np.float32),
        pip_requirements=[
            f"{name}=={_public_version(name)}"
            for name in (*SERVED_PACKAGES, *scorers.requirements(folder, facts))
        ],
    )
    return saved


def _signature(classes: list[str]) -> Any:
    """Waveforms float32 (B, S) to a table with a label and the probability of every class."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    waveforms = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    table = [ColSpec("float", f"probability.{name}") for name in classes]
    return ModelSignature(waveforms, Schema([ColSpec("string", "label"), *table]))


def _public_version(package: str) -> str:
    """Without the build (`+cu130`), which the package index does not know."""
    return importlib.metadata.version(package).partition("+")[0]
