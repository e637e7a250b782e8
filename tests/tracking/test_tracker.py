"""A tracker holds up no run, whatever happens to MLflow."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tracked_runs import (
    a_whole_run,
    look,
    play,
    read_artifact,
    started,
    warnings_of,
)
from unfused import tracking
from unfused.events import (
    RunFinished,
)
from unfused.tracking.index import Index


def test_describe_tells_where_to_find_the_run(mlflow):
    tracker = mlflow.tracker()
    tracker(started())
    found = tracker.describe()
    tracker.close()
    assert found["tracking_uri"] == mlflow.uri
    run = mlflow.client.get_run(found["run_id"])
    assert run.info.experiment_id == found["experiment_id"]


def test_a_summary_is_kept_as_it_was_when_the_run_ended(mlflow, tmp_path):
    summary = {"arms": {}, "best": 1.0}
    tracker = mlflow.tracker()
    for event in (started(), RunFinished("FINISHED", summary)):
        tracker(event)
    summary["best"] = 2.0
    tracker.close()
    run_id = mlflow.only("").info.run_id
    assert read_artifact(mlflow.client, run_id, "summary.json", tmp_path)["best"] == 1.0


def test_a_broken_database_costs_one_warning_and_the_run_goes_on(tmp_path, caplog, database):
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    uri = tracking.initialise(f"sqlite:///{copy}")
    tracker = tracking.Tracker(uri, "exp", str(tmp_path / "store"))
    tracker(started())
    before = tracker.describe()["run_id"]
    with sqlite3.connect(copy) as connection:
        connection.execute("DROP TABLE metrics")
    with caplog.at_level(logging.WARNING, "unfused.tracking"):
        play(tracker, a_whole_run()[1:])
    (warning,) = warnings_of(caplog)
    assert str(copy) in warning
    run = look(uri).get_run(before)
    assert run.info.status == "RUNNING"
    assert run.data.tags["key.pretrain"] == "aaaa"


def test_without_a_working_mlflow_describe_is_blank_and_nothing_raises(
    mlflow, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("unfused.tracking.index.quiet_client", _refused)
    tracker = mlflow.tracker()
    tracker(started())
    assert tracker.describe() == {"tracking_uri": "", "experiment_id": "", "run_id": ""}
    play(tracker, a_whole_run()[1:])
    (warning,) = warnings_of(caplog)
    assert "out-of-date" in warning and f"unfused sync --store {tmp_path}/store" in warning


def _refused(uri: str) -> None:
    raise ValueError("out-of-date database schema")


def test_closing_does_not_wait_for_ever(mlflow, monkeypatch, caplog):
    gate = threading.Event()
    monkeypatch.setattr(Index, "open", staticmethod(lambda *a: gate.wait(20)))
    tracker = mlflow.tracker()
    began = time.monotonic()
    tracker.close(timeout=0.2)
    gate.set()
    assert time.monotonic() - began < 2
    assert "within 0 s" in caplog.text


def _first_run(uri: str, number: int) -> None:
    store = uri.removeprefix("sqlite:///").replace("mlflow.db", "store")
    tracker = tracking.Tracker(uri, "together", store, name=f"driver {number}")
    for event in a_whole_run():
        tracker(event)
    tracker.close(timeout=200)


@pytest.mark.slow
def test_drivers_that_start_at_once_share_a_fresh_database(tmp_path):
    uri = tracking.initialise(f"sqlite:///{tmp_path}/mlflow.db")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "unfused.tracking"])
    drivers = [context.Process(target=_first_run, args=(uri, n)) for n in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(240)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    client = look(uri)
    experiment = client.get_experiment_by_name("together")
    pipelines = client.search_runs([experiment.experiment_id], "tags.kind = 'pipeline'")
    assert sorted(run.info.run_name for run in pipelines) == ["driver 0", "driver 1"]
    assert {run.info.status for run in pipelines} == {"FINISHED"}
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()
