"""The store is the truth, MLflow is the index: where runs are looked up and compared.

The rule of this room: only the driver's process writes to MLflow, on a thread of its own, so that
MLflow's import, its waits and its outages cost a run nothing but a warning.

    pipeline run     every dotted param, every arm's scores, `key.<node>`, the data sets
      node run       one level below: its config, its metrics by epoch, its data sets and upstream
                     keys; a cached node is a tag of the pipeline run that leads to its builder
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import queue
import re
import shlex
import shutil
import ssl
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from unfused import events
from unfused.config import ConfigError, shown
from unfused.events import Event
from unfused.store import Folder

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
ANSWER_SECONDS = 5.0
CLOSE_SECONDS = 120.0
LEAST_PRIORITY = 19
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
}
"""MLflow's own settings, unless the environment has others. Four retries take half a minute: a
server that restarts is waited for, one that is gone is not."""
DIGEST_LENGTH = 32
"""MLflow keeps at most 36 characters of a data set's digest."""
ENDED = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's states of a trial, as MLflow says them."""
DATABASES = ("postgresql", "mysql", "mssql")
SERVED_PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch", "torchaudio")
NOWHERE = {"tracking_uri": "", "experiment_id": "", "run_id": ""}


class TrackingError(ConfigError):
    """MLflow cannot be used as asked; the message is one sentence that names the remedy."""


def initialise(uri: str | None = None) -> str:
    """Settle where runs are recorded, and that it can work; imports no MLflow and writes nothing.

    Args:
        uri: MLflow's tracking URI; by default MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.

    Returns:
        The URI, with a database's path made absolute. The database itself is made by the first
        `Tracker` that opens it, under a lock.

    Raises:
        TrackingError: the URI is malformed, or no MLflow server answers there.
    """
    given = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = given.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return f"sqlite:///{_usable_database(given)}"
    if _is_server(given):
        _check_server(given.rstrip("/"))
        return given.rstrip("/")
    if given.startswith("databricks") or scheme in DATABASES or scheme in _plugin_schemes():
        return given
    raise TrackingError(
        f"MLflow cannot track runs at {given!r}; use {DEFAULT_URI}"
        " or the address of a server (http://host:5000)."
    )


def ui_command(uri: str) -> str:
    """What opens MLflow's UI on `uri`: a server's address, or a command to type."""
    if _is_server(uri):
        return uri
    program = Path(sys.executable).with_name("mlflow")
    name = "mlflow" if shutil.which("mlflow") == str(program) else os.path.relpath(program)
    return f"{name} ui --backend-store-uri {shlex.quote(uri)}"


def _plugin_schemes() -> set[str]:
    return {point.name for point in importlib.metadata.entry_points(group="mlflow.tracking_store")}


def _database(uri: str) -> Path | None:
    """The file behind a sqlite URI; None for any other."""
    kind, found, path = uri.partition(":///")
    if not kind.startswith("sqlite") or not found:
        return None
    return Path(path).absolute()


