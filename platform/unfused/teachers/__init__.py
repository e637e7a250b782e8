"""Teachers from outside: encoders that somebody else trained, behind one protocol.

The rule of this room: a file of `kinds` is a kind and defines `read(rest, place)`, which finds and
understands a teacher without training or unpickling anything, `files(folder, facts)`, which names
what it is loaded from, and `load(folder, facts, device)`, which makes what embeds. Libraries that
only a kind needs are imported in its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfused.audio.decode import resample
from unfused.audio.samples import INT16_SCALE, Cut, to_int16
from unfused.config import ConfigError, choices
from unfused.store import Folder, Store
from unfused.teachers.place import Place, near
from unfused.teachers.protocol import ANY_RATE, Outside, Teacher, TeacherFacts

if TYPE_CHECKING:
    import torch

ROOM = "teachers.kinds"
WRITTEN = {
    "onnx": "onnx:FILE",
    "torch": "torch:FILE",
    "hf": "hf:NAME or hf:FOLDER",
    "run": "run:KEY",
    "models": "models:/NAME/VERSION",
    "statistics": "statistics",
    "cepstra": "cepstra",
    "periodicity": "periodicity",
    "envelope": "envelope",
}
"""How a SPEC is written; a kind that is not here is written `kind:...`."""
ALIASES = {"run": "encoder", "models": "encoder"}
"""Prefixes that are not the name of their kind."""


def read(
    spec: str,
    store: Store | None = None,
    registered: Callable[[str], Folder] | None = None,
) -> Outside:
    """Find a teacher and understand it, before anything is trained.

    Args:
        spec: as in `--teacher SPEC`.
        store: where `run:KEY` looks.
        registered: the files of `models:/NAME/VERSION`, which only tracking can find.

    Raises:
        ConfigError: there is none, or it cannot be used; one sentence that names the remedy.
    """
    prefix, _, rest = spec.partition(":")
    kind = ALIASES.get(prefix, prefix)
    prefixes = {kind: f"{kind}:..." for kind in choices.kinds(ROOM)} | WRITTEN
    if prefix not in prefixes or prefix == "encoder":
        prefixes.pop("encoder", None)
        raise ConfigError(f"{spec!r} is no teacher; write {', '.join(prefixes.values())}.")
    return choices.plugin(ROOM, kind).read(rest, Place(spec, store, registered))


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Teacher:
    """The teacher, ready to embed on a device."""
    return choices.plugin(ROOM, facts.kind).load(near(folder), facts, device)


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """The names of the files that a teacher is loaded from."""
    return choices.plugin(ROOM, facts.kind).files(folder, facts)


def at_rate(waves: Sequence[np.ndarray], rate: int, facts: TeacherFacts) -> list[np.ndarray]:
    """Int16 clips, (S,) each, at the rate that a teacher takes, resampled as ingest resamples.

    Args:
        waves: the clips.
        rate: theirs, in Hz.
        facts: the teacher's.
    """
    wanted = facts.settled(rate).sample_rate
    if wanted == rate:
        return list(waves)
    return [to_int16(resample(wave * INT16_SCALE, rate, wanted)) for wave in waves]


def own(name: str, rate: int, cut: Cut, layer: str) -> TeacherFacts:
    """What an encoder that a run trained says of itself, when it is taken for a teacher.

    Args:
        name: among the teachers.
        rate: of its clips, in Hz.
        cut: how they are cut into windows.
        layer: that is embedded.
    """
    return TeacherFacts(
        kind="encoder",
        name=name,
        source=name,
        sample_rate=rate,
        window_seconds=cut.num_samples / rate,
        num_crops=cut.num_crops,
        level="int16",
        pooling="mean",
        layer=layer,
        file="encoder",
    )


def check_rate(facts: TeacherFacts, shard_rate: int, recorded_rate: int = 0) -> None:
    """Refuse a teacher that wants more than there is.

    Args:
        facts: its.
        shard_rate: Hz of the ingested clips.
        recorded_rate: Hz of the recordings; 0 where it is not known.

    Raises:
        ConfigError: neither the shards nor the recordings have the teacher's rate.
    """
    if facts.sample_rate > max(shard_rate, recorded_rate):
        have = f"the clips have {shard_rate}"
        if recorded_rate:
            have = f"the recordings have {recorded_rate}"
        raise ConfigError(
            f"The teacher {facts.name} takes {facts.sample_rate} Hz and {have}: set"
            f" audio.sample_rate={facts.sample_rate} to have them resampled upwards, or name"
            " another teacher."
        )


__all__ = [
    "ANY_RATE",
    "Outside",
    "Teacher",
    "TeacherFacts",
    "at_rate",
    "check_rate",
    "files",
    "load",
    "own",
    "read",
]
