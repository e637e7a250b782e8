"""Teachers that nothing has to be learned or loaded for: features of each clip by itself.

Axes: B clips, S samples of a clip, P features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfused.store import Folder
from unfused.teachers.place import Place, teacher_digest
from unfused.teachers.protocol import ANY_RATE, Outside, TeacherFacts

if TYPE_CHECKING:
    from torch import Tensor


def outside(place: Place, kind: str, name: str, layer: str) -> Outside:
    """Such a teacher; `layer` tells its form and version, for there are no bytes to know it by."""
    facts = TeacherFacts(
        kind=kind,
        name=name,
        source=place.spec,
        sample_rate=ANY_RATE,
        pooling="mean",
        layer=layer,
    )
    return Outside(Folder.of(Path(__file__).parent), teacher_digest([], facts), facts)


def of_one_form(rest: str, place: Place, kind: str, version: str) -> Outside:
    """A teacher whose SPEC is its kind alone.

    Raises:
        ConfigError: something follows it.
    """
    if rest:
        raise place.refuse(f"{kind} has no file; write --teacher {kind}.")
    return outside(place, kind, kind, f"v{version}")


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`; there is none."""
    return []


@dataclass(frozen=True)
class PerClip:
    """Features on CPU, where they take a millisecond a clip.

    Attributes:
        of: an int16 clip (S,) to (P,).
        embedding_dim: P.
    """

    of: Callable[[Tensor], Tensor]
    embedding_dim: int

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, to (B, P) float32."""
        import torch

        with torch.inference_mode():
            return torch.stack([self.of(torch.from_numpy(wave.copy())) for wave in waves]).numpy()
