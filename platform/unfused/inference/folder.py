"""A model as a folder: what is in it, written and read.

    model.json         what the model is, what it scored, and what it was made of
    README.md          the same for people
    classifier/        the scorer: safetensors and JSON (see `scorers`); no pickle

The rule of this file: the folder is whole; nothing in it leads to a file outside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unfused import scorers
from unfused.config import Channel, ConfigError
from unfused.scorers import ScorerFacts
from unfused.store import Facts, Folder

FORM = 1
"""Of the folder: raised when a file or a field changes its meaning."""
MODEL_FILE = "model.json"
CARD_FILE = "README.md"
CLASSIFIER = "classifier"
RATE = "sample_rate"
"""The parameter of a served model that says what rate arrays have, in Hz."""
RATE_IN_PYTHON = "rate"
"""What `Model.predict` calls it, which a served model takes as well."""


class Measured(Facts):
    """What the arm scored, over all draws of the labels and repetitions."""

    split: str
    """The clips that it was scored on: test or valid."""
    num_clips: int
    chance: float
    """Accuracy of a guess."""
    accuracy: list[float]
    """Of every draw."""
    balanced_accuracy: list[float] | None = None
    """Mean recall of the classes, likewise; none in folders of before it was measured."""
    macro_f1: list[float]
    own_accuracy: float
    """Of the draw that this model is of."""
    cross_validated: float | None = None
    """Accuracy of that draw on labelled clips that were left out while others taught."""


class License(Facts):
    """On what terms a part may be used."""

    of: str
    """The teacher."""
    license: str
    """Empty where it states none."""


class ModelFacts(Facts):
    """What a model says of itself."""

    form: int = FORM
    name: str
    """Of the task."""
    arm: str
    """What made it (see `arms`)."""
    sample_rate: int
    """Hz, that clips are resampled to before they are scored."""
    channel: Channel = "mean"
    """What is taken of several channels (see `AudioConfig`)."""
    durations: list[float]
    """Seconds of the shortest training clip, of the quartiles, and of the longest."""
    scorer: ScorerFacts
    measured: Measured
    licenses: list[License]
    """Of the teachers from outside that it was made with."""
    lineage: dict[str, Any]
    """The run, its request and settings, the keys of its nodes, code and versions."""

    @property
    def classes(self) -> list[str]:
        """The label map, in the order of probabilities."""
        return self.scorer.classes


def write(folder: Folder, facts: ModelFacts, classifier: Folder, card: str) -> None:
    """Write a model of the first draw of a classifier.

    Args:
        folder: the model's.
        facts: of it; its scorer has one draw.
        classifier: the artifact, local or remote.
        card: Markdown.
    """
    out = folder / CLASSIFIER
    for name in scorers.files(classifier, facts.scorer, repeat=0):
        out.write(name, classifier.read(name))
    out.write_json(scorers.FACTS_FILE, facts.scorer.model_dump(mode="json"))
    folder.write(CARD_FILE, card.encode())
    folder.write_json(MODEL_FILE, facts.model_dump(mode="json"))


def damaged(folder: Folder, what: str) -> ConfigError:
    """One sentence about a model that cannot be loaded."""
    return ConfigError(f"{folder.uri}{what} is damaged; copy the model again from its store.")


def _check_links(place: Path) -> None:
    """Refuse a model of which anything lies elsewhere, or is no file."""
    root = Path(os.path.realpath(place))
    for entry in root.rglob("*"):
        if not Path(os.path.realpath(entry)).is_relative_to(root):
            raise ConfigError(f"{entry} leads out of its model; put the file itself there.")
        if not (entry.is_file() or entry.is_dir()):
            raise ConfigError(f"{entry} is no file; copy the model again from its store.")


def read_facts(folder: Folder) -> ModelFacts:
    """What a model says of itself.

    Raises:
        ConfigError: the folder holds no model, or one of another form, or with a link out of it.
    """
    if folder.local is not None and (folder.local / MODEL_FILE).exists():
        _check_links(folder.local)
    try:
        found = folder.read_json(MODEL_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{folder.uri} is no model: there is no {MODEL_FILE} in it; give the folder that a run"
            " prints, STORE/model/KEY."
        ) from None
    except (ValueError, IsADirectoryError):
        raise damaged(folder, f"/{MODEL_FILE}") from None
    if isinstance(found, dict) and found.get("form") != FORM:
        raise ConfigError(
            f"{folder.uri} has the form {found.get('form')!r} and this version reads {FORM}; take"
            " the version of unfused that wrote it."
        )
    try:
        return ModelFacts.model_validate(found)
    except ValidationError:
        raise damaged(folder, f"/{MODEL_FILE}") from None
