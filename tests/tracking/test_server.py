"""A real MLflow server on loopback, which ends in the middle of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tracked_runs import (
    SUMMARY,
    a_whole_run,
    free_port,
    look,
    new_database,
    play,
    read_artifact,
    started,
    warnings_of,
)
from unfused import tracking


@pytest.fixture
def server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """A real MLflow server on loopback: its address and its process."""
    port, database = free_port(), new_database(tmp_path_factory)
    artifacts = f"--artifacts-destination={tmp_path / 'served'}"
    where = [f"--backend-store-uri={database}", artifacts, f"--port={port}", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", *where]
    with open(tmp_path / "server.log", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{uri}/health", process)
        yield uri, process
    finally:
        stop(process)


def _wait_for(url: str, process: subprocess.Popen) -> None:
    for _ in range(2400):
        assert process.poll() is None, "the MLflow server ended"
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the MLflow server did not answer within four minutes")


def stop(process: subprocess.Popen) -> None:
    """The server and its workers: they share a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


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
