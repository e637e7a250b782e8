"""What a person finds in MLflow afterwards, whatever happened on the way."""

from __future__ import annotations

import http.server
import json
import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unfused import tracking
from unfused.config import ConfigError, flatten, override, preset
from unfused.events import (
    EpochDone,
    NodeFailed,
    NodeFinished,
    NodeHit,
    NodeStarted,
    Progress,
    Resumed,
    RunFinished,
    RunStarted,
)

PROVENANCE = {
    "git_commit": "0123456789abcdef",
    "git_dirty": True,
    "code_digest": "c0de",
    "argv": ["pipelines/full.py", "cluster.num_clusters=9", "--task", "my clips"],
    "packages": {"torch": "2.13.0"},
}
CONFIG = override(preset("demo"), {"cluster.num_clusters": 9, "distill.temperature": 2.5})
PART = {"digest": "d" * 64, "shards": [512, 88], "seconds": 571.5, "log_mel_mean": -7.25}
INGEST = {
    "facts": {
        "clips": {"read": 600, "quarantined": 2},
        "parts": {"train": PART, "train.labels": {"digest": "e" * 64, "classes": ["a", "b"]}},
    }
}
SUMMARY = {
    "config": {"cluster.num_clusters": 9},
    "scored_on": "test",
    "labels_per_draw": {"train": 50, "valid": 0},
    "arms": {
        "scratch": {
            "accuracy": {"mean": 0.25, "sd": 0.125, "values": [0.125, 0.375]},
            "macro_f1": {"mean": 0.5, "sd": 0.0, "values": [0.5, 0.5]},
            "classes": ["a", "b"],
            "confusion": [[1, 0], [0, 1]],
        },
        "unfused": {
            "accuracy": {"mean": 0.75, "sd": 0.0625, "values": [0.75]},
            "macro_f1": {"mean": 0.5, "sd": 0.0, "values": [0.5]},
        },
    },
    "pseudo_labels": {"num_clusters": 9, "num_nonempty": 8, "nmi": 0.625},
    "stages": [{"name": "pretrain", "seconds": 3.0}],
    "clips": {"task": {"read": 600, "quarantined": 2}},
}


