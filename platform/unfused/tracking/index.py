"""The MLflow runs of one pipeline run.

    pipeline run     every dotted param, the chosen arm's score and every arm's, `key.<node>`, the
                     data sets, a description
      node run       one level below it: its config, its metrics by epoch, its data sets and
                     upstream keys; a cached node is a tag of the pipeline run that leads to its
                     builder

The rule of this file: it lives on the tracker's thread, and what it writes twice is there once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from unfused import events
from unfused.config import shown
from unfused.events import Event
from unfused.secrets import hidden, hidden_in
from unfused.store import Folder
from unfused.tracking import metrics, notes, views
from unfused.tracking.datasets import DataSets
from unfused.tracking.identity import (
    JOURNAL,
    MOST_TELLERS,
    Subject,
    Teller,
    find_parent,
    is_open,
    provenance_tags,
    run_of,
    tellers_of,
)
from unfused.tracking.notes import NOTE, Made
from unfused.tracking.patience import Patience, PatientClient
from unfused.tracking.place import (
    bare,
    experiment_id,
    make_database,
    quiet_client,
    set_aside,
    sole_opener,
)

NOWHERE = {"tracking_uri": "", "experiment_id": "", "run_id": ""}
EXPERIMENTS = 200
"""That are searched for the builder of an artifact."""


@dataclass
class _OpenNode:
    """The run of a node that is being built, and the metrics that its epochs have told."""

    run: str
    told: set[str] = field(default_factory=set)


class Index:
    """The MLflow runs of one pipeline run; lives on the tracker's thread."""

    def __init__(
        self,
        client: PatientClient,
        uri: str,
        experiment_id: str,
        store: str,
        subject: Subject,
        teller: Teller,
    ) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.place, self.store = store, bare(store)
        self.subject, self.teller = subject, teller
        self.run = self.parent = ""
        self.open_nodes: dict[str, _OpenNode] = {}
        self.failed_runs: list[str] = []
        self.data = DataSets(self.store, subject.places)
        self.made: dict[str, Made] = {}
        """By node."""
        self.summary: Mapping[str, Any] = {}
        """Of the finished run."""
        self.ended = 0
        """When it finished (milliseconds since 1970)."""
        self.refusal = ""
        """Why the request was refused, where it was."""

    @classmethod
    def open(
        cls,
        uri: str,
        experiment: str,
        store: str,
        subject: Subject,
        patience: Patience,
        teller: Teller,
    ) -> Index:
        """Import MLflow, and make the database and the experiment where there are none.

        A damaged database is set aside.
        """
        with sole_opener(uri):
            set_aside(uri)
            make_database(uri)
            plain = quiet_client(uri)
            found = experiment_id(plain, uri, experiment)
            client = PatientClient(plain, patience)
            index = cls(client, uri, found, store, subject, teller)
            views.show(plain, found)
        return index

    def describe(self) -> dict[str, str]:
        if not self.run:
            return NOWHERE
        return {
            "tracking_uri": bare(self.uri),
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
                self.set_tags(self.open_nodes[node].run, {"resumed_from_epoch": epoch})
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

        subject = self.subject
        self.parent = self.client.patience.try_on(
            partial(find_parent, self.client, self.experiment_id, subject, self.teller)
        )
        tags = {"kind": subject.kind, "store": self.store, **provenance_tags(event.provenance)}
        if self.parent:
            tags["mlflow.parentRunId"] = self.parent
        if subject.trial is not None:
            tags["trial"] = str(subject.trial)
        if found := self._told_before():
            self.run = found.info.run_id
        elif subject.kind == "pipeline" or not self._take_up(tags, event.config):
            name = subject.title(event.config)
            self.run = self.create_run(at, resolve_tags(tags), name)
        elif subject.kind == "search":
            return
        if found and subject.kind == "search" and tellers_of(found)[0] != self.teller.journal:
            return
        self.log_params(self.run, event.config)
        self.client.log_dict(self.run, event.config, "config.json")

    def _told_before(self) -> Any:
        """The run that this journal has told some of before; None where there is none."""
        if not self.teller.again:
            return None
        return run_of(self.client, self.experiment_id, self.teller.journal, self.subject.kind)

    def _is_ours(self) -> bool:
        """Whether no later process has taken the run up."""
        if self.teller.live:
            return True
        return tellers_of(self.client.get_run(self.run))[-1:] == [self.teller.journal]

    def create_run(self, at: int, tags: Mapping[str, str], name: str | None) -> str:
        """A new run; one that was made before, but not heard of, is found again."""
        plain, marked = self.client.plain, {**tags, JOURNAL: self.teller.journal}

        def made() -> str:
            run = plain.create_run(self.experiment_id, at, marked, name)
            return str(run.info.run_id)

        def found() -> str:
            same = f"attributes.start_time = {at}"
            for tag in (JOURNAL, "kind", "node", "trial"):
                same += f" and tags.{tag} = '{marked[tag]}'" if tag in marked else ""
            runs = plain.search_runs([self.experiment_id], same, max_results=1)
            return str(runs[0].info.run_id) if runs else made()

        return self.once(made, found)

    def once(self, call: Callable[[], Any], again: Callable[[], Any]) -> Any:
        """What a call with the plain client returns.

        Args:
            call: made where nothing of it was told before.
            again: made where it may have been.
        """
        return self.client.patience.try_on(again if self.teller.again else call, again)

    def _take_up(self, tags: Mapping[str, str], config: Mapping[str, Any]) -> bool:
        """Go on with the run of a search, or of a trial that a killed search left open.

        What else was left open below it is closed.
        """
        subject = self.subject
        same = f"tags.kind = '{subject.kind}' and "
        if subject.trial is None:
            same += f"attributes.run_name = '{subject.title(config)}'"
        else:
            same += f"tags.trial = '{subject.trial}'"
        if self.parent:
            same += f" and tags.`mlflow.parentRunId` = '{self.parent}'"
        runs = self.client.search_runs([self.experiment_id], same)
        if subject.kind == "trial":
            # Not one of another search of the same name; a kill may have come amid the params.
            mine = {key: shown(value) for key, value in config.items()}.items()
            runs = [r for r in runs if is_open(r, subject, self.teller)]
            runs = [r for r in runs if r.data.params.items() <= mine]
        if not runs:
            return False
        self.run = runs[0].info.run_id
        tellers = tellers_of(runs[0])[-MOST_TELLERS:]
        if not self.teller.live:
            before = [*tellers[:-1], self.teller.journal, *tellers[-1:]]
            self.set_tags(self.run, {JOURNAL: " ".join(before)})
            return True
        self.set_tags(self.run, {**tags, JOURNAL: " ".join([*tellers, self.teller.journal])})
        self.client.update_run(self.run, "RUNNING")
        below = f"tags.`mlflow.parentRunId` = '{self.run}' and attributes.status = 'RUNNING'"
        for left in self.client.search_runs([self.experiment_id], below):
            self.client.set_terminated(left.info.run_id, "KILLED")
        return True

    def tag(self, values: Mapping[str, Any]) -> None:
        """Tag the run itself."""
        if self.run:
            self.set_tags(self.run, values)

    def refuse(self, reason: str) -> None:
        """Note that what ends the run is its request: nothing failed."""
        self.refusal = reason

    def page(self, run: str = "") -> str:
        """A run's page, relative to MLflow's UI; by default the run itself."""
        return notes.page(self.experiment_id, run or self.run)

    def _hit(self, event: events.NodeHit) -> None:
        run, page = self._builder(event.stage, event.key)
        made = Made(event.node, event.stage, event.key, page)
        self._settle(made, "hit", run)
        self._remember_parts(event)

    def _settle(self, made: Made, how: str, builder: str) -> None:
        """Tell the pipeline run where a node's artifact is and which run built it."""
        node, self.made[made.node] = made.node, made
        tags = {f"key.{node}": made.key, f"node.{node}": f"{made.stage}/{made.key} ({how})"}
        self.set_tags(self.run, {**tags, f"built_by.{node}": builder})

    def _builder(self, stage: str, key: str) -> tuple[str, str]:
        """The latest run that built an artifact, and its page; both empty where there is none.

        One search each: tags have no "one of".
        """
        what = (
            f"tags.kind = 'node' and tags.stage = '{stage}' and tags.key = '{key}'"
            " and attributes.status = 'FINISHED'"
        )
        here = f" and tags.store = '{self._lies(stage, key)}'"
        newest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        for experiments, where in (([self.experiment_id], ""), (self._others, here)):
            if not experiments:
                continue
            if found := self.client.search_runs(experiments, what + where, **newest):
                info = found[0].info
                return info.run_id, notes.page(info.experiment_id, info.run_id)
        return "", ""

    def _lies(self, stage: str, key: str) -> str:
        """Where an artifact is, as everybody may read it."""
        return Folder(self.store).below(f"{stage}/{key}")

    @cached_property
    def _others(self) -> list[str]:
        """Other experiments on the same store are in the same MLflow."""
        found = self.client.search_experiments(max_results=EXPERIMENTS)
        return [e.experiment_id for e in found if e.experiment_id != self.experiment_id]

    def _start_node(self, event: events.NodeStarted, at: int) -> None:
        store = self._lies(event.stage, event.key)
        tags = {
            "kind": "node",
            "stage": event.stage,
            "node": event.node,
            "key": event.key,
            "store": store,
            "pipeline": self.run,
            "mlflow.parentRunId": self.parent or self.run,
            **{f"upstream.{name}": source for name, source in event.inputs.items()},
            NOTE: self._node_note(event, store),
        }
        run = self.create_run(at, tags, event.node)
        self.open_nodes[event.node] = _OpenNode(run)
        self.log_params(run, metrics.dotted(event.config))
        self._log_data(run, list(event.inputs.values()), event.stage)
        self.set_tags(self.run, {f"key.{event.node}": event.key})

    def _node_note(self, event: events.NodeStarted, store: str) -> str:
        by_artifact = {f"{made.stage}/{made.key}": made for made in self.made.values()}
        inputs = {
            name: by_artifact.get(source.partition(":")[0], source)
            for name, source in event.inputs.items()
        }
        place = self.data.place(event.node) if event.stage == "ingest" else ""
        return notes.of_node(event.stage, store, self.page(), inputs, place)

    def _log_epoch(self, event: events.EpochDone, at: int) -> None:
        node = self.open_nodes[event.node]
        speed = ("clips_per_second", "wait_seconds", "first_wait_seconds")
        told = {**event.metrics, **{name: getattr(event, name) for name in speed}}
        node.told |= told.keys()
        self.log_metrics(node.run, told, at, step=event.epoch)

    def _finish_node(self, event: events.NodeFinished, at: int) -> None:
        node = self.open_nodes.pop(event.node)
        run, known = node.run, node.told | {"parts"}
        facts = {k: v for k, v in event.manifest["facts"].items() if k not in known}
        self.log_metrics(run, {**metrics.of_tree(facts), "seconds": event.seconds}, at)
        self.client.set_terminated(run, "FINISHED", at)
        self._settle(Made(event.node, event.stage, event.key, self.page(run)), "built", run)
        self._remember_parts(event)

    def _fail_node(self, event: events.NodeFailed, at: int) -> None:
        run = self.open_nodes.pop(event.node).run
        self.failed_runs.append(run)
        self.set_tags(run, {"reason": event.reason})
        self.client.set_terminated(run, "FAILED", at)

    def _finish(self, event: events.RunFinished, at: int) -> None:
        status = "KILLED" if self.refusal else event.status
        unfinished = [node.run for node in self.open_nodes.values()]
        if status == "KILLED":
            # A stage that a person interrupts, or that refuses, reports it as a failure first.
            unfinished += self.failed_runs
        for run in unfinished:
            self.client.set_terminated(run, status, at)
        self.ended = at
        if not self._is_ours():
            return
        if event.summary is not None:
            self._tell_summary(event.summary, at)
        if event.reason:
            self.set_tags(self.run, {"reason": event.reason})
        if self.refusal:
            self.set_tags(self.run, {"refused": "true", NOTE: notes.refused(self.refusal)})
        self.client.set_terminated(self.run, status, at)

    def _tell_summary(self, summary: Mapping[str, Any], at: int) -> None:
        self.summary = summary
        # What comes first is what MLflow compares runs by.
        self.log_metrics(self.run, metrics.headline(summary), at)
        self.log_metrics(self.run, metrics.of_summary(summary), at)
        self.set_tags(self.run, metrics.counts(summary))
        if note := self.note(summary):
            self.set_tags(self.run, {NOTE: note})
        told = hidden_in({**summary, "mlflow": self.describe()})
        self.client.log_dict(self.run, told, "summary.json")

    def note(self, summary: Mapping[str, Any]) -> str:
        """The run's description."""
        num_clips = self.data.num_clips(summary.get("scored_on", "test"))
        made = list(self.made.values())
        return notes.of_run(summary, made, self.subject.places, num_clips)

    def _remember_parts(self, event: events.NodeHit | events.NodeFinished) -> None:
        """Ingested parts are data sets: of the pipeline run, and of the nodes that read them."""
        if event.stage == "ingest":
            artifact = f"{event.stage}/{event.key}"
            refs = self.data.remember(event.node, artifact, event.manifest["facts"])
            self._log_data(self.run, refs, "ingest")

    def _log_data(self, run: str, refs: list[str], context: str) -> None:
        if known := self.data.known(refs):
            self.client.log_inputs(run, [self.data.as_input(ref, context) for ref in known])

    def log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Params of a run, as the command line takes them."""
        from mlflow.entities import Param

        self.client.log_batch(run, params=[Param(k, shown(v)) for k, v in values.items()])

    def log_metrics(
        self, run: str, values: Mapping[str, float], at: int, *, step: int = 0, model: str = ""
    ) -> None:
        """Metrics of a run, and of a logged model that it has led to."""
        from mlflow.entities import Metric

        of = model or None
        told = [Metric(metrics.legal(k), float(v), at, step, of) for k, v in values.items()]
        if told:
            self.client.log_batch(run, metrics=told)

    def set_tags(self, run: str, values: Mapping[str, Any]) -> None:
        """Tags of a run."""
        from mlflow.entities import RunTag

        if values:
            self.client.log_batch(run, tags=[RunTag(k, hidden(str(v))) for k, v in values.items()])
