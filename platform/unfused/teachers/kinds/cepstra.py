"""Cepstra aligned in time as a teacher; see `unfused.audio.cepstra`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from unfused.store import Folder
from unfused.teachers.features import PerClip, files, outside
from unfused.teachers.place import Place
from unfused.teachers.protocol import Outside, TeacherFacts

if TYPE_CHECKING:
    import torch

__all__ = ["files", "load", "read"]
VERSION = "1"
"""Raise it with any change of the numbers: it stands for the bytes that there are not."""
FORMS = {"": "cepstra", "centred": "cepstra-centred"}
"""What follows `cepstra:`, and the teacher's name."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`; there is nothing to find."""
    if rest not in FORMS:
        raise place.refuse("write cepstra, or cepstra:centred for those without their mean.")
    return outside(place, "cepstra", FORMS[rest], f"{rest or 'plain'} v{VERSION}")


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> PerClip:
    """See `unfused.teachers.load`."""
    from unfused.audio.cepstra import NUM_FEATURES, cepstra, front_end

    centred = facts.layer.startswith("centred")
    of = partial(cepstra, log_mel=front_end(facts.sample_rate), centred=centred)
    return PerClip(of, NUM_FEATURES)
