"""Runs as a tracker is told of them, and MLflow as its users see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unfused import tracking
from unfused.config import flatten, override, preset
from unfused.events import (
    EpochDone,
    NodeFinished,
    NodeHit,
    NodeStarted,
    Progress,
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
            "balanced_accuracy": {"mean": 0.625, "sd": 0.0, "values": [0.625]},
            "macro_f1": {"mean": 0.5, "sd": 0.0, "values": [0.5]},
        },
    },
    "chance": 0.5,
    "chosen": {
        "by_draw": ["unfused"],
        "accuracy": {"mean": 0.75, "sd": 0.0625, "values": [0.75]},
        "balanced_accuracy": {"mean": 0.625, "sd": 0.0, "values": [0.625]},
        "ahead_of": {"scratch": {"mean": 0.5, "interval": [0.25, 0.75]}},
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
    ours = [record for record in caplog.records if record.name.startswith(tracking.__name__)]
    told = [record.getMessage() for record in ours]
    return [text for text in told if not text.startswith("Waiting")]


def new_database(folders: pytest.TempPathFactory) -> str:
    """A place of one's own to track at; nothing is written yet."""
    return tracking.initialise(f"sqlite:///{folders.mktemp('tracking')}/mlflow.db")


def eyes_on(database: str, name: str) -> SimpleNamespace:
    """A database, an experiment called `name`, and eyes on it."""
    client = look(database)

    def runs(tag_filter: str = "") -> list:
        experiment = client.get_experiment_by_name(name)
        return client.search_runs([experiment.experiment_id], tag_filter)

    def only(tag_filter: str):
        (run,) = runs(tag_filter)
        return run

    def tracker(**options: str) -> tracking.Tracker:
        return tracking.Tracker(database, name, "store", **options)

    return SimpleNamespace(
        uri=database, client=client, runs=runs, only=only, tracker=tracker, name=name
    )


def started(k: int = 9, temperature: float = 2.5) -> RunStarted:
    config = override(CONFIG, {"cluster.num_clusters": k, "distill.temperature": temperature})
    return RunStarted(flatten(config), ("ingest/task", "pretrain"), PROVENANCE)


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


def a_whole_run(
    k: int = 9, temperature: float = 2.5, accuracy: float = 0.75, *, hit: bool = False
) -> list:
    """The events of a run; `hit` is one that finds its teacher in the store."""
    epochs = [
        EpochDone("pretrain", n, 3, {"loss": 1.0 / n}, 100.0 * n, wait_seconds=n / 2)
        for n in (1, 2, 3)
    ]
    built = [pretrain_started(), Progress("pretrain", 1, 2), *epochs, pretrain_finished()]
    found = [NodeHit("pretrain", "pretrain", "aaaa", {"facts": {}})]
    return [
        started(k, temperature),
        ingest_hit(),
        *(found if hit else built),
        RunFinished("FINISHED", summary_of(accuracy)),
    ]


def ingest_built() -> list:
    """The events of an ingest that found nothing in the store."""
    what = ("ingest/task", "ingest", "1111")
    return [NodeStarted(*what, {}, {}), NodeFinished(*what, 2.5, INGEST)]


def summary_of(accuracy: float) -> dict[str, Any]:
    """A summary in which the chosen arm is right so often."""
    found = json.loads(json.dumps(SUMMARY))
    found["arms"]["unfused"]["accuracy"]["mean"] = accuracy
    found["chosen"]["accuracy"]["mean"] = accuracy
    return found


def play(tracker: tracking.Tracker, happened: list) -> tracking.Tracker:
    for event in happened:
        tracker(event)
    tracker.close()
    return tracker


def read_artifact(client: Any, run_id: str, name: str, tmp_path: Path):
    return json.loads(Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextmanager
def served(
    database: str, folder: Path, port: int = 0
) -> Iterator[tuple[str, subprocess.Popen]]:
    """A real MLflow server on loopback: its address and its process."""
    port, artifacts = port or free_port(), f"--artifacts-destination={folder / 'served'}"
    where = [f"--backend-store-uri={database}", artifacts, f"--port={port}", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", *where]
    with open(folder / "server.log", "w") as out:
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
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
