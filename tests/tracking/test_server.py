"""A real MLflow server on loopback, which ends in the middle of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracked_runs import (
    SUMMARY,
    a_whole_run,
    look,
    new_database,
    play,
    read_artifact,
    served,
    started,
    stop,
    warnings_of,
)
from unfused import tracking


@pytest.fixture
def server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """A real MLflow server on loopback: its address and its process."""
    with served(new_database(tmp_path_factory), tmp_path) as found:
        yield found


@pytest.mark.slow
def test_a_run_is_tracked_by_a_server_and_outlives_it(server, monkeypatch, caplog, tmp_path):
    address, process = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = tracking.initialise(address)
    whole = tracking.Tracker(uri, "served", "store", name="whole")
    play(whole, a_whole_run())
    client = look(uri)
    experiment = client.get_experiment_by_name("served").experiment_id
    (run,) = client.search_runs([experiment], "tags.kind = 'pipeline'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["unfused.accuracy"] == 0.75
    kept = read_artifact(client, run.info.run_id, "summary.json", tmp_path)
    assert kept["arms"] == SUMMARY["arms"]

    cut_short = tracking.Tracker(uri, "served", "store", name="cut short")
    cut_short(started())
    assert cut_short.describe()["run_id"]
    stop(process)
    play(cut_short, a_whole_run()[1:])
    assert len(warnings_of(caplog)) == 1