def look(uri: str) -> Any:
    """MLflow as its users see it; imported late, because that takes seconds."""
    from mlflow import MlflowClient

    return MlflowClient(uri)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [record.getMessage() for record in caplog.records if record.name == tracking.__name__]
    return [text for text in told if not text.startswith("Waiting")]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tracking.initialise(f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db")


@pytest.fixture
def mlflow(database: str, request: pytest.FixtureRequest) -> SimpleNamespace:
    """A database, an experiment of the test's own, and eyes on it."""
    client = look(database)

    def runs(tag_filter: str = "") -> list:
        experiment = client.get_experiment_by_name(request.node.name)
        return client.search_runs([experiment.experiment_id], tag_filter)

    def only(tag_filter: str):
        (run,) = runs(tag_filter)
        return run

    def tracker(**options: str) -> tracking.Tracker:
        return tracking.Tracker(database, request.node.name, "store", **options)

    return SimpleNamespace(
        uri=database, client=client, runs=runs, only=only, tracker=tracker, name=request.node.name
    )


def started() -> RunStarted:
    return RunStarted(flatten(CONFIG), ("ingest/task", "pretrain"), PROVENANCE)


def pretrain_started(key: str = "aaaa") -> NodeStarted:
    config = {"pretrain": {"epochs": 3, "augment": {"time_scale": [0.6, 1.5]}}}
    inputs = {"clips": "ingest/1111:train", "labels": "ingest/1111:train.labels"}
    return NodeStarted("pretrain", "pretrain", key, config, inputs)


def pretrain_finished(key: str = "aaaa") -> NodeFinished:
    numbers = {"loss": 1 / 3, "num_clips": 600, "scores": [0.25, 0.75], "clips": {"C#": 3}}
    facts = {**numbers, "ok": True, "name": "x"}
    return NodeFinished("pretrain", "pretrain", key, 12.5, {"facts": facts})


def ingest_hit() -> NodeHit:
    return NodeHit("ingest/task", "ingest", "1111", INGEST)


def a_whole_run() -> list:
    epochs = [
        EpochDone("pretrain", n, 3, {"loss": 1.0 / n}, 100.0 * n, wait_seconds=n / 2)
        for n in (1, 2, 3)
    ]
    return [
        started(),
        ingest_hit(),
        pretrain_started(),
        Progress("pretrain", 1, 2),
        *epochs,
        pretrain_finished(),
        RunFinished("FINISHED", SUMMARY),
    ]


def play(tracker: tracking.Tracker, happened: list) -> tracking.Tracker:
    for event in happened:
        tracker(event)
    tracker.close()
    return tracker


def read_artifact(client: Any, run_id: str, name: str, tmp_path: Path):
    return json.loads(Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text())


class Test_the_pipeline_run:
    def test_has_every_setting_under_its_dotted_name(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        params = mlflow.only("tags.kind = 'pipeline'").data.params
        assert set(params) == set(flatten(CONFIG))
        assert params["cluster.num_clusters"] == "9"
        assert params["distill.temperature"] == "2.5"
        assert params["pretrain.augment.time_scale"] == "[0.6,1.5]"
        assert params["finetune.label_fraction"] == "none"

    def test_has_every_arms_score_and_the_numbers_of_the_pseudo_labels(self, mlflow, tmp_path):
        play(mlflow.tracker(), a_whole_run())
        run = mlflow.only("tags.kind = 'pipeline'")
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {
            "scratch.accuracy": 0.25,
            "scratch.accuracy_sd": 0.125,
            "scratch.macro_f1": 0.5,
            "scratch.macro_f1_sd": 0.0,
            "unfused.accuracy": 0.75,
            "unfused.accuracy_sd": 0.0625,
            "unfused.macro_f1": 0.5,
            "unfused.macro_f1_sd": 0.0,
            "pseudo_labels.num_clusters": 9,
            "pseudo_labels.num_nonempty": 8,
            "pseudo_labels.nmi": 0.625,
            "labels_per_draw.train": 50,
            "labels_per_draw.valid": 0,
            "clips.task.read": 600,
            "clips.task.quarantined": 2,
        }
        kept = read_artifact(mlflow.client, run.info.run_id, "summary.json", tmp_path)
        assert kept["arms"] == SUMMARY["arms"]
        assert kept["mlflow"]["run_id"] == run.info.run_id

    def test_can_be_chosen_by_a_score_without_looking_at_its_children(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        good = "metrics.`unfused.accuracy` > 0.7 and params.`cluster.num_clusters` = '9'"
        assert mlflow.only(good).data.tags["kind"] == "pipeline"

    def test_says_what_made_it(self, mlflow, tmp_path):
        play(mlflow.tracker(name="first try"), a_whole_run())
        run = mlflow.only("tags.kind = 'pipeline'")
        tags = run.data.tags
        assert run.info.run_name == "first try"
        assert tags["mlflow.source.git.commit"] == "0123456789abcdef"
        assert tags["provenance.git_dirty"] == "True"
        assert tags["provenance.code_digest"] == "c0de"
        assert tags["command"] == "pipelines/full.py cluster.num_clusters=9 --task 'my clips'"
        config = read_artifact(mlflow.client, run.info.run_id, "config.json", tmp_path)
        assert config["distill.temperature"] == 2.5

    def test_names_the_key_of_every_node_and_the_run_that_built_it(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        tags = mlflow.only("tags.kind = 'pipeline'").data.tags
        builder = mlflow.only("tags.kind = 'node'").info.run_id
        assert tags["key.ingest/task"] == "1111"
        assert tags["node.ingest/task"] == "ingest/1111 (hit)"
        assert tags["key.pretrain"] == "aaaa"
        assert tags["node.pretrain"] == "pretrain/aaaa (built)"
        assert tags["built_by.pretrain"] == builder

    def test_lists_the_data_sets_that_it_rests_on(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        found = mlflow.only("tags.kind = 'pipeline' and dataset.name = 'train'").inputs
        assert {d.dataset.name for d in found.dataset_inputs} == {"train", "train.labels"}

    def test_began_when_the_run_did_however_long_mlflow_took_to_load(self, mlflow, monkeypatch):
        opened, gate = tracking._Index.open, threading.Event()
        slow = staticmethod(lambda *a: gate.wait(10) and opened(*a))
        monkeypatch.setattr(tracking._Index, "open", slow)
        tracker = mlflow.tracker()
        now = time.time()
        tracker(started())
        assert time.time() - now < 0.5
        time.sleep(0.5)
        gate.set()
        play(tracker, a_whole_run()[1:])
        began = mlflow.only("tags.kind = 'pipeline'").info.start_time / 1000
        assert abs(began - now) < 0.25


class Test_a_node:
    def test_is_one_level_below_with_its_own_settings(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        parent = mlflow.only("tags.kind = 'pipeline'").info.run_id
        child = mlflow.only(f"tags.`mlflow.parentRunId` = '{parent}'")
        assert child.info.run_name == "pretrain"
        assert child.info.status == "FINISHED"
        assert child.data.params == {
            "pretrain.epochs": "3",
            "pretrain.augment.time_scale": "[0.6,1.5]",
        }

    def test_keeps_its_metrics_by_epoch(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        run_id = mlflow.only("tags.stage = 'pretrain'").info.run_id
        losses = mlflow.client.get_metric_history(run_id, "loss")
        assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]
        speeds = mlflow.client.get_metric_history(run_id, "clips_per_second")
        assert [(m.step, m.value) for m in speeds] == [(1, 100.0), (2, 200.0), (3, 300.0)]
        waits = mlflow.client.get_metric_history(run_id, "wait_seconds")
        assert [m.value for m in waits] == [0.5, 1.0, 1.5]

    def test_keeps_the_numbers_of_its_artifact(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        metrics = mlflow.only("tags.stage = 'pretrain'").data.metrics
        assert metrics["seconds"] == 12.5
        assert metrics["num_clips"] == 600
        assert metrics["scores"] == 0.5
        assert metrics["clips.C_"] == 3
        assert not {"ok", "name"} & set(metrics)

    def test_leads_to_its_artifact_and_to_what_it_was_made_from(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        tags = mlflow.only("tags.stage = 'pretrain'").data.tags
        assert tags["node"] == "pretrain"
        assert tags["key"] == "aaaa"
        assert tags["store"] == f"{Path('store').resolve()}/pretrain/aaaa"
        assert tags["upstream.clips"] == "ingest/1111:train"
        assert tags["upstream.labels"] == "ingest/1111:train.labels"

    def test_has_the_data_that_it_read_as_inputs(self, mlflow):
        from mlflow.data import get_source

        play(mlflow.tracker(), a_whole_run())
        inputs = mlflow.only("tags.stage = 'pretrain'").inputs.dataset_inputs
        (train,) = [found for found in inputs if found.dataset.name == "train"]
        assert train.dataset.digest == "d" * 32
        assert json.loads(train.dataset.profile)["digest"] == "d" * 64
        assert json.loads(train.dataset.profile)["seconds"] == 571.5
        assert get_source(train).uri == f"{Path('store').resolve()}/ingest/1111/train"
        assert [tag.value for tag in train.tags] == ["pretrain"]

    def test_that_resumed_says_after_which_epoch(self, mlflow):
        play(mlflow.tracker(), [started(), pretrain_started(), Resumed("pretrain", 2)])
        assert mlflow.only("tags.stage = 'pretrain'").data.tags["resumed_from_epoch"] == "2"

    def test_that_is_cached_links_to_the_run_that_built_it(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        builder = mlflow.only("tags.kind = 'node'").info.run_id
        again = [NodeHit("seed0/pretrain", "pretrain", "aaaa", {"facts": {}}), ingest_hit()]
        play(mlflow.tracker(name="again"), [started(), *again, RunFinished("FINISHED")])
        tags = mlflow.only("attributes.run_name = 'again'").data.tags
        assert tags["node.seed0/pretrain"] == "pretrain/aaaa (hit)"
        assert tags["built_by.seed0/pretrain"] == builder
        assert tags["built_by.ingest/task"] == ""
        assert len(mlflow.runs("tags.kind = 'node'")) == 1

    def test_that_failed_before_is_not_taken_for_the_builder(self, mlflow):
        failed = [started(), pretrain_started(), NodeFailed("pretrain", "out of memory")]
        play(mlflow.tracker(), failed)
        hit = NodeHit("pretrain", "pretrain", "aaaa", {"facts": {}})
        play(mlflow.tracker(name="again"), [started(), hit])
        assert mlflow.only("attributes.run_name = 'again'").data.tags["built_by.pretrain"] == ""


class Test_a_run_that_does_not_finish:
    def test_and_its_stage_are_marked_as_failed_with_the_reason(self, mlflow):
        stopped = [started(), pretrain_started(), NodeFailed("pretrain", "out of memory")]
        play(mlflow.tracker(), [*stopped, RunFinished("FAILED", None, "out of memory")])
        for run in mlflow.runs():
            assert run.info.status == "FAILED"
            assert run.data.tags["reason"] == "out of memory"

    def test_is_marked_as_killed_where_a_person_interrupts_it(self, mlflow):
        stopped = [started(), pretrain_started(), NodeFailed("pretrain", "KeyboardInterrupt")]
        play(mlflow.tracker(), [*stopped, RunFinished("KILLED")])
        assert [run.info.status for run in mlflow.runs()] == ["KILLED", "KILLED"]

    def test_leaves_no_stage_behind_that_seems_to_run(self, mlflow):
        play(mlflow.tracker(), [started(), pretrain_started(), RunFinished("FAILED", None, "x")])
        assert [run.info.status for run in mlflow.runs()] == ["FAILED", "FAILED"]


def test_the_trials_of_a_search_and_their_nodes_are_one_level_below_it(mlflow):
    search = mlflow.tracker(name="search")
    search(RunStarted({"num_trials": 1}, (), PROVENANCE))
    parent = search.describe()["run_id"]
    play(mlflow.tracker(parent=parent, name="trial 0"), a_whole_run())
    play(search, [RunFinished("FINISHED", {"best": {"accuracy": 0.75}})])
    below = mlflow.runs(f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(run.info.run_name for run in below) == ["pretrain", "trial 0"]
    node, trial = sorted(below, key=lambda run: run.info.run_name)
    assert node.data.tags["pipeline"] == trial.info.run_id
    assert mlflow.only("attributes.run_name = 'search'").data.metrics["best.accuracy"] == 0.75


def test_a_trial_that_was_killed_goes_on_in_its_run_and_one_that_ended_has_it_to_itself(mlflow):
    def tracker(number: int) -> tracking.Tracker:
        return mlflow.tracker(parent="p", name=f"trial {number}", kind="trial")

    play(tracker(0), [started()])
    play(tracker(0), a_whole_run())
    again = mlflow.only("tags.kind = 'trial'")
    assert again.info.status == "FINISHED"
    mlflow.client.set_tag(again.info.run_id, "state", "COMPLETE")
    play(tracker(0), a_whole_run())
    assert len(mlflow.runs("tags.kind = 'trial'")) == 2


def test_a_trial_whose_end_a_kill_kept_from_being_written_is_told_at_the_end_of_its_search(mlflow):
    search = mlflow.tracker(name="search", kind="search")
    search(RunStarted({"num_trials": 2}, (), PROVENANCE))
    parent = search.describe()["run_id"]
    for number in (0, 1):
        trial = mlflow.tracker(parent=parent, name=f"trial {number}", kind="trial")
        trial(started())
        trial.tag({"trial": number})
        trial.close()
    rows = [
        {"number": 0, "state": "COMPLETE", "scores": {"valid_accuracy": 0.5}},
        {"number": 1, "state": "PRUNED"},
    ]
    best = {"number": 0}
    search.end_search({"best": best, "trials": rows, "folder": "store/searches/s"}, {})
    search.close()
    best = mlflow.only("tags.trial = '0'")
    assert best.info.status == "FINISHED" and best.data.metrics["valid_accuracy"] == 0.5
    assert (best.data.tags["state"], best.data.tags["best"]) == ("COMPLETE", "true")
    assert mlflow.only("tags.trial = '1'").info.status == "KILLED"


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
    tracker = tracking.Tracker(uri, "exp", "store")
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


def test_without_a_working_mlflow_describe_is_blank_and_nothing_raises(tmp_path, caplog):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    tracker = tracking.Tracker(tracking.initialise(f"sqlite:///{path}"), "exp", "store")
    tracker(started())
    assert tracker.describe() == {"tracking_uri": "", "experiment_id": "", "run_id": ""}
    play(tracker, a_whole_run()[1:])
    assert len(warnings_of(caplog)) == 1


def test_closing_does_not_wait_for_ever(mlflow, monkeypatch, caplog):
    gate = threading.Event()
    monkeypatch.setattr(tracking._Index, "open", staticmethod(lambda *a: gate.wait(20)))
    tracker = mlflow.tracker()
    began = time.monotonic()
    tracker.close(timeout=0.2)
    gate.set()
    assert time.monotonic() - began < 2
    assert "within 0 s" in caplog.text


def _first_run(uri: str, number: int) -> None:
    tracker = tracking.Tracker(uri, "together", "store", name=f"driver {number}")
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


class Test_the_place_to_track_at:
    def test_is_a_database_in_the_working_directory_by_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert tracking.initialise() == f"sqlite:///{tmp_path}/mlflow.db"
        assert not list(tmp_path.iterdir())

    def test_is_the_environments_unless_the_request_names_one(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/env.db")
        assert tracking.initialise() == f"sqlite:///{tmp_path}/env.db"
        other = f"sqlite:///{tmp_path}/other.db"
        assert tracking.initialise(other) == other

    @pytest.mark.parametrize(
        "uri", ["./mlruns", "file:///tmp/mlruns", "localhost:5000", "htp://host", "sqlite://"]
    )
    def test_must_be_one_that_mlflow_can_write_to(self, uri):
        with pytest.raises(tracking.TrackingError, match="sqlite:///mlflow") as refusal:
            tracking.initialise(uri)
        assert repr(uri) in str(refusal.value)
        assert isinstance(refusal.value, ConfigError)

    def test_is_not_in_a_folder_that_is_missing(self, tmp_path):
        with pytest.raises(tracking.TrackingError, match=r"no folder .*missing"):
            tracking.initialise(f"sqlite:///{tmp_path}/missing/mlflow.db")

    def test_is_not_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "mlflow.db").write_text("This is a letter, not a database.")
        with pytest.raises(tracking.TrackingError, match="not a sqlite database"):
            tracking.initialise(f"sqlite:///{tmp_path}/mlflow.db")

    def test_is_refused_at_once_where_no_server_answers(self):
        began = time.monotonic()
        with pytest.raises(tracking.TrackingError, match="No MLflow server answers"):
            tracking.initialise(f"http://127.0.0.1:{free_port()}")
        assert time.monotonic() - began < 2

    def test_is_refused_where_the_server_is_silent(self, monkeypatch):
        monkeypatch.setattr(tracking, "ANSWER_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(tracking.TrackingError, match="No MLflow server answers"):
                tracking.initialise(uri)

    @pytest.mark.parametrize(
        ("status", "body", "remedy"),
        [(403, b"Invalid Host header", "--allowed-hosts"), (404, b"", "not an MLflow server")],
    )
    def test_is_refused_with_the_remedy_where_the_server_refuses(self, status, body, remedy):
        with answering(status, body) as uri, pytest.raises(tracking.TrackingError, match=remedy):
            tracking.initialise(uri)

    def test_may_ask_for_credentials_that_only_mlflow_knows(self):
        with answering(401, b"") as uri:
            assert tracking.initialise(f"{uri}/") == uri


class answering:
    """A server that gives one answer to everything."""

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture
def server(database: str, tmp_path: Path):
    """A real MLflow server on loopback: its address and its process."""
    port = free_port()
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


def test_the_ui_command_opens_the_database_or_names_the_servers_address():
    command = tracking.ui_command("sqlite:////data/my runs/mlflow.db")
    assert command.endswith("mlflow ui --backend-store-uri 'sqlite:////data/my runs/mlflow.db'")
    assert tracking.ui_command("http://host:5000") == "http://host:5000"
