"""Log-mel statistics as a teacher: nothing is learned, and it costs nothing.

Axes: B clips, S samples of a clip, P statistics.
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
WIDTH = 360
"""P, as `unfused.audio.statistics` has it; said here because that imports torch."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`; there is nothing to find."""
    if rest:
        raise place.refuse("log-mel statistics have no file; write --teacher statistics.")
    facts = TeacherFacts(
        kind="statistics",
        name="statistics",
        source=place.spec,
        sample_rate=ANY_RATE,
        pooling="mean",
        layer=f"v{VERSION}",
        embedding_dim=WIDTH,
    )
    return Outside(Folder.of(Path(__file__).parent), teacher_digest([], facts), facts)


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`; there is none."""
    return []


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Statistics:
    """See `unfused.teachers.load`; it stays on CPU, where it takes a millisecond a clip."""
    return Statistics(facts.sample_rate)


@dataclass(frozen=True)
class Statistics:
    """See `unfused.audio.statistics`."""

    sample_rate: int
    embedding_dim: int = WIDTH

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, to (B, P) float32."""
        import torch

        from unfused.audio.statistics import front_end, statistics

        log_mel = front_end(self.sample_rate)
        with torch.inference_mode():
            rows = [statistics(torch.from_numpy(wave.copy()), log_mel) for wave in waves]
        return torch.stack(rows).numpy()
