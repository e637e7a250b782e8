"""The small JSON beside a model file: what a person says of it that it does not say itself.

The rule of this file: a key is a fact of `TeacherFacts` under the same name. The same keys may
stand in the metadata of an ONNX file, where the JSON goes before them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unfused.teachers.place import Place
from unfused.teachers.protocol import Level, LogMelFacts, Padding, Pooling

DEFAULT_RATE = 16000
"""Hz, assumed (and told) where nothing states it: what most encoders of sound are trained at."""


def _one_word(pooling: Any) -> Any:
    """mean+max is mean_max."""
    return pooling.replace("+", "_") if isinstance(pooling, str) else pooling


class Description(BaseModel):
    """All keys, each of which may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")] | None = None
    sample_rate: Annotated[int, Field(ge=1000, le=384000)] | None = None
    level: Level | None = None
    window_seconds: Annotated[float, Field(gt=0, le=600)] | None = None
    min_seconds: Annotated[float, Field(gt=0, le=600)] | None = None
    padding: Padding = "both"
    pooling: Annotated[Pooling, BeforeValidator(_one_word)] = "mean_max"
    license: str = ""
    input: str = ""
    output: str = ""
    input_axes: Annotated[str, Field(pattern=r"^B?[TF1]*[ST][TF1]*$")] | None = None
    output_axes: Annotated[str, Field(pattern=r"^B?[TD1]*D[TD1]*$")] | None = None
    log_mel: LogMelFacts | None = None

    @property
    def rate(self) -> int:
        """Hz, stated or assumed."""
        return self.sample_rate or DEFAULT_RATE

    @property
    def assumed(self) -> tuple[str, ...]:
        """What nothing states and numbers depend on most."""
        stated = {"sample_rate": self.sample_rate, "level": self.level}
        return tuple(name for name, value in stated.items() if value is None)


def describe(path: Path, place: Place, metadata: Mapping[str, str] | None = None) -> Description:
    """What is said of a model file: in `FILE.json` (or its name with .json) and its metadata.

    Args:
        path: the model file.
        place: whose SPEC messages name.
        metadata: of the file itself; other keys than a description's are somebody else's.

    Raises:
        ConfigError: the JSON is none, or has a key or value that means nothing.
    """
    said = {key: _value(text) for key, text in (metadata or {}).items() if key in KEYS}
    for beside in (path.with_name(f"{path.name}.json"), path.with_suffix(".json")):
        if beside.is_file():
            said |= _read(beside, place)
            break
    else:
        beside = path
    try:
        return Description.model_validate({k: v for k, v in said.items() if v is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise place.refuse(
            f"{beside.name} says {key}={fault['input']!r} ({fault['msg']}); the keys that it may"
            f" have are {', '.join(KEYS)}."
        ) from None


def _read(path: Path, place: Place) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise place.refuse(f"{path.name} is no JSON object; write one such as {EXAMPLE}.")


def _value(text: str) -> Any:
    """A value of an ONNX file's metadata: JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


KEYS = tuple(Description.model_fields)
EXAMPLE = '{"sample_rate": 16000, "level": "float", "window_seconds": 1.0}'
