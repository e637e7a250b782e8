"""The pools of teachers, which cannot be exported: see `unfused.scorers.probes`."""

from __future__ import annotations

from typing import NoReturn

from unfused.config import ConfigError
from unfused.scorers import ScorerFacts
from unfused.store import Folder


def module(folder: Folder, facts: ScorerFacts, sample_rate: int) -> NoReturn:
    """See `unfused.exporting`; there is none.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "The arms probe and mixture ask several teachers, files of others among them, and thousands"
        " of neighbours, which one file does not hold; export their student, the arm selftrain of"
        " the same run."
    )
