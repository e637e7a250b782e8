"""What a section of settings is: frozen, typed, and the home of its identity.

The rule of this file: identity survives growth. A setting that is added later declares with `OffAt`
the value at which it does nothing, and is no part of the identity there: what was built before it
existed is still found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from unfused.secrets import hidden

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
"""Of a loss or a penalty; beyond it nothing else is heard."""
Rate = Annotated[float, Field(gt=0.0, le=100.0)]
"""Of learning: beyond it no optimiser stays finite."""
Temperature = Annotated[float, Field(ge=0.01, le=1000.0)]
"""Below it the softmax of float32 logits overflows, above it all is alike."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Batch = Annotated[int, Field(ge=2, le=65536)]
"""Clips of one optimiser step."""
Together = Annotated[int, Field(ge=1, le=65536)]
"""Clips that are handled at once."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""What every library that draws takes."""
Scale = Annotated[float, Field(ge=0.05, le=10.0)]
Range = tuple[Scale, Scale]
Width = Annotated[int, Field(ge=8, le=16384)]
Units = Annotated[int, Field(ge=1, le=16384)]


class ConfigError(ValueError):
    """The request is wrong; the message is one sentence that names the remedy and holds no
    secret."""

    def __init__(self, message: object = "") -> None:
        super().__init__(hidden(str(message)))


@dataclass(frozen=True)
class OffAt:
    """Marks a setting that was added later: at this value all is as it was without it.

    As in `new_weight: Annotated[Weight, OffAt(0.0)] = 0.0`.
    """

    value: Any


class Section(BaseModel):
    """A frozen group of settings; a stage's identity is the hash of the sections it reads."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def fields(self) -> Iterator[tuple[str, FieldInfo, Any]]:
        """Name, declaration and value of every setting, in order of declaration."""
        for name, field in type(self).model_fields.items():
            yield name, field, getattr(self, name)

    def identity(self) -> dict[str, Any]:
        """The settings as JSON values, without those that are off (see `OffAt`)."""
        dumped = self.model_dump(mode="json")
        return {
            name: value.identity() if isinstance(value, Section) else dumped[name]
            for name, field, value in self.fields()
            if not any(isinstance(m, OffAt) and m.value == value for m in field.metadata)
        }