def _usable_database(uri: str) -> Path:
    path = _database(uri)
    if path is None or path.name in ("", ":memory:"):
        raise TrackingError(f"{uri!r} names no file; write it as {DEFAULT_URI}.")
    if not os.access(path.parent, os.W_OK):
        raise TrackingError(f"{uri!r}: there is no folder {path.parent} to write in; make it.")
    if path.exists() and not _is_database(path):
        raise TrackingError(f"{path} is not a sqlite database; move it away or name another file.")
    return path


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) in (b"", b"SQLite format 3\0")
    except OSError:
        return False


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _check_server(uri: str) -> None:
    """Refuse a server that does not answer, or not to us; says nothing of what is no server."""
    if not _is_server(uri):
        return
    remedy = "start it (`mlflow server`) or name another with --tracking-uri"
    try:
        _answer(f"{uri}/health")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(f"No MLflow server answers at {uri} ({reason}); {remedy}.") from None
    try:
        status, body = _answer(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1")
    except OSError:
        # A server that has just started opens its database now, which may take longer than we wait.
        return
    if status == 404:
        raise TrackingError(f"What is at {uri} is not an MLflow server; {remedy}.")
    if status == 403 and b"Host" in body:
        raise TrackingError(f"{uri} refuses that host name; start the server with --allowed-hosts.")


def _answer(url: str) -> tuple[int, bytes]:
    """Status and body; 0 for a certificate that only MLflow's own settings may accept."""
    url = re.sub(r"//[^/@]*@", "//", url)  # urllib knows no user:password@host
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return 0, b""
        raise


Job = Callable[["_Index | None"], None]


class Tracker:
    """Writes the events of one run to MLflow, behind the run's back.

    Everything is queued and written by a thread that imports MLflow first (seconds), with the times
    at which it happened. What fails is warned of once and left out.

    Args:
        uri: from `initialise`.
        experiment: MLflow experiment; made if there is none.
        store: URI of the artifact store, which the tags lead to.
        parent: run of the search that this pipeline is a trial of. Trials and their nodes are then
            both one level below it, because MLflow's UI shows no more than one level.
        name: of the pipeline run; MLflow makes one up otherwise.
        kind: "pipeline", "trial" or "search". A search of one name has one run, which is gone on
            with.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        store: str,
        *,
        parent: str = "",
        name: str | None = None,
        kind: str = "pipeline",
    ) -> None:
        self.uri = uri
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._warned = False
        place = Folder.of(store).uri
        open_index = partial(_Index.open, uri, experiment, place, parent, name, kind)
        self._thread = threading.Thread(
            target=self._work, args=(open_index,), name="tracking", daemon=True
        )
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take note of an event; returns at once."""
        if not isinstance(event, events.Progress | events.Note):
            self._queue(partial(_Index.record, event=_kept(event), now=time.time()))

    def describe(self, timeout: float = CLOSE_SECONDS) -> dict[str, str]:
        """Where the pipeline run is, once it is there: all blank where tracking does not work."""
        answer: Future[dict[str, str]] = Future()
        self._jobs.put(lambda index: answer.set_result(index.describe() if index else NOWHERE))
        try:
            return dict(answer.result(timeout))
        except TimeoutError:
            return dict(NOWHERE)

    def register(self, folder: Folder, facts: Mapping[str, Any], name: str) -> None:
        """Make a finetune artifact's first classifier a registered model; returns at once.

        Args:
            folder: the artifact, local or remote; what is registered already gets no new version.
            facts: of its manifest (`classes`, `num_crops`, `crop_samples`).
            name: experiment or task; the model is called `unfused-<name>`.
        """
        self._queue(partial(_Index.register, folder=folder, facts=facts, name=name))

    def tag(self, values: Mapping[str, Any]) -> None:
        """Tag the pipeline run; returns at once."""
        self._queue(partial(_Index.tag, values=values))

    def end_search(self, result: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Tag the best trial's run, and keep a search's tables and pictures; returns at once.

        Args:
            result: of the search: its `best` and all ended `trials` (runs that a kill kept from
                being told how they ended are told now), and the `folder` of the files in the store.
            files: name -> content.
        """
        self._queue(partial(_Index.end_search, result=result, files=files))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Wait until all is written, but no longer than `timeout` seconds."""
        self._jobs.put(None)
        patience = min(ANSWER_SECONDS, timeout)
        self._thread.join(patience)
        if self._thread.is_alive() and timeout > patience:
            log.warning("Waiting up to %.0f s for MLflow at %s.", timeout, self.uri)
            self._thread.join(timeout - patience)
        if self._thread.is_alive():
            self._warn(f"it did not take everything within {timeout:.0f} s")

    def _queue(self, job: Callable[[_Index], None]) -> None:
        self._jobs.put(partial(self._write, job))

    def _write(self, job: Callable[[_Index], None], index: _Index | None) -> None:
        if index is None:
            return
        if self._warned:
            # What waits for a server that is gone would only hold up the end of the run.
            _check_server(self.uri)
        job(index)

    def _work(self, open_index: Callable[[], _Index]) -> None:
        index = None
        with suppress(OSError):
            # MLflow's import and a new database take CPU time that the run's own start needs.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        try:
            index = open_index()
        except Exception as error:
            self._warn(error)
        while (job := self._jobs.get()) is not None:
            try:
                job(index)
            except Exception as error:
                self._warn(error)

    def _warn(self, trouble: object) -> None:
        if not self._warned:
            self._warned = True
            log.warning("This run is not fully recorded in MLflow at %s: %s", self.uri, trouble)


def _kept(event: Event) -> Event:
    """The event as it is now: the summary's owner may write into it while it waits in the queue."""
    if isinstance(event, events.RunFinished) and event.summary is not None:
        summary = json.loads(json.dumps(event.summary, default=str))
        return events.RunFinished(event.status, summary, event.reason)
    return event


@dataclass
class _OpenNode:
    """The run of a node that is being built, and the metrics that its epochs have told."""

    run: str
    told: set[str] = field(default_factory=set)


class _Index:
    """The MLflow runs of one pipeline run; lives on the tracker's thread."""

    def __init__(self, client: Any, uri: str, experiment_id: str, store: str, parent: str) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.store, self.parent = store, parent
        self.name: str | None = None
        self.kind = "pipeline"
        self.run = ""
        self.open_nodes: dict[str, _OpenNode] = {}
        self.failed_runs: list[str] = []
        self.parts: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def open(
        cls, uri: str, experiment: str, store: str, parent: str, name: str | None, kind: str
    ) -> _Index:
        """Import MLflow, and make the database and the experiment where there are none."""
        for setting, value in QUIET.items():
            os.environ.setdefault(setting, value)
        from mlflow import MlflowClient

        for library in ("mlflow", "alembic"):
            # The import sets these to INFO; a run's output is the run's own.
            logging.getLogger(library).setLevel(logging.ERROR)
        with _sole_opener(uri):
            client = MlflowClient(uri)
            index = cls(client, uri, _experiment(client, uri, experiment), store, parent)
        index.name, index.kind = name, kind
        return index

    def describe(self) -> dict[str, str]:
        if not self.run:
            return NOWHERE
        return {
            "tracking_uri": self.uri,
            "experiment_id": self.experiment_id,
            "run_id": self.run,
        }

    def record(self, event: Event, now: float) -> None:
        """Write what an event tells; `now` is when it happened (seconds since 1970)."""
        at = int(now * 1000)
        if isinstance(event, events.RunStarted):
            self._start(event, at)
        elif self.run:
            self._go_on(event, at)

    def _go_on(self, event: Event, at: int) -> None:
        match event:
            case events.NodeHit():
                self._hit(event)
            case events.NodeStarted():
                self._start_node(event, at)
            case events.Resumed(node, epoch) if node in self.open_nodes:
                self._tag(self.open_nodes[node].run, {"resumed_from_epoch": epoch})
            case events.EpochDone(node) if node in self.open_nodes:
                self._log_epoch(event, at)
            case events.NodeFinished(node) if node in self.open_nodes:
                self._finish_node(event, at)
            case events.NodeFailed(node) if node in self.open_nodes:
                self._fail_node(event, at)
            case events.RunFinished():
                self._finish(event, at)

    def _start(self, event: events.RunStarted, at: int) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        tags = {"kind": self.kind, "store": self.store, **_provenance_tags(event.provenance)}
        if self.parent:
            tags["mlflow.parentRunId"] = self.parent
        if self.kind == "pipeline" or not self._take_up(tags, event.config):
            run = self.client.create_run(self.experiment_id, at, resolve_tags(tags), self.name)
            self.run = run.info.run_id
        elif self.kind == "search":
            return
        self._log_params(self.run, event.config)
        self.client.log_dict(self.run, event.config, "config.json")

    def _take_up(self, tags: Mapping[str, str], config: Mapping[str, Any]) -> bool:
        """Go on with the run of a search, or of a trial that a killed search left open.

        What else was left open below it is closed.
        """
        same = f"tags.kind = '{self.kind}' and attributes.run_name = '{self.name}'"
        if self.parent:
            same += f" and tags.`mlflow.parentRunId` = '{self.parent}'"
        runs = self.client.search_runs([self.experiment_id], same)
        if self.kind == "trial":
            # Not one of another search of the same name; a kill may have come before the params.
            mine = ({}, {key: shown(value) for key, value in config.items()})
            runs = [r for r in runs if "state" not in r.data.tags and r.data.params in mine]
        if not runs:
            return False
        self.run = runs[0].info.run_id
        self.client.update_run(self.run, "RUNNING")
        self._tag(self.run, tags)
        below = f"tags.`mlflow.parentRunId` = '{self.run}' and attributes.status = 'RUNNING'"
        for left in self.client.search_runs([self.experiment_id], below):
            self.client.set_terminated(left.info.run_id, "KILLED")
        return True

    def end_search(self, result: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Tag the best trial's run, and keep the tables and pictures."""
        if not self.run:
            return
        self._settle_trials(result["trials"])
        best = result["best"]["number"]
        mine = f"tags.`mlflow.parentRunId` = '{self.run}' and tags."
        for other in self.client.search_runs([self.experiment_id], f"{mine}best = 'true'"):
            self.client.delete_tag(other.info.run_id, "best")
        newest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        numbered = f"{mine}trial = '{best}'"
        for run in self.client.search_runs([self.experiment_id], numbered, **newest):
            self._tag(run.info.run_id, {"best": "true"})
        self._tag(self.run, {"best_trial": best, "results": result["folder"]})
        with tempfile.TemporaryDirectory() as scratch:
            for name, data in files.items():
                Path(scratch, name).write_bytes(data)
            self.client.log_artifacts(self.run, scratch)

    def _settle_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Tell runs of trials how they ended, where a kill came before that was written."""
        mine = f"tags.`mlflow.parentRunId` = '{self.run}' and tags.kind = 'trial'"
        oldest_first = {"order_by": ["attributes.start_time ASC"]}
        found = self.client.search_runs([self.experiment_id], mine, **oldest_first)
        newest = {run.data.tags.get("trial"): run for run in found}
        for trial in trials:
            run = newest.get(str(trial["number"]))
            if run and "state" not in run.data.tags:
                self._tag(run.info.run_id, {"state": trial["state"]})
                self._log_metrics(run.info.run_id, trial.get("scores", {}), int(time.time() * 1000))
                self.client.set_terminated(run.info.run_id, ENDED[trial["state"]])

    def tag(self, values: Mapping[str, Any]) -> None:
        """Tag the run itself."""
        if self.run:
            self._tag(self.run, values)

    def _hit(self, event: events.NodeHit) -> None:
        builder = self._builder(event.stage, event.key)
        self._settle(event.node, event.stage, event.key, "hit", builder)
        self._remember_parts(event)

    def _settle(self, node: str, stage: str, key: str, how: str, builder: str) -> None:
        """Tell the pipeline run where a node's artifact is and which run built it."""
        tags = {f"key.{node}": key, f"node.{node}": f"{stage}/{key} ({how})"}
        self._tag(self.run, {**tags, f"built_by.{node}": builder})

    def _builder(self, stage: str, key: str) -> str:
        """The latest run that built an artifact, or "" (one search each: tags have no "one of")."""
        runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.kind = 'node' and tags.stage = '{stage}' and tags.key = '{key}'"
            " and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return runs[0].info.run_id if runs else ""

    def _start_node(self, event: events.NodeStarted, at: int) -> None:
        tags = {
            "kind": "node",
            "stage": event.stage,
            "node": event.node,
            "key": event.key,
            "store": f"{self.store}/{event.stage}/{event.key}",
            "pipeline": self.run,
            "mlflow.parentRunId": self.parent or self.run,
            **{f"upstream.{name}": source for name, source in event.inputs.items()},
        }
        run = self.client.create_run(self.experiment_id, at, tags, event.node).info.run_id
        self.open_nodes[event.node] = _OpenNode(run)
        self._log_params(run, _dotted(event.config))
        self._log_data(run, list(event.inputs.values()), event.stage)
        self._tag(self.run, {f"key.{event.node}": event.key})

    def _log_epoch(self, event: events.EpochDone, at: int) -> None:
        node = self.open_nodes[event.node]
        speed = ("clips_per_second", "wait_seconds", "first_wait_seconds")
        metrics = {**event.metrics, **{name: getattr(event, name) for name in speed}}
        node.told |= metrics.keys()
        self._log_metrics(node.run, metrics, at, step=event.epoch)

    def _finish_node(self, event: events.NodeFinished, at: int) -> None:
        node = self.open_nodes.pop(event.node)
        run, known = node.run, node.told | {"parts"}
        facts = {k: v for k, v in event.manifest["facts"].items() if k not in known}
        self._log_metrics(run, {**_numbers(facts), "seconds": event.seconds}, at)
        self.client.set_terminated(run, "FINISHED", at)
        self._settle(event.node, event.stage, event.key, "built", run)
        self._remember_parts(event)

    def _fail_node(self, event: events.NodeFailed, at: int) -> None:
        run = self.open_nodes.pop(event.node).run
        self.failed_runs.append(run)
        self._tag(run, {"reason": event.reason})
        self.client.set_terminated(run, "FAILED", at)

    def _finish(self, event: events.RunFinished, at: int) -> None:
        unfinished = [node.run for node in self.open_nodes.values()]
        if event.status == "KILLED":
            # A stage that a person interrupts reports it as a failure first.
            unfinished += self.failed_runs
        for run in unfinished:
            self.client.set_terminated(run, event.status, at)
        if event.summary is not None:
            self._log_metrics(self.run, _scores(event.summary), at)
            summary = {**event.summary, "mlflow": self.describe()}
            self.client.log_dict(self.run, summary, "summary.json")
        if event.reason:
            self._tag(self.run, {"reason": event.reason})
        self.client.set_terminated(self.run, event.status, at)

    def _remember_parts(self, event: events.NodeHit | events.NodeFinished) -> None:
        """Ingested parts are data sets: of the pipeline run, and of the nodes that read them."""
        parts = event.manifest["facts"].get("parts", {}) if event.stage == "ingest" else {}
        refs = {f"{event.stage}/{event.key}:{name}": facts for name, facts in parts.items()}
        self.parts |= refs
        self._log_data(self.run, list(refs), "ingest")

    def _log_data(self, run: str, refs: list[str], context: str) -> None:
        known = [ref for ref in dict.fromkeys(refs) if ref in self.parts]
        if known:
            self.client.log_inputs(run, [self._data_set(ref, context) for ref in known])

    def _data_set(self, ref: str, context: str) -> Any:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        artifact, _, part = ref.partition(":")
        facts, where = self.parts[ref], f"{self.store}/{artifact}/{part}"
        data = Dataset(
            name=part,
            digest=facts["digest"][:DIGEST_LENGTH],
            source_type=where.partition("://")[0] if "://" in where else "local",
            source=json.dumps({"uri": where}),
            profile=json.dumps({"digest": facts["digest"], **_numbers(facts)}),
        )
        return DatasetInput(data, [InputTag("mlflow.data.context", context)])

    def _log_params(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run, params=[Param(k, shown(v)) for k, v in values.items()])

    def _log_metrics(
        self, run: str, values: Mapping[str, float], at: int, *, step: int = 0
    ) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_legal(k), float(v), at, step) for k, v in values.items()]
        self.client.log_batch(run, metrics=metrics)

    def _tag(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def register(self, folder: Folder, facts: Mapping[str, Any], name: str) -> None:
        from mlflow.entities import LoggedModelOutput

        if not self.run:
            return
        model_name, key = _model_name(name), folder.uri.rpartition("/")[2]
        same = f"name = '{model_name}' and tags.key = '{key}'"
        known = self.client.search_model_versions(same, max_results=1)
        model = known[0].tags["model_id"] if known else self._log_model(folder, facts, key)
        self.client.log_outputs(self.run, [LoggedModelOutput(model, step=0)])
        if not known:
            self._add_version(model_name, model, folder, key)

    def _log_model(self, folder: Folder, facts: Mapping[str, Any], key: str) -> str:
        tags = {"store": folder.uri, "key": key}
        model = self.client.create_logged_model(
            self.experiment_id, "classifier", self.run, tags, model_type="classifier"
        ).model_id
        status = "FAILED"
        try:
            with tempfile.TemporaryDirectory() as scratch:
                saved = _save_model(Path(scratch), folder, facts, run=self.run, model=model)
                self.client.log_model_artifacts(model, str(saved))
            status = "READY"
        finally:
            self.client.finalize_logged_model(model, status)
        return model

    def _add_version(self, name: str, model: str, folder: Folder, key: str) -> None:
        _ensure_registered(self.client, name)
        # By location: a database's registry looks "models:/<id>" up in this process's default URI,
        # and it forgets the id, which is a tag for that reason.
        where = self.client.get_logged_model(model).artifact_location
        tags = {"store": folder.uri, "key": key, "pipeline": self.run, "model_id": model}
        self.client.create_model_version(name, where, self.run, tags, model_id=model)


@contextmanager
def _sole_opener(uri: str) -> Iterator[None]:
    """Keep others from a sqlite database while it is made or migrated.

    MLflow takes no lock for that, and two that do it at once leave a broken file behind.
    """
    path = _database(uri)
    if path is None:
        yield
        return
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _experiment(client: Any, uri: str, name: str) -> str:
    """The experiment's id; beside a database its artifacts go to `mlartifacts/`."""
    from mlflow import MlflowException

    found = client.get_experiment_by_name(name)
    path = _database(uri)
    if found is None:
        location = (path.parent / "mlartifacts").as_uri() if path else None
        try:
            return client.create_experiment(name, location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"Experiment {name!r} is deleted; restore it or name another.")
    return found.experiment_id


def _provenance_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as tags, under MLflow's own names where it has them."""
    argv = [str(word) for word in record.get("argv", [])]
    tags = {f"provenance.{k}": str(v) for k, v in record.items() if isinstance(v, str | bool)}
    tags["command"] = shlex.join(argv)
    tags["mlflow.source.name"] = argv[0] if argv else "unfused"
    if record.get("git_commit"):
        tags["mlflow.source.git.commit"] = str(record["git_commit"])
    return tags


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        branch = isinstance(value, Mapping)
        flat |= _dotted(value, f"{prefix}{name}.") if branch else {f"{prefix}{name}": value}
    return flat


def _numbers(tree: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a tree under dotted names; a list of floats (scores of draws) is its mean."""
    found: dict[str, float] = {}
    for name, value in _dotted(tree).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
        elif isinstance(value, list) and value and all(isinstance(v, float) for v in value):
            found[name] = statistics.fmean(value)
    return found


def _scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """`<arm>.accuracy`, `<arm>.accuracy_sd` and their like, and all other numbers of a summary."""
    scores: dict[str, float] = {}
    for arm, found in summary.get("arms", {}).items():
        for name, score in found.items():
            if isinstance(score, Mapping) and "mean" in score:
                scores[f"{arm}.{name}"] = score["mean"]
                scores[f"{arm}.{name}_sd"] = score.get("sd", 0.0)
    rest = {k: v for k, v in summary.items() if k not in ("config", "arms", "stages", "scores")}
    return {**scores, **_numbers(rest), **_numbers(summary.get("scores", {}))}


def _legal(key: str) -> str:
    """MLflow refuses a whole batch for one character, and a fact's name may hold a class's name."""
    return re.sub(r"[^\w\-./ ]", "_", key)


def _model_name(name: str) -> str:
    legal = re.sub(r"[/:'\"]", "-", name)
    return legal if legal.startswith("unfused") else f"unfused-{legal}"


def _ensure_registered(client: Any, name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _save_model(
    scratch: Path, folder: Folder, facts: Mapping[str, Any], *, run: str, model: str
) -> Path:
    """Write the classifier of the first draw to `scratch`/model: weights, settings and code.

    The code is this package, run from source: no pickle, and nothing to install but libraries.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model

    package = Path(__file__).parent
    encoder = folder.read_json("head-00.json")["encoder"]
    weights = Folder.of(scratch / "classifier")
    for name in ("head-00", encoder):
        for suffix in ("json", "safetensors"):
            weights.write(f"{name}.{suffix}", folder.read(f"{name}.{suffix}"))
    saved = scratch / "model"
    pyfunc.save_model(
        str(saved),
        mlflow_model=Model(run_id=run, model_id=model, model_uuid=model),
        python_model=str(package / "serving.py"),
        artifacts={"classifier": weights.uri},
        code_paths=[str(package)],
        model_config={name: facts[name] for name in ("num_crops", "crop_samples")},
        signature=_signature(facts["classes"]),
        input_example=np.zeros((1, facts["crop_samples"]), np.float32),
        pip_requirements=[f"{name}=={_public_version(name)}" for name in SERVED_PACKAGES],
    )
    return saved


def _signature(classes: list[str]) -> Any:
    """Waveforms float32 (B, S) to a table with a label and the probability of every class."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    waveforms = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    table = [ColSpec("float", f"probability.{name}") for name in classes]
    return ModelSignature(waveforms, Schema([ColSpec("string", "label"), *table]))


def _public_version(package: str) -> str:
    """Without the build (`+cu130`), which the package index does not know."""
    return importlib.metadata.version(package).partition("+")[0]
