"""The MLflow runs of one pipeline run.

    pipeline run     every dotted param, every arm's scores, `key.<node>`, the data sets
      node run       one level below it: its config, its metrics by epoch, its data sets and
                     upstream keys; a cached node is a tag of the pipeline run that leads to its
                     builder

The rule of this file: it lives on the tracker's thread; no method is called from another.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfused import events
from unfused.config import shown
from unfused.events import Event
from unfused.tracking.place import experiment_id, sole_opener

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
NOWHERE = {"tracking_uri": "", "experiment_id": "", "run_id": ""}


@dataclass
class _OpenNode:
    """The run of a node that is being built, and the metrics that its epochs have told."""

    run: str
    told: set[str] = field(default_factory=set)


class Index:
    """The MLflow runs of one pipeline run; lives on the tracker's thread."""

    def __init__(self, client: Any, uri: str, experiment_id: str, store: str, parent: str) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.store, self.parent = store, parent
        self.name: str | None = None
        self.kind = "pipeline"
        self.trial: int | None = None
        self.run = ""
        self.open_nodes: dict[str, _OpenNode] = {}
        self.failed_runs: list[str] = []
        self.parts: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def open(
        cls,
        uri: str,
        experiment: str,
        store: str,
        parent: str,
        name: str | None,
        kind: str,
        trial: int | None,
    ) -> Index:
        """Import MLflow, and make the database and the experiment where there are none."""
        for setting, value in QUIET.items():
            os.environ.setdefault(setting, value)
        from mlflow import MlflowClient

        for library in ("mlflow", "alembic"):
            # The import sets these to INFO; a run's output is the run's own.
            logging.getLogger(library).setLevel(logging.ERROR)
        with sole_opener(uri):
            client = MlflowClient(uri)
            index = cls(client, uri, experiment_id(client, uri, experiment), store, parent)
        index.name, index.kind, index.trial = name, kind, trial
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
        if self.trial is not None:
            tags["trial"] = str(self.trial)
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
            # Not one of another search of the same name; a kill may have come amid the params.
            mine = {key: shown(value) for key, value in config.items()}.items()
            runs = [
                r for r in runs if "state" not in r.data.tags and r.data.params.items() <= mine
            ]
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
        """Write how trials ended, where a kill came before that was written."""
        mine = f"tags.`mlflow.parentRunId` = '{self.run}' and tags.kind = 'trial'"
        oldest_first = {"order_by": ["attributes.start_time ASC"]}
        found = self.client.search_runs([self.experiment_id], mine, **oldest_first)
        newest = {run.data.tags.get("trial"): run for run in found}
        for trial in trials:
            run = newest.get(str(trial["number"])) or self._run_of_trial(trial)
            if "state" not in run.data.tags:
                self._tag(run.info.run_id, {"state": trial["state"]})
                self._log_metrics(run.info.run_id, trial.get("scores", {}), int(time.time() * 1000))
                self.client.set_terminated(run.info.run_id, ENDED[trial["state"]])

    def _run_of_trial(self, trial: Mapping[str, Any]) -> Any:
        """A run for a trial that has none, with the params that the search chose."""
        tags = {"kind": "trial", "store": self.store, "trial": str(trial["number"])}
        tags["mlflow.parentRunId"] = self.run
        name = f"{self.name} trial {trial['number']}"
        run = self.client.create_run(self.experiment_id, None, tags, name)
        self._log_params(run.info.run_id, trial["changes"])
        return run

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
