"""What scores clips at the end of an arm: one file a kind, one protocol.

The rule of this room: a file here, apart from `protocol`, is a kind and defines `load(folder,
facts)` and `files(folder, repeat)`. One that is fitted without a training loop also has its
settings (`Config`) and `fit(config, clips, labels, ...)`, which the stage `fit` calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfused.audio.samples import Windows
from unfused.config.choices import plugin
from unfused.scorers.protocol import OfDraws, Scorer, ScorerFacts, measured, of_all_draws
from unfused.store import Folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FACTS_FILE = "scorer.json"
"""Where a scorer that is kept by itself says what it is."""


def load(folder: Folder, facts: ScorerFacts) -> Scorer:
    """The scorer that an arm ended in."""
    return plugin("scorers", facts.kind).load(folder, facts)


def given(
    facts: ScorerFacts, waves: Sequence[np.ndarray], device: torch.device
) -> Windows[Tensor] | list[Tensor]:
    """What `Scorer.scores` takes of int16 clips (S,): their windows, or all of each."""
    import torch

    from unfused.models.pooling import on_device

    if facts.cut is None:
        return [torch.from_numpy(wave.copy()).to(device) for wave in waves]
    return on_device(Windows.of([facts.cut.windows(wave) for wave in waves]), device)


def files(folder: Folder, facts: ScorerFacts, repeat: int) -> list[str]:
    """The names of the files that the classifier of one draw needs."""
    return plugin("scorers", facts.kind).files(folder, repeat)


def requirements(folder: Folder, facts: ScorerFacts) -> list[str]:
    """Libraries that the classifier of the first draw needs beside those that all need."""
    found = getattr(plugin("scorers", facts.kind), "requirements", None)
    return found(folder, facts) if found else []


__all__ = [
    "FACTS_FILE",
    "OfDraws",
    "Scorer",
    "ScorerFacts",
    "files",
    "given",
    "load",
    "measured",
    "of_all_draws",
    "requirements",
]
