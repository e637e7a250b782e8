"""How a search ends in MLflow: its best trial, its tables and pictures, and what a kill left open.

The rule of this file: every trial that ended has a run that says how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unfused.tracking import names
from unfused.tracking.index import Index

ENDED = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's states of a trial, as MLflow says them."""


def end(index: Index, result: Mapping[str, Any], files: Mapping[str, bytes], at: int) -> None:
    """Tag the best trial's run, and keep the tables and pictures.

    Args:
        index: of the search.
        result: see `Tracker.end_search`.
        files: name -> content.
        at: when it ended (milliseconds since 1970).
    """
    if not index.run:
        return
    _settle_trials(index, result["trials"], at)
    client, experiments = index.client, [index.experiment_id]
    best = result["best"]["number"]
    mine = f"tags.`mlflow.parentRunId` = '{index.run}' and tags."
    for other in client.search_runs(experiments, f"{mine}best = 'true'"):
        client.delete_tag(other.info.run_id, "best")
    newest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
    for run in client.search_runs(experiments, f"{mine}trial = '{best}'", **newest):
        index.set_tags(run.info.run_id, {"best": "true"})
    index.set_tags(index.run, {"best_trial": best, "results": result["folder"]})
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            Path(scratch, name).write_bytes(data)
        client.log_artifacts(index.run, scratch)


def _settle_trials(index: Index, trials: Sequence[Mapping[str, Any]], at: int) -> None:
    """Write how trials ended, where a kill came before that was written."""
    mine = f"tags.`mlflow.parentRunId` = '{index.run}' and tags.kind = 'trial'"
    oldest_first = {"order_by": ["attributes.start_time ASC"]}
    found = index.client.search_runs([index.experiment_id], mine, **oldest_first)
    newest = {run.data.tags.get("trial"): run for run in found}
    for trial in trials:
        found = newest.get(str(trial["number"]))
        if found is None or "state" not in found.data.tags:
            run = found.info.run_id if found else _run_of_trial(index, trial, at)
            index.log_metrics(run, trial.get("scores", {}), at)
            index.client.set_terminated(run, ENDED[trial["state"]], at)
            index.set_tags(run, {"state": trial["state"]})


def _run_of_trial(index: Index, trial: Mapping[str, Any], at: int) -> str:
    """A run for a trial that has none, with the params that the search chose."""
    number, changes = trial["number"], trial["changes"]
    tags = {"kind": "trial", "store": index.store, "trial": str(number)}
    tags["mlflow.parentRunId"] = index.run
    name = names.titled(f"{index.subject.name} {number}", changes, changes)
    run = index.create_run(at, tags, name)
    index.log_params(run, changes)
    return run
