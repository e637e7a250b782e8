"""A real MLflow server on loopback, which ends in the middle of a run, and comes back."""

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
    stop,
    warnings_of,
)
from unfused import tracking


@pytest.mark.slow
def test_a_run_is_tracked_by_a_server_and_none_of_it_is_lost_with_it(
    caplog, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    database, store = new_database(tmp_path_factory), str(tmp_path / "store")
    happened = a_whole_run()
    with served(database, tmp_path) as (address, process):
        uri = tracking.initialise(address)
        play(tracking.Tracker(uri, "served", store, name="whole"), happened)
        client = look(uri)
        experiment = client.get_experiment_by_name("served").experiment_id
        (run,) = client.search_runs([experiment], "tags.kind = 'pipeline'")
        assert run.info.status == "FINISHED"
        assert run.data.metrics["unfused.accuracy"] == 0.75
        kept = read_artifact(client, run.info.run_id, "summary.json", tmp_path)
        assert kept["arms"] == SUMMARY["arms"]
        cut_short = tracking.Tracker(uri, "served", store, name="cut short")
        for event in happened[:4]:
            cut_short(event)
        assert cut_short.describe()["run_id"]
        stop(process)
    for event in happened[4:6]:
        cut_short(event)
    with served(database, tmp_path, int(address.rpartition(":")[2])):
        play(cut_short, happened[6:])
        (run,) = client.search_runs([experiment], "attributes.run_name = 'cut short'")
        below = f"tags.pipeline = '{run.info.run_id}'"
        (node,) = client.search_runs([experiment], below)
        epochs = client.get_metric_history(node.info.run_id, "loss")
        assert [epoch.step for epoch in epochs] == [1, 2, 3]
        assert (run.info.status, node.info.status) == ("FINISHED", "FINISHED")
    assert warnings_of(caplog) == []
    assert not list(Path(store).rglob("*"))
