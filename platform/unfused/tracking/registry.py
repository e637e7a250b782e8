"""Registered models: the model that a run ends in, as something that MLflow serves.

The rule of this file: a registered model is the model's folder and this package's code, run from
source; there is no pickle, and nothing to install but libraries.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfused import scorers
from unfused.inference.folder import CLASSIFIER, RATE, RATE_IN_PYTHON, ModelFacts
from unfused.secrets import hidden
from unfused.store import Folder, digest
from unfused.tracking import champions, metrics, notes
from unfused.tracking.index import Index
from unfused.tracking.notes import NOTE
from unfused.tracking.tables import Said

SERVED_PACKAGES = (
    "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "soundfile", "soxr", "torch",
    "torchaudio",
)  # fmt: skip
REGISTERED = "mlflow.modelVersions"
"""Tag of a logged model: the versions that it is."""
TABLES = "mlflow.loggedArtifacts"
"""Tag of a run: which of its artifacts are tables."""
EXAMPLE_SECONDS = 1.0
"""Of the input example of a model that takes whole clips."""
MODEL = "model"
"""The folder of a version that is a model as `inference.folder` has it."""


@dataclass(frozen=True)
class Classifier:
    """What a run may register."""

    folder: Folder
    """The model's, local or remote."""
    facts: ModelFacts
    clips: str
    """Digest of the training clips."""

    @property
    def key(self) -> str:
        return self.folder.path.rpartition("/")[2]

    @property
    def estimate(self) -> float | None:
        """Cross-validated accuracy over its labels."""
        return self.facts.measured.cross_validated

    @property
    def task(self) -> str:
        """One for versions that may be held against one another."""
        return digest([self.facts.classes, self.clips])[:16]


def register(index: Index, classifier: Classifier, name: str) -> None:
    """Make a model a version of a registered one.

    Args:
        index: of the run.
        classifier: what is registered already gets no new version.
        name: the model is called `unfused-<name>`.
    """
    if not index.run:
        return
    called = model_name(name)
    known = _version(index.client, called, classifier)
    model = known.tags["model_id"] if known else _log_model(index, classifier)
    _name_as_output(index, model)
    if not (known and known.description):
        _tell_scores(index, classifier, model)
        _add_version(index, classifier, called, model)


def show(index: Index, said: Said) -> None:
    """Keep a picture and tables of what a classifier says of the clips that were scored."""
    if not index.run:
        return
    tables = {"per_class.json": said.per_class(), "predictions.json": said.predictions()}
    with tempfile.TemporaryDirectory() as scratch:
        for name, table in tables.items():
            Path(scratch, name).write_text(_table(table))
        Path(scratch, "confusion.png").write_bytes(said.picture())
        index.client.log_artifacts(index.run, scratch)
    shown = [{"path": name, "type": "table"} for name in tables]
    index.set_tags(index.run, {TABLES: json.dumps(shown)})


def _table(columns: Mapping[str, list[Any]]) -> str:
    """As MLflow's `log_table` has it, which adds the rows again where a table is there."""
    rows = list(zip(*columns.values(), strict=True))
    return json.dumps({"columns": list(columns), "data": rows})


def _version(client: Any, name: str, classifier: Classifier) -> Any:
    """The version that a model is already; None where it is none."""
    same = f"name = '{name}' and tags.key = '{classifier.key}'"
    return next(iter(client.search_model_versions(same, max_results=1)), None)


def _name_as_output(index: Index, model: str) -> None:
    """Say that the run has led to a logged model."""
    from mlflow.entities import LoggedModelOutput

    plain = index.client.plain

    def tell() -> None:
        plain.log_outputs(index.run, [LoggedModelOutput(model, step=0)])

    def tell_once() -> None:
        told = plain.get_run(index.run).outputs
        if model not in [one.model_id for one in (told.model_outputs if told else ())]:
            tell()

    index.once(tell, tell_once)


