"""Whatever MLflow does, a run is recorded once: while it goes on, by the next one, or by `sync`."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from small_classifier import model_facts, random_classifier, write_model
from tracked_runs import (
    PROVENANCE,
    a_whole_run,
    eyes_on,
    free_port,
    play,
    started,
    warnings_of,
)
from unfused import tracking
from unfused.commands.sync import NotSent, sync
from unfused.events import RunFinished, RunStarted
from unfused.store import Folder
from unfused.tracking import patience, place

DIES = """
import sys, time
from tracked_runs import a_whole_run
from unfused import tracking
tracker = tracking.Tracker(sys.argv[1], sys.argv[2], "store", name="dies")
for event in a_whole_run()[:6]:
    tracker(event)
print(tracker.describe()["run_id"], flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that does not wait for an MLflow that is away."""
    monkeypatch.setattr("unfused.tracking.tracker.PATIENT_SECONDS", 0.1)
    monkeypatch.setattr("unfused.tracking.tracker.LAST_SECONDS", 0.1)


@pytest.fixture
def model(tmp_path: Path) -> tracking.Classifier:
    """A model in the store, as a run leaves it."""
    made = random_classifier(Folder.of(tmp_path / "store" / "finetune" / "feedface"))
    folder = write_model(Folder.of(tmp_path / "store" / "model" / "decade"), made)
    return tracking.Classifier(folder, model_facts(), "clips")


def epochs(mlflow: SimpleNamespace, node: Any) -> list[tuple[int, float]]:
    """Step and value of every loss that the run of a node has, but for that of its artifact."""
    history = mlflow.client.get_metric_history(node.info.run_id, "loss")
    return [(metric.step, metric.value) for metric in history if metric.step]


def recorded_once(mlflow: SimpleNamespace) -> None:
    run, node = mlflow.only("tags.kind = 'pipeline'"), mlflow.only("tags.kind = 'node'")
    assert (run.info.status, node.info.status) == ("FINISHED", "FINISHED")
    assert epochs(mlflow, node) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.data.metrics["unfused.accuracy"] == 0.75


def test_a_server_that_never_answers_costs_one_warning_and_sync_records_all_elsewhere(
    mlflow, model, impatient, caplog, tmp_path
):
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.time()
    tracker = tracking.Tracker(uri, mlflow.name, "store", name="unheard")
    for event in a_whole_run():
        tracker(event)
    assert tracker.describe()["run_id"] == ""
    tracker.register(model, mlflow.name)
    tracker.close()
    ended = time.time()
    (warning,) = warnings_of(caplog)
    assert f"unfused sync --store {tmp_path}/store" in warning and uri in warning
    (tmp_path / "store").rename(tmp_path / "moved")
    sync("moved", mlflow.uri)
    recorded_once(mlflow)
    run = mlflow.only("tags.kind = 'pipeline'")
    assert began * 1000 - 1 <= run.info.start_time <= run.info.end_time <= ended * 1000
    (version,) = mlflow.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert "champion" in version.description
    assert not list((tmp_path / "moved").rglob("*.jsonl"))


def test_sync_says_what_it_did_and_that_there_is_nothing_to_do(
    mlflow, impatient, monkeypatch, capsys
):
    monkeypatch.setattr("unfused.commands.sync.WAIT_SECONDS", 0.1)
    tracker = tracking.Tracker(f"http://127.0.0.1:{free_port()}", mlflow.name, "store", name="one")
    play(tracker, a_whole_run())
    with pytest.raises(NotSent, match="No MLflow server answers"):
        sync("store", None)
    sync("store", mlflow.uri)
    sync("store", mlflow.uri)
    told = capsys.readouterr().out
    assert "sent       one, of " in told and "Nothing waits to be sent" in told
    recorded_once(mlflow)


@pytest.mark.parametrize("line", [b"7", b"[]", b'{"event": "RunStarted"}', b'{"at": null}'])
def test_a_garbled_journal_keeps_up_no_other(mlflow, impatient, line):
    nowhere = f"http://127.0.0.1:{free_port()}"
    left = tracking.Tracker(nowhere, mlflow.name, "store", name="garbled")
    play(left, a_whole_run())
    head, _, rest = left._journal.path.read_bytes().partition(b"\n")
    left._journal.path.write_bytes(b"\n".join((head, line, rest)))
    play(tracking.Tracker(nowhere, mlflow.name, "store", name="whole"), a_whole_run())
    sync("store", mlflow.uri)
    assert mlflow.only("attributes.run_name = 'whole'").info.status == "FINISHED"


def test_a_journal_whose_place_is_gone_stays_and_keeps_up_no_other(
    mlflow, tmp_path, impatient, capsys
):
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("gone", "whole"):
        left = tracking.Tracker(nowhere, mlflow.name, "store", name=name)
        play(left, a_whole_run())
        meant = {"gone": f"sqlite:///{tmp_path}/gone/mlflow.db", "whole": mlflow.uri}[name]
        journal = left._journal.path
        journal.write_text(journal.read_text().replace(nowhere, meant))
    with pytest.raises(NotSent, match="1 of 2 runs could not be sent"):
        sync("store", None)
    assert mlflow.only("attributes.run_name = 'whole'").info.status == "FINISHED"
    assert "there is no folder" in capsys.readouterr().out
    sync("store", mlflow.uri)
    assert mlflow.only("attributes.run_name = 'gone'").info.status == "FINISHED"


def test_a_database_that_is_locked_for_the_whole_run_is_told_afterwards(
    mlflow, caplog, tmp_path
):
    play(mlflow.tracker(name="before"), [started(), RunFinished("FINISHED")])
    caplog.clear()
    with sqlite3.connect(mlflow.uri.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracker = mlflow.tracker(name="locked out")
        for event in a_whole_run():
            tracker(event)
        tracker.close(timeout=0.5)
        other.execute("ROLLBACK")
    other.close()
    (warning,) = warnings_of(caplog)
    assert "has not taken all of this run" in warning
    tracker._thread.join(30)
    play(mlflow.tracker(name="the next"), [started(), RunFinished("FINISHED")])
    (late,) = mlflow.runs("attributes.run_name = 'locked out'")
    (node,) = mlflow.runs(f"tags.pipeline = '{late.info.run_id}'")
    assert epochs(mlflow, node) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert {run.info.status for run in mlflow.runs()} == {"FINISHED"}
    assert not list((tmp_path / "store").rglob("*"))


class Deaf:
    """MLflow's client, whose every call comes through and is answered with a lost connection, the
    first time."""

    def __init__(self, client: Any) -> None:
        self._client, self._heard = client, True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            result = getattr(self._client, name)(*given, **named)
            self._heard = not self._heard
            if not self._heard:
                raise ConnectionResetError("the answer is lost")
            return result

        return call


def test_a_call_that_came_through_unheard_is_not_made_twice(mlflow, model, monkeypatch, caplog):
    class DeafIndex(tracking.tracker.Index):
        def __init__(self, client: Any, *rest: Any) -> None:
            client.plain = Deaf(client.plain)
            super().__init__(client, *rest)

    monkeypatch.setattr("unfused.tracking.tracker.Index", DeafIndex)
    tracker = mlflow.tracker(name="whole")
    for event in a_whole_run():
        tracker(event)
    tracker.register(model, mlflow.name)
    tracker.close()
    assert warnings_of(caplog) == []
    recorded_once(mlflow)
    run = mlflow.only("tags.kind = 'pipeline'")
    assert len(run.outputs.model_outputs) == 1
    (version,) = mlflow.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert version.description.count("champion") == 1


def test_a_run_that_mlflow_has_lost_is_recorded_anew(mlflow):
    tracker, happened = mlflow.tracker(), a_whole_run()
    for event in happened[:4]:
        tracker(event)
    run = tracker.describe()["run_id"]
    with sqlite3.connect(mlflow.uri.removeprefix("sqlite:///"), timeout=30) as database:
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run])
    play(tracker, happened[4:])
    assert mlflow.only("tags.kind = 'pipeline'").info.run_id != run
    assert mlflow.only("tags.kind = 'pipeline'").info.status == "FINISHED"


@pytest.mark.slow
def test_a_run_that_was_killed_is_closed_by_the_next_one(mlflow, tmp_path, caplog):
    command = [sys.executable, "-c", DIES, mlflow.uri, mlflow.name]
    tests = Path(__file__).parents[1]
    source = {"PYTHONPATH": f"{tests.parent / 'platform'}:{tests}"}
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **source}
    )
    assert driver.stdout and driver.stdout.readline().strip()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert {run.info.status for run in mlflow.runs()} == {"RUNNING"}
    play(mlflow.tracker(name="the next"), [started(), RunFinished("FINISHED")])
    dead = mlflow.only("attributes.run_name = 'dies'")
    node = mlflow.only("tags.kind = 'node'")
    assert (dead.info.status, node.info.status) == ("KILLED", "KILLED")
    assert dead.info.end_time < mlflow.only("attributes.run_name = 'the next'").info.start_time
    assert epochs(mlflow, node) == [(1, 1.0), (2, 0.5)]
    assert warnings_of(caplog) == []
    assert not list((tmp_path / "store").rglob("*"))


def test_a_trial_is_below_its_search_however_late_that_is_recorded(mlflow):
    search = mlflow.tracker(name="search", kind="search")
    trial = mlflow.tracker(parent=search.promise, name="trial 0", kind="trial", trial=0)
    for event in a_whole_run():
        trial(event)
    time.sleep(0.3)
    assert not mlflow.runs()
    search(RunStarted({"num_trials": 1}, (), PROVENANCE))
    trial.close()
    play(search, [RunFinished("FINISHED")])
    parent = mlflow.only("tags.kind = 'search'").info.run_id
    below = mlflow.runs(f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(run.info.run_name for run in below) == ["pretrain", "trial 0"]


def test_a_search_and_its_trials_that_nobody_heard_of_are_nested_afterwards(
    mlflow, impatient, caplog
):
    nowhere = f"http://127.0.0.1:{free_port()}"
    search = tracking.Tracker(nowhere, mlflow.name, "store", name="search", kind="search")
    search(RunStarted({"num_trials": 1}, (), PROVENANCE))
    of = {"parent": search.promise, "kind": "trial", "trial": 0}
    play(tracking.Tracker(nowhere, mlflow.name, "store", name="trial 0", **of), a_whole_run())
    rows = [{"number": 0, "state": "COMPLETE", "scores": {"valid_accuracy": 0.5}, "changes": {}}]
    search(RunFinished("FINISHED"))
    result = {"best": {"number": 0}, "trials": rows, "folder": "store/searches/s"}
    search.end_search(result, {"picture.png": b"\x89PNG"})
    search.close()
    assert len(warnings_of(caplog)) == 1
    sync("store", mlflow.uri)
    parent = mlflow.only("tags.kind = 'search'").info.run_id
    trial = mlflow.only(f"tags.kind = 'trial' and tags.`mlflow.parentRunId` = '{parent}'")
    assert (trial.info.status, trial.data.tags["state"]) == ("FINISHED", "COMPLETE")
    kept = [file.path for file in mlflow.client.list_artifacts(parent)]
    assert kept == ["config.json", "picture.png"]


def test_a_search_that_was_taken_up_by_a_later_process_is_not_ended_by_what_the_first_left(
    mlflow, impatient
):
    nowhere = f"http://127.0.0.1:{free_port()}"
    begun = RunStarted({"num_trials": 1}, (), PROVENANCE)
    play(tracking.Tracker(nowhere, mlflow.name, "store", name="s", kind="search"), [begun])
    play(mlflow.tracker(name="s", kind="search"), [begun, RunFinished("FINISHED")])
    sync("store", mlflow.uri)
    states = sorted(run.info.status for run in mlflow.runs("tags.kind = 'search'"))
    assert "FINISHED" in states and "RUNNING" not in states


GARBAGE = b"SQLite format 3\0" + b"rubbish" * 1000
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda whole: whole[: len(whole) // 2],
    "garbage": lambda whole: GARBAGE,
    "other": lambda whole: b"This is a letter.",
    "zeros": lambda whole: whole[:8192] + bytes(len(whole) - 8192),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_set_aside_with_what_belongs_to_it(
    mlflow, damage, tmp_path, caplog
):
    file, beside = tmp_path / "mlflow.db", tmp_path / "mlflow.db-journal"
    play(mlflow.tracker(), [started(), RunFinished("FINISHED")])
    harmed = DAMAGE[damage](Path(mlflow.uri.removeprefix("sqlite:///")).read_bytes())
    file.write_bytes(harmed)
    beside.write_bytes(b"of the damaged one")
    place.set_aside(tracking.initialise(f"sqlite:///{file}"))
    (warning,) = warnings_of(caplog)
    assert "damaged" in warning and str(file) in warning
    assert not file.exists() and not beside.exists()
    (aside,) = tmp_path.glob("mlflow.db.damaged-*[0-9]")
    assert aside.read_bytes() == harmed


def test_a_run_that_finds_its_database_damaged_is_recorded_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(GARBAGE)
    uri = tracking.initialise(f"sqlite:///{tmp_path}/mlflow.db")
    play(tracking.Tracker(uri, "anew", "store"), a_whole_run())
    assert len(warnings_of(caplog)) == 1
    recorded_once(eyes_on(uri, "anew"))


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed = (
        "import os, time; from mlflow.store.db import utils; from unfused import tracking;"
        " utils._upgrade_db = lambda _: os._exit(9);"
        f" tracking.Tracker({uri!r}, 'one', {str(tmp_path / 'store')!r}); time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == 9
    assert (tmp_path / ".mlflow.db.new").exists() and not (tmp_path / "mlflow.db").exists()
    shutil.rmtree(tmp_path / "store")
    place.make_database(uri)
    assert not (tmp_path / ".mlflow.db.new").exists()
    client = place.quiet_client(uri)
    assert client.get_experiment(client.create_experiment("one")).name == "one"
    place.make_database(uri)
    assert client.get_experiment_by_name("one")


@pytest.fixture
def of_version(mlflow, tmp_path) -> Callable[[str], Path]:
    """Makes a database that MLflow has migrated to a version, or to none yet: a statement."""

    def make(statement: str) -> Path:
        play(mlflow.tracker(), [started(), RunFinished("FINISHED")])
        file = shutil.copy(mlflow.uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
        with sqlite3.connect(file) as database:
            database.execute(statement)
        database.close()
        return Path(file)

    return make


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
def test_a_database_that_another_program_was_killed_making_is_set_aside(
    of_version, statement, tmp_path, monkeypatch, caplog
):
    file = of_version(statement)
    uri = tracking.initialise(f"sqlite:///{file}")
    place.set_aside(uri)
    assert file.exists(), "somebody may be making it"
    os.utime(file, (1, 1))
    monkeypatch.setattr(place, "_looked_into", set())
    play(tracking.Tracker(uri, "anew", "store"), a_whole_run())
    (warning,) = warnings_of(caplog)
    assert "killed while it made it" in warning and list(tmp_path.glob("mlflow.db.damaged-*"))
    recorded_once(eyes_on(uri, "anew"))


def test_a_database_of_another_version_of_mlflow_is_left_and_told_with_the_remedy(
    of_version, caplog
):
    file = of_version("UPDATE alembic_version SET version_num = 'bd07f7e963c5'")
    os.utime(file, (1, 1))
    uri = tracking.initialise(f"sqlite:///{file}")
    play(tracking.Tracker(uri, "old", "store"), a_whole_run())
    (warning,) = warnings_of(caplog)
    assert f"`mlflow db upgrade {uri}`" in warning and "sends the rest" in warning
    with pytest.raises(tracking.TrackingError, match="is of another version of MLflow"):
        place.quiet_client(uri)


def test_a_database_that_is_whole_or_in_use_stays_where_it_is(tmp_path):
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("CREATE TABLE t (x)")
        place.set_aside(f"sqlite:///{file}")
        other.execute("BEGIN EXCLUSIVE")
        place.set_aside(f"sqlite:///{file}")
    other.close()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://me:p@ss@host:5000/x", "http://host:5000/x"),
        ("postgresql://u:secret@h/db?sslpassword=secret&a=1", "postgresql://h/db?sslpassword=***&a=1"),
        ("s3://key:secret@bucket/a?endpoint_override=h:9", "s3://bucket/a?endpoint_override=h:9"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
    ],
)
def test_no_journal_has_a_password(uri, kept, tmp_path):
    assert place.bare(uri) == kept
