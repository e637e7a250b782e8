"""Log-mel statistics: see `unfused.teachers.kinds.statistics`."""

from __future__ import annotations

from unfused.exporting.kinds.floor import Statistics
from unfused.store import Folder
from unfused.teachers import TeacherFacts


def module(folder: Folder, facts: TeacherFacts, sample_rate: int) -> Statistics:
    """See `unfused.exporting.teachers`."""
    return Statistics(sample_rate)
