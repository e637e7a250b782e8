"""Sections of which there are several kinds: each kind is one file of a room of plug-ins.

The rule of this file: a kind's settings are declared where the kind is made, as the class `Config`
above the first import of torch in its file. They are read without the rest, because torch takes
seconds to import and a run whose results are all kept never needs it.
"""

from __future__ import annotations

import importlib
import linecache
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny

from unfused.config.section import ConfigError, Section, Units, Width

NO_KINDS = frozenset({"__init__", "protocol"})
"""Files of a room of plug-ins that are no plug-in."""
FIRST_HEAVY = re.compile(r"^(?:import|from) torch\b", re.MULTILINE)


class Choice(Section):
    """Settings that depend on `kind`, the name of a file in `room`."""

    room: ClassVar[str]
    kind: str

    def __eq__(self, other: object) -> bool:
        # A kind's settings are one class whether its file was read in part or imported.
        same = isinstance(other, Choice) and self.room == other.room
        return same and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.room, self.kind))

    def __reduce__(self) -> Any:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return _restore, (self.room, self.kind, given)


class ObjectiveConfig(Choice):
    """What a pre-training objective may be told; see `unfused.objectives`."""

    room: ClassVar[str] = "objectives"
    hears_features: ClassVar[bool] = False
    """Whether it learns from the features in `teachers.also`."""

    def check(self, num_clips: int) -> None:
        """Refuse what this many clips rule out; most objectives take any number.

        Raises:
            ConfigError: with the remedy.
        """


class ProjectorConfig(ObjectiveConfig):
    """The settings of an objective with a projector."""

    projector_hidden: Units = 2048
    """Hidden width of the projector."""
    projector_dim: Units = 512
    """Output width of the projector."""


class EncoderConfig(Choice):
    """What an encoder may be told; see `unfused.models.encoders`."""

    room: ClassVar[str] = "models.encoders"
    layers: ClassVar[tuple[str, ...]] = ("last",)
    """The layers that can be embedded, shallow ones first; "last" is the clip vector."""
    band_multiple: ClassVar[int] = 1
    """It takes normalised log-mel of a number of bands that is a multiple of this."""
    min_frames: ClassVar[int] = 1
    """And of at least so many frames."""
    embedding_dim: Width
    """Width of the clip vector (d)."""


class ScorerConfig(Choice):
    """What an arm that has no encoder fits to the few labels; see `unfused.scorers`."""

    room: ClassVar[str] = "scorers"


class Inline:
    """Marks a choice whose kind goes by the field's own dotted name, its settings by the parent's.

    As `pretrain.objective=nt_xent pretrain.temperature=0.2`.
    """


def kinds(room: str) -> tuple[str, ...]:
    """The kinds that a room of plug-ins has, sorted."""
    return tuple(sorted({path.stem for path in _folder(room).glob("*.py")} - NO_KINDS))


def _folder(room: str) -> Path:
    return Path(__file__).parents[1].joinpath(*room.split("."))


def plugin(room: str, kind: str) -> Any:
    """The module of one kind.

    Raises:
        ConfigError: there is no such kind.
    """
    _check_kind(room, kind)
    return importlib.import_module(f"unfused.{room}.{kind}")


@cache
def settings(room: str, kind: str) -> type[Any]:
    """The class `Config` of one kind, from the part of its file above the first import of torch.

    Raises:
        ConfigError: there is no such kind.
    """
    _check_kind(room, kind)
    path = _folder(room) / f"{kind}.py"
    head = FIRST_HEAVY.split(path.read_text(), maxsplit=1)[0]
    part, name = ModuleType(f"unfused.{room}.{kind}.settings"), f"{path}#settings"
    # Where pydantic looks up what annotations name, and reads what docstrings say: under a name of
    # its own, for the whole file may be imported as well.
    part.__file__, sys.modules[part.__name__] = name, part
    linecache.cache[name] = (len(head), None, head.splitlines(keepends=True), name)
    exec(compile(head, name, "exec"), vars(part))
    return part.Config


def _check_kind(room: str, kind: str) -> None:
    if kind not in kinds(room):
        raise ConfigError(f"there is no {kind!r}; choose one of {', '.join(kinds(room))}")


def default(base: type[Choice], kind: str) -> Any:
    """A kind's settings as they are unless somebody changes them."""
    return settings(base.room, kind)()


def _restore(room: str, kind: str, given: dict[str, Any]) -> Any:
    return settings(room, kind)(**{"kind": kind, **given})


def _chosen(base: type[Choice]) -> BeforeValidator:
    def choose(value: Any) -> Any:
        if isinstance(value, str):
            return default(base, value)
        if not isinstance(value, dict):
            return value
        return settings(base.room, value["kind"]).model_validate(value)

    return BeforeValidator(choose)


Objective = Annotated[SerializeAsAny[ObjectiveConfig], _chosen(ObjectiveConfig), Inline()]
Encoder = Annotated[SerializeAsAny[EncoderConfig], _chosen(EncoderConfig)]
