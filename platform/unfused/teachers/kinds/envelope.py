"""The envelope as a teacher; see `unfused.audio.envelope`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from unfused.store import Folder
from unfused.teachers.features import PerClip, files, of_one_form
from unfused.teachers.place import Place
from unfused.teachers.protocol import Outside, TeacherFacts

if TYPE_CHECKING:
    import torch

__all__ = ["files", "load", "read"]
VERSION = "1"
"""Raise it with any change of the numbers: it stands for the bytes that there are not."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`; there is nothing to find."""
    return of_one_form(rest, place, "envelope", VERSION)


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> PerClip:
    """See `unfused.teachers.load`."""
    from unfused.audio.envelope import WIDTH, envelope, front_end

    rate = facts.sample_rate
    return PerClip(partial(envelope, log_mel=front_end(rate), sample_rate=rate), WIDTH)
