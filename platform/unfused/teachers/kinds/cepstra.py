"""Cepstra as a teacher, aligned in time or by their moments; see `unfused.audio.cepstra`."""

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
FORMS = {"": "cepstra", "centred": "cepstra-centred", "moments": "cepstra-moments"}
"""What follows `cepstra:`, and the teacher's name."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`; there is nothing to find."""
    if rest not in FORMS:
        raise place.refuse(
            "write cepstra, cepstra:centred for those without their mean, or cepstra:moments."
        )
    return outside(place, "cepstra", FORMS[rest], f"{rest or 'plain'} v{VERSION}")


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> PerClip:
    """See `unfused.teachers.load`."""
    from unfused.audio.cepstra import NUM_FEATURES, NUM_MOMENTS, cepstra, front_end, moments

    log_mel, form = front_end(facts.sample_rate), facts.layer.partition(" ")[0]
    if form == "moments":
        return PerClip(partial(moments, log_mel=log_mel), NUM_MOMENTS)
    return PerClip(partial(cepstra, log_mel=log_mel, centred=form == "centred"), NUM_FEATURES)
