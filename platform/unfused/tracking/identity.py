"""What a run is, and how it is found again: by the journals that have told it.

The rule of this file: it looks and writes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unfused.tracking import names
from unfused.tracking.patience import NotYet

JOURNAL = "journal"
"""Tag: the journals that have told a run, the last of them last, and of a node's run the one."""
PROMISED = "journal:"
"""Before the id of a journal, where the run that it tells is not known yet."""
MOST_TELLERS = 100
"""Journals that a run's tag has room for."""


@dataclass(frozen=True)
class Subject:
    """What a run is called, and what it is of; see `Tracker`."""

    name: str | None = None
    kind: str = "pipeline"
    parent: str = ""
    trial: int | None = None
    settings: Sequence[str] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    def title(self, config: Mapping[str, Any]) -> str | None:
        """The run's name, with the settings that tell it from others."""
        return names.titled(self.name, config, self.settings) if self.name else None


@dataclass(frozen=True)
class Teller:
    """What tells an index of a run."""

    journal: str = ""
    """Its id."""
    again: bool = False
    """Whether some of it may have been told before."""
    live: bool = True
    """Whether the run goes on."""


def run_of(client: Any, experiment: str, journal: str, kind: str) -> Any:
    """The run of a kind that a journal tells; None where there is none."""
    told_by = f"tags.{JOURNAL} LIKE '%{journal}%' and tags.kind = '{kind}'"
    found = client.search_runs([experiment], told_by, max_results=1)
    return found[0] if found else None


def find_parent(client: Any, experiment: str, subject: Subject, teller: Teller) -> str:
    """The run of the search that a trial is of; empty where there is none.

    Raises:
        NotYet: it is promised.
    """
    promised = subject.parent.removeprefix(PROMISED)
    if promised == subject.parent:
        return promised
    if found := run_of(client, experiment, promised, "search"):
        return str(found.info.run_id)
    if teller.live:
        raise NotYet("the run of the search is not there yet")
    return ""


def is_open(trial: Any, subject: Subject, teller: Teller) -> bool:
    """Whether the run of a trial may be gone on with: nothing has ended it, or its search has made
    it for want of what is told now."""
    stands_in = PROMISED + " ".join(tellers_of(trial)) == subject.parent
    return "state" not in trial.data.tags or (stands_in and not teller.live)


def is_lost(client: Any, run: str) -> bool:
    """Whether MLflow no longer has a run that it once had."""
    from mlflow import MlflowException

    try:
        return bool(run) and not client.get_run(run)
    except MlflowException as error:
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def tellers_of(run: Any) -> list[str]:
    """The journals that have told a run."""
    return str(run.data.tags.get(JOURNAL, "")).split()


def provenance_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as tags, under MLflow's own names where it has them."""
    argv = [str(word) for word in record.get("argv", [])]
    tags = {f"provenance.{k}": str(v) for k, v in record.items() if isinstance(v, str | bool)}
    tags["command"] = shlex.join(argv)
    tags["mlflow.source.name"] = argv[0] if argv else "unfused"
    if record.get("git_commit"):
        tags["mlflow.source.git.commit"] = str(record["git_commit"])
    return tags
