"""Cepstra aligned in time as a teacher: nothing is learned, and it costs nothing.

Axes: B clips, S samples of a clip, P features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfused.store import Folder
from unfused.teachers.place import Place, teacher_digest
from unfused.teachers.protocol import ANY_RATE, Outside, TeacherFacts

if TYPE_CHECKING:
    import torch

VERSION = "1"
"""Raise it with any change of the numbers: it stands for the bytes that there are not."""
WIDTH = 8 * 13 + 1
FORMS = ("plain", "centred")


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`; there is nothing to find."""
    form = rest or FORMS[0]
    if form not in FORMS:
        raise place.refuse("write cepstra, or cepstra:centred for those without their mean.")
    facts = TeacherFacts(
        kind="cepstra",
        name="cepstra" if form == FORMS[0] else f"cepstra-{form}",
        source=place.spec,
        sample_rate=ANY_RATE,
        pooling="mean",
        layer=f"{form} v{VERSION}",
        embedding_dim=WIDTH,
    )
    return Outside(Folder.of(Path(__file__).parent), teacher_digest([], facts), facts)


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`; there is none."""
    return []


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Cepstra:
    """See `unfused.teachers.load`; it stays on CPU, where it takes a millisecond a clip."""
    return Cepstra(facts.sample_rate, facts.layer.startswith("centred"))


@dataclass(frozen=True)
class Cepstra:
    """See `unfused.audio.cepstra`."""

    sample_rate: int
    centred: bool
    embedding_dim: int = WIDTH

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, to (B, P) float32."""
        import torch

        from unfused.audio.cepstra import cepstra, front_end

        log_mel = front_end(self.sample_rate)
        with torch.inference_mode():
            rows = [
                cepstra(torch.from_numpy(wave.copy()), log_mel, centred=self.centred)
                for wave in waves
            ]
        return torch.stack(rows).numpy()
