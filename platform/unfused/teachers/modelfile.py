"""What kinds whose model is one file share: its facts, its JSON, and the passes through it.

Axes: W windows, S samples, T frames, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unfused.store import Folder
from unfused.teachers import axes
from unfused.teachers.description import Description
from unfused.teachers.place import Place, slug, teacher_digest
from unfused.teachers.protocol import Outside, TeacherFacts
from unfused.teachers.signature import Call, Shape, Signature
from unfused.teachers.windows import Windowed


def understood(
    kind: str,
    path: Path,
    place: Place,
    said: Description,
    call: Call,
    shape: Shape,
    more: Sequence[Path] = (),
    **known: str,
) -> Outside:
    """A model file as a teacher.

    Args:
        kind: of teacher.
        path: the file.
        place: whose SPEC messages name.
        said: of it.
        call: the model.
        shape: of its input.
        more: files that belong to it.
        known: further facts.

    Raises:
        ConfigError: it cannot be understood.
    """
    facts = TeacherFacts(
        kind=kind,
        name=said.name or slug(path.stem),
        source=place.spec,
        sample_rate=said.rate,
        level=said.level or "float",
        pooling=said.pooling,
        padding=said.padding,
        license=said.license,
        file=path.name,
        assumed=said.assumed,
        **known,
    )
    facts = Signature(call, shape, said, place).understand(facts)
    return Outside(Folder.of(path.parent), teacher_digest([path, *more], facts), facts)


def teacher(facts: TeacherFacts, call: Call, device: str) -> Windowed:
    """A model file that embeds.

    Args:
        facts: as they were understood.
        call: the model.
        device: "cpu" or "cuda".
    """
    assert facts.embedding_dim is not None
    width = facts.embedding_dim // (2 if facts.pooling == "mean_max" else 1)

    def run(windows: list[np.ndarray]) -> Sequence[np.ndarray]:
        size = facts.batch or len(windows)
        found: list[np.ndarray] = []
        for begin in range(0, len(windows), size):
            some = np.stack(windows[begin : begin + size])
            rows = np.pad(some, ((0, size - len(some)), (0, 0)), mode="edge")
            given = call(axes.given(rows, facts))
            found += [*axes.frames(given, facts.output_axes)[: len(some)]]
        return found

    return Windowed(facts, run, width, device)