def _log_model(index: Index, classifier: Classifier) -> str:
    tags = {"store": hidden(classifier.folder.uri), "key": classifier.key}
    model = index.client.create_logged_model(
        index.experiment_id, "classifier", index.run, tags, model_type="classifier"
    ).model_id
    status = "FAILED"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder, facts = classifier.folder, classifier.facts
            saved = _save_model(Path(scratch), folder, facts, run=index.run, model=model)
            index.client.log_model_artifacts(model, str(saved))
        status = "READY"
    finally:
        index.client.finalize_logged_model(model, status)
    return model


def _tell_scores(index: Index, classifier: Classifier, model: str) -> None:
    """Give the model's page the run's accuracy, and this classifier's own."""
    measured = classifier.facts.measured
    split = measured.split
    own = {"cross_validated": classifier.estimate, f"{split}_accuracy_own": measured.own_accuracy}
    scores = metrics.headline(index.summary) | {k: v for k, v in own.items() if v is not None}
    index.log_metrics(index.run, scores, index.ended, model=model)


def _add_version(index: Index, classifier: Classifier, name: str, model: str) -> None:
    client = index.client
    _ensure_registered(client, name)
    # By location: a database's registry looks "models:/<id>" up in this process's default URI,
    # and it forgets the id, which is a tag for that reason.
    where = client.get_logged_model(model).artifact_location
    place = hidden(classifier.folder.uri)
    tags = {"store": place, "key": classifier.key, "pipeline": index.run}
    tags |= {"model_id": model, **champions.tags(classifier.task, classifier.estimate)}
    plain = client.plain

    def made() -> Any:
        return plain.create_model_version(name, where, index.run, tags, model_id=model)

    def found() -> Any:
        return _version(plain, name, classifier) or made()

    version = index.once(made, found).version
    standing = champions.place(client, name, version, tags)
    facts = classifier.facts
    above = notes.of_model(index.page(), facts.arm, len(facts.measured.accuracy), standing)
    note = f"{above}\n\n{index.note(index.summary)}"
    client.update_model_version(name, version, note)
    # MLflow's own `register_model` sets this; without it the model's page says "Not registered".
    registered = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(model, {REGISTERED: registered, NOTE: note})


def model_name(name: str) -> str:
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
    scratch: Path, folder: Folder, facts: ModelFacts, *, run: str, model: str
) -> Path:
    """Write the model and this package's code to `scratch`."""
    from mlflow import pyfunc
    from mlflow.models import Model

    package = Path(__file__).parents[1]
    kept = Folder.of(scratch / MODEL)
    root = len(folder.path) + 1
    for info in folder.files():
        kept.write(info.path[root:], folder.read(info.path[root:]))
    saved = scratch / "saved"
    pyfunc.save_model(
        str(saved),
        mlflow_model=Model(run_id=run, model_id=model, model_uuid=model),
        python_model=str(package / "serving.py"),
        artifacts={MODEL: kept.uri},
        code_paths=[str(package)],
        signature=_signature(facts),
        input_example=_example(facts),
        pip_requirements=[
            f"{name}=={_public_version(name)}"
            for name in (*SERVED_PACKAGES, *_libraries(folder, facts))
        ],
    )
    return saved


def _libraries(folder: Folder, facts: ModelFacts) -> list[str]:
    """What a model needs beside what all need."""
    return scorers.requirements(folder / CLASSIFIER, facts.scorer)


def _example(facts: ModelFacts) -> Any:
    """Silence (1, S), float32, with its rate."""
    import numpy as np

    samples = facts.scorer.crop_samples or int(EXAMPLE_SECONDS * facts.sample_rate)
    return np.zeros((1, samples), np.float32), {RATE: facts.sample_rate}


def _signature(facts: ModelFacts) -> Any:
    """The rate that arrays have unless told otherwise, by either name, and a table with a label and
    the probability of every class; none of the input, which is arrays, paths, bytes or base64."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    table = [ColSpec("float", f"probability.{name}") for name in facts.classes]
    return ModelSignature(
        outputs=Schema([ColSpec("string", "label"), *table]),
        params=ParamSchema(
            [
                ParamSpec(RATE, DataType.long, facts.sample_rate),
                ParamSpec(RATE_IN_PYTHON, DataType.long, None),
            ]
        ),
    )


def _public_version(package: str) -> str:
    """Without the build (`+cu130`), which the package index does not know."""
    return importlib.metadata.version(package).partition("+")[0]
