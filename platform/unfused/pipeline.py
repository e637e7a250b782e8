"""Graph, plan and run: decide what is missing, build it.

The rule of this room: the graph is plain data. Another arm, seed or fold is a few more nodes, not a
mode inside a stage; and no node but `evaluate` has an edge to the test clips.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from unfused import corpora, provenance, runtime, shards, stages
from unfused.config import Config, ConfigError, RunOptions, Section, flatten, override
from unfused.corpora import location
from unfused.corpora.clip import Clip
from unfused.events import (
    NodeFailed,
    NodeFinished,
    NodeHit,
    NodeStarted,
    Resumed,
    RunStarted,
    Stream,
)
from unfused.store import Artifact, Folder, Store, artifact_key, digest

SEEDED = ("pretrain", "cluster", "bootstrap", "distill", "finetune")
SCORED_BY = {"test": "evaluate", "valid": "validate"}
"""The nodes that score a split; those that look at validation clips are not called `evaluate`."""
SEED_STEP = 1009
"""Between the seeds of parallel clusterings, so that they are none of `--seeds`."""


@dataclass(frozen=True)
class Node:
    """One thing to be built: a stage, the config sections it reads, and whence its inputs come."""

    name: str
    stage: str
    config: Mapping[str, Section]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input name -> node, or node:part for one part of an ingest artifact."""


@dataclass(frozen=True)
class Task:
    """The labelled clips of one repetition, and the prefix that tells its nodes apart."""

    clips: tuple[Clip, ...] = field(repr=False)
    prefix: str = ""


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    config: Config
    options: RunOptions
    corpus: str | None = None
    task: str | None = None
    seeds: int = 1
    folds: bool = False


def graph(
    config: Config, *, has_corpus: bool, task_prefix: str = "", prefix: str = ""
) -> tuple[Node, ...]:
    """The nodes of one pipeline in topological order.

    Args:
        has_corpus: whether there is a corpus beside the task's own training clips.
        task_prefix: tells the tasks of a cross-validation apart.
        prefix: tells repetitions of the learned stages apart.
    """
    new = _Graph(config, f"{task_prefix}ingest/task", f"{task_prefix}{prefix}")
    corpus = new.ingest(has_corpus)
    encoders: dict[str, str] = {}
    if set(config.arms) - {"scratch"}:
        encoders["teacher"] = new.add("pretrain", "pretrain", "encoder", clips=corpus)
    students = [arm for arm in ("unfused", "clusterfit") if arm in config.arms]
    if students:
        clusters = new.rounds(encoders["teacher"])
        encoders |= {arm: new.student(arm, clusters) for arm in students}
    classifiers = {arm: new.finetune(arm, encoders.get(arm)) for arm in config.arms}
    for arm, classifier in classifiers.items():
        new.evaluate(arm, classifier)
    return tuple(new.nodes)


class _Graph:
    """Nodes in order; every method adds some and returns the name that others read.

    Args:
        config: of all nodes.
        task: the node that ingests the task.
        prefix: of the names of all other nodes.
    """

    def __init__(self, config: Config, task: str, prefix: str) -> None:
        self.config, self.task, self.prefix = config, task, prefix
        self.train = f"{task}:train"
        self.nodes: list[Node] = []

    def add(self, name: str, *reads: str, **inputs: str) -> str:
        """A node that reads sections of the configuration as they are."""
        return self._add(name, {key: getattr(self.config, key) for key in reads}, inputs)

    def _add(
        self, name: str, sections: dict[str, Section], inputs: dict[str, str], stage: str = ""
    ) -> str:
        node = Node(f"{self.prefix}{name}", stage or name.partition("/")[0], sections, inputs)
        self.nodes.append(node)
        return node.name

    def ingest(self, has_corpus: bool) -> str:
        """The clips that are pre-trained on: a corpus, or the task's own."""
        sections = {key: getattr(self.config, key) for key in ("data", "audio", "ingest")}
        names = (["ingest/corpus"] if has_corpus else []) + [self.task]
        self.nodes += [Node(name, "ingest", sections) for name in names]
        return "ingest/corpus:corpus" if has_corpus else self.train

    def rounds(self, teacher: str) -> dict[str, str]:
        """Pseudo-labels of the last round, whose nodes have no ending, as a student's inputs."""
        labels = {"labels": f"{self.train}.labels"}
        seen = labels if self.config.cluster.num_clusters == "classes" else {}
        for number in range(1, self.config.rounds):
            clusters = self._round(f"/round{number}", teacher, seen)
            teacher = self._student(f"round{number}", self.config.bootstrap, clusters)
        return self._round("", teacher, seen)

    def _round(self, ending: str, teacher: str, labels: dict[str, str]) -> dict[str, str]:
        embeddings = self.add(f"embed{ending}", "embed", clips=self.train, teacher=teacher)
        inputs, config = {"embeddings": embeddings, **labels}, self.config.cluster
        found = {}
        for number in range(1, self.config.clusterings + 1):
            also = f"/{number}" if number > 1 else ""
            other = config.model_copy(update={"seed": config.seed + SEED_STEP * (number - 1)})
            name = f"cluster{ending}{also}"
            found[f"clusters{number if also else ''}"] = self._add(name, {"cluster": other}, inputs)
        return found

    def student(self, arm: str, clusters: dict[str, str]) -> str:
        recipe = self.config.distill if arm == "unfused" else _cross_entropy_alone(self.config)
        return self._student(arm, recipe, clusters)

    def _student(self, name: str, recipe: Section, clusters: dict[str, str]) -> str:
        sections = {"distill": recipe, "encoder": self.config.encoder}
        return self._add(f"distill/{name}", sections, {"clips": self.train, **clusters})

    def finetune(self, arm: str, encoder: str | None) -> str:
        """Without an encoder, supervised from random weights: there is nothing to freeze."""
        inputs = {"clips": self.train, "labels": f"{self.train}.labels"}
        if self.config.finetune.use_validation:
            inputs |= {"valid": f"{self.task}:valid", "valid_labels": f"{self.task}:valid.labels"}
        if encoder:
            return self.add(f"finetune/{arm}", "finetune", **inputs, encoder=encoder)
        full = self.config.finetune.model_copy(update={"mode": "full"})
        sections = {"finetune": full, "encoder": self.config.encoder}
        return self._add(f"finetune/{arm}", sections, inputs)

    def evaluate(self, arm: str, classifier: str) -> str:
        split = self.config.evaluate.split
        clips = f"{self.task}:{split}"
        inputs = {"clips": clips, "labels": f"{clips}.labels", "classifier": classifier}
        sections = {"evaluate": self.config.evaluate}
        return self._add(f"{SCORED_BY[split]}/{arm}", sections, inputs, stage="evaluate")


def _cross_entropy_alone(config: Config) -> Section:
    """ClusterFit (Yan et al., CVPR 2020): the student with the deep head's cross-entropy alone."""
    off = {"shallow_weight": 0.0, "kl_weight": 0.0, "cosine_weight": 0.0}
    return config.distill.model_copy(update=off)


@dataclass
class Step:
    """A node with what is known of its artifact so far."""

    node: Node
    clips: tuple[Clip, ...] = field(default=(), repr=False)
    key: str | None = None
    status: str = "after ingest"
    """hit, miss, built, or `after ingest` where the key is not known yet."""
    manifest: dict[str, Any] | None = field(default=None, repr=False)
    seconds: float = 0.0
    resumed_from_epoch: int | None = None


@dataclass(frozen=True)
class Inputs:
    """The clips that a request names, as they are listed; the tasks are the folds, or just one."""

    corpus: tuple[Clip, ...] | None = field(repr=False)
    tasks: tuple[Task, ...]


def repetitions(
    request: Request, inputs: Inputs
) -> Iterator[tuple[str, Task, tuple[Node, ...]]]:
    """The graph of every task (or fold) and seed, after the prefix of its nodes' names."""
    for task in inputs.tasks:
        for seed in range(request.seeds):
            prefix = f"seed{seed}/" if request.seeds > 1 else ""
            nodes = graph(
                reseed(request.config, seed),
                has_corpus=inputs.corpus is not None,
                task_prefix=task.prefix,
                prefix=prefix,
            )
            yield f"{task.prefix}{prefix}", task, nodes


class Plan:
    """Every node of a request, its key and whether the store has it.

    Args:
        request: what was asked for.
        inputs: the listed clips, where they are known already (the trials of a search share them).
    """

    def __init__(self, request: Request, inputs: Inputs | None = None) -> None:
        self.request = request
        self.store = Store.at(request.options.store)
        self.inputs = inputs or read_inputs(request, self.store)
        self.steps: dict[str, Step] = {}
        self.repetitions: list[str] = []
        for prefix, task, nodes in repetitions(request, self.inputs):
            self.repetitions.append(prefix)
            for node in nodes:
                clips = {"ingest/corpus": self.inputs.corpus or ()}.get(node.name, task.clips)
                if node.name not in self.steps:
                    self.steps[node.name] = Step(node, clips if node.stage == "ingest" else ())
        self.refresh()

    def keep(self, names: Collection[str]) -> None:
        """Forget all nodes but these, which must have their inputs among them."""
        self.steps = {name: step for name, step in self.steps.items() if name in names}

    def upstream(self, names: Iterable[str]) -> set[str]:
        """These nodes and all that they are built on."""
        found = set(names)
        for name, step in reversed(self.steps.items()):
            if name in found:
                found |= {ref.partition(":")[0] for ref in step.node.inputs.values()}
        return found

    def refresh(self) -> None:
        """Work out every key that can be known now, and look it up in the store."""
        for step in self.steps.values():
            if step.manifest is None:
                step.key = self._key(step)
                step.manifest = step.key and self.store.manifest(step.node.stage, step.key)
                if step.key:
                    step.status = "hit" if step.manifest else "miss"

    def _key(self, step: Step) -> str | None:
        node = step.node
        inputs = {name: self._identity(ref) for name, ref in node.inputs.items()}
        if node.stage == "ingest":
            inputs = {"listing": digest([_listed(clip) for clip in step.clips])}
        if any(identity is None for identity in inputs.values()):
            return None
        config = {name: section.model_dump(mode="json") for name, section in node.config.items()}
        known = {name: str(identity) for name, identity in inputs.items()}
        return artifact_key(node.stage, stages.version(node.stage), config, known)

    def _identity(self, ref: str) -> str | None:
        name, _, part = ref.partition(":")
        step = self.steps[name]
        if not part:
            return step.key
        return self._part(step, part)["digest"] if step.manifest else None

    @staticmethod
    def _part(step: Step, part: str) -> dict[str, Any]:
        parts = step.manifest["facts"]["parts"]  # type: ignore[index]
        if part not in parts:
            raise ConfigError(
                f"The task has no {part.partition('.')[0]} clips; give its manifest a `split`"
                " column that has them, or none so that it is split."
            )
        return parts[part]

    def artifact(self, ref: str) -> Artifact:
        """The artifact, or the part of one, that an edge of the graph leads to."""
        name, _, part = ref.partition(":")
        step = self.steps[name]
        folder = self.store.folder(step.node.stage, str(step.key))
        if not part:
            assert step.manifest is not None
            return Artifact(folder, str(step.key), step.manifest["facts"])
        facts = self._part(step, part)
        return Artifact(folder / part, facts["digest"], facts)

    def parts(self, step: Step) -> dict[str, Any]:
        """Facts of the ingested parts that a node reads, itself or through what it builds on."""
        found: dict[str, Any] = {}
        for name, ref in step.node.inputs.items():
            source, _, part = ref.partition(":")
            if part:
                found[name] = self._part(self.steps[source], part)
            else:
                found = self.parts(self.steps[source]) | found
        return found

    def refuse_overlap(self) -> None:
        """Refuse a corpus that has clips which a task holds out.

        Raises:
            OverlapError: it names the first of them.
        """
        corpus = self.steps.get("ingest/corpus")
        if corpus is None or self.request.config.data.allow_overlap:
            return
        learned = shards.digests(self.artifact("ingest/corpus:corpus"))
        for step in self.steps.values():
            if step.node.stage != "ingest" or step is corpus or not step.manifest:
                continue
            parts = [p for p in ("valid", "test") if p in step.manifest["facts"]["parts"]]
            held_out = [shards.digests(self.artifact(f"{step.node.name}:{p}")) for p in parts]
            shared = learned & set().union(*held_out)
            if shared:
                raise corpora.overlap(len(shared), f"{_path_of(step.clips, shared)!r}")

    def check_parts(self) -> None:
        """What only the ingested data can tell, before anything is trained.

        Raises:
            ConfigError: of the first missing node that cannot be built from its parts.
        """
        for step in self.missing:
            check = getattr(stages.module(step.node.stage), "check", None)
            if check:
                check(step.node.config, self.parts(step))

    @property
    def missing(self) -> list[Step]:
        return [step for step in self.steps.values() if step.manifest is None]

    def next_group(self) -> list[Step]:
        """The missing nodes of the earliest stage that are ready; one for each key."""
        ready = [step for step in self.missing if self._is_ready(step)]
        stage = min((step.node.stage for step in ready), key=stages.NAMES.index)
        group = {step.key: step for step in ready if step.node.stage == stage}
        return list(group.values())

    def _is_ready(self, step: Step) -> bool:
        names = {ref.partition(":")[0] for ref in step.node.inputs.values()}
        return step.key is not None and all(self.steps[name].manifest for name in names)


def _path_of(clips: tuple[Clip, ...], digests: set[str]) -> str:
    """The first held-out clip with one of these digests."""
    held_out = (clip.path for clip in clips if clip.split in ("valid", "test"))
    return next(path for path in held_out if location.sha256(path) in digests)


def _listed(clip: Clip) -> list[Any]:
    """What is cheap to know of a clip and tells that it has changed."""
    return [clip.path, clip.label, clip.split, clip.size, clip.modified]


def reseed(config: Config, offset: int) -> Config:
    """The same configuration with other random numbers in every learned stage."""
    seeds = {f"{name}.seed": getattr(config, name).seed + offset for name in SEEDED}
    return override(config, seeds)


def read_inputs(request: Request, store: Store) -> Inputs:
    """The clips of the corpus, if there is one, and of the task, once for every fold.

    Raises:
        ConfigError: what was named cannot be read, or cannot be a corpus or a task.
    """
    corpus_path, task_path = request.corpus, request.task
    if task_path is None and corpus_path is not None:
        raise ConfigError(
            "--corpus is the unlabelled half; name the labelled clips with --task as well."
        )
    if task_path is None:
        corpus_path, task_path = corpora.demo_manifests((store.root / "demo").uri)
    data = request.config.data
    clips = corpora.read(task_path)
    if request.folds:
        tasks = [
            Task(tuple(corpora.for_fold(clips, fold)), f"fold{fold}/")
            for fold in corpora.folds(clips)
        ]
    else:
        split = corpora.assign(clips, data.valid_fraction, data.test_fraction, data.split_seed)
        tasks = [Task(tuple(split))]
    for task in tasks:
        corpora.check_task(list(task.clips))
    if corpus_path is None:
        return Inputs(None, tuple(tasks))
    return Inputs(tuple(corpora.as_corpus(corpora.read(corpus_path))), tuple(tasks))


class Run:
    """One execution of a plan.

    Args:
        plan: what is to be built.
        hardware: what it may use.
        stream: where its events go.
        record: provenance, where the process that was started is another one.
        check_parts: called when all clips are ingested; by default the plan's own.
    """

    def __init__(
        self,
        plan: Plan,
        hardware: runtime.Hardware,
        stream: Stream,
        record: dict[str, Any] | None = None,
        check_parts: Callable[[], None] | None = None,
    ) -> None:
        self.plan, self.hardware, self.stream = plan, hardware, stream
        self.request = plan.request
        self.id = uuid.uuid4().hex[:8]
        self.record = record or provenance.collect()
        self._check_parts = check_parts or plan.check_parts
        self._resumed: dict[str, int] = {}
        self._announced: set[str] = set()
        self._cancelled = threading.Event()
        stream.subscribe(self._watch)

    def _watch(self, event: Any) -> None:
        if isinstance(event, Resumed):
            self._resumed[event.node] = event.epoch

    def execute(self, cluster: runtime.Cluster | None = None) -> None:
        """Build all that is missing.

        Args:
            cluster: with a session that others use as well; by default one of this run's own, and
                none at all where nothing is missing.

        Raises:
            runtime.Cancelled: `cancel` was called.
        """
        self.stream.emit(
            RunStarted(flatten(self.request.config), tuple(self.plan.steps), self.record)
        )
        self._announce_hits()
        if not self.plan.missing:
            self.plan.refuse_overlap()
            return
        if cluster:
            self._build_all(cluster)
            return
        storage = self.plan.store.root / "work" / self.id
        with open_cluster(self.request.options, self.hardware, self.stream, storage) as own:
            self._build_all(own)

    def cancel(self) -> None:
        """Have `execute` give up after the epoch at hand; called from another thread."""
        self._cancelled.set()

    def _build_all(self, cluster: runtime.Cluster) -> None:
        ingested = False
        first = self.plan.next_group()[0].node.stage
        more = any(step.node.stage != first for step in self.plan.missing)
        if first == "ingest" and more and not self.hardware.joined:
            # The workers start while the first clips are read.
            cluster.session.start()
        while self.plan.missing:
            if self._cancelled.is_set():
                raise runtime.Cancelled("cancelled")
            group = self.plan.next_group()
            if group[0].node.stage != "ingest" and not ingested:
                ingested = True
                self.plan.refuse_overlap()
                self._check_parts()
            self._build(group, cluster)
            self.plan.refresh()
            self._announce_hits()

    def _announce_hits(self) -> None:
        for name, step in self.plan.steps.items():
            if step.status == "hit" and step.manifest and name not in self._announced:
                self._announced.add(name)
                self.stream.emit(
                    NodeHit(step.node.name, step.node.stage, str(step.key), step.manifest)
                )

    def check_fit(self) -> None:
        """Refuse what the cluster can never satisfy.

        Raises:
            ConfigError: names the stage, what is missing and the remedy.
        """
        runtime.check_cluster(self.request.options, self.hardware)
        for step in {step.node.stage: step for step in self.plan.missing}.values():
            runtime.check_fit(step.node.stage, self.needs(step), self.hardware)

    def needs(self, step: Step) -> dict[str, float]:
        """What a node asks of the cluster while it is built."""
        return stages.module(step.node.stage).needs(self.request.options, self.hardware)

    def _build(self, group: list[Step], cluster: runtime.Cluster) -> None:
        keys = [f"{step.node.stage}/{step.key}" for step in group]
        with ExitStack() as leases:
            leases.enter_context(cluster.lease(keys, self.id))
            group = [step for step in group if not self._found(step)]
            if group:
                self._build_now(group, cluster)

    def _found(self, step: Step) -> bool:
        """Whether another run has built it while this one waited."""
        step.manifest = self.plan.store.manifest(step.node.stage, str(step.key))
        step.status = "hit" if step.manifest else step.status
        return step.manifest is not None

    def _build_now(self, group: list[Step], cluster: runtime.Cluster) -> None:
        builds = [self._as_build(step) for step in group]
        for step in group:
            self.stream.emit(
                NodeStarted(
                    step.node.name,
                    step.node.stage,
                    str(step.key),
                    self._config(step),
                    self._upstream(step),
                )
            )
        began = time.time()
        try:
            results = stages.module(group[0].node.stage).run(builds, cluster)
        except BaseException as error:
            for step, build in zip(group, builds, strict=True):
                with suppress(OSError):
                    # Another worker may still write there.
                    build.out.delete()
                given_up = isinstance(error, runtime.Cancelled)
                if given_up:
                    build.checkpoints.delete()
                stopped = isinstance(error, KeyboardInterrupt)
                reason = "interrupted" if stopped else str(error) or type(error).__name__
                self.stream.emit(NodeFailed(step.node.name, reason, given_up))
            raise
        shares = _shares(results, time.time() - began)
        for step, build, facts, seconds in zip(group, builds, results, shares, strict=True):
            self._commit(step, build, facts, began, seconds)

    def _as_build(self, step: Step) -> stages.Build:
        stage, key = step.node.stage, str(step.key)
        inputs = {name: self.plan.artifact(ref) for name, ref in step.node.inputs.items()}
        return stages.Build(
            step.node.name,
            step.node.config,
            inputs,
            self.plan.store.begin(stage, key),
            self.plan.store.checkpoints(stage, key),
            step.clips,
        )

    def _commit(
        self, step: Step, build: stages.Build, facts: stages.Facts, began: float, seconds: float
    ) -> None:
        stage, key = step.node.stage, str(step.key)
        manifest = {
            "node": step.node.name,
            "stage": stage,
            "key": key,
            "version": stages.version(stage),
            "config": self._config(step),
            "inputs": self._upstream(step),
            "facts": facts,
            "seconds": round(seconds, 3),
            "provenance": {**self.record, "began": began, "ended": time.time()},
        }
        self.plan.store.commit(stage, key, build.out, manifest)
        build.checkpoints.delete()
        step.manifest = self.plan.store.manifest(stage, key)
        step.status, step.seconds = "built", seconds
        step.resumed_from_epoch = self._resumed.get(step.node.name)
        self.stream.emit(
            NodeFinished(step.node.name, stage, key, seconds, step.manifest or manifest)
        )

    def _config(self, step: Step) -> dict[str, Any]:
        return {name: s.model_dump(mode="json") for name, s in step.node.config.items()}

    def _upstream(self, step: Step) -> dict[str, str]:
        """Input name -> where it lies in the store (stage/key, with the part after a colon)."""
        found = {}
        for name, ref in step.node.inputs.items():
            source, _, part = ref.partition(":")
            up = self.plan.steps[source]
            found[name] = f"{up.node.stage}/{up.key}" + (f":{part}" if part else "")
        return found


@contextmanager
def open_cluster(
    options: RunOptions,
    hardware: runtime.Hardware,
    stream: Stream,
    storage: Folder,
    *,
    shared: bool = False,
) -> Iterator[runtime.Cluster]:
    """The Ray that pipelines run on, with the session that trains for them.

    Args:
        storage: for Ray Train's own records while it runs.
        shared: whether others build on it at the same time.
    """
    # Imports torch, which a run whose results are all kept never needs.
    from unfused import training

    with runtime.connect(options, hardware, stream, shared=shared) as cluster:
        cluster.session = training.Session(cluster, storage)
        try:
            yield cluster
        finally:
            if not cluster.session.close():
                runtime.abandon()


def _shares(results: list[stages.Facts], seconds: float) -> Iterator[float]:
    """A group's wall time, shared out in proportion to what each node says it took."""
    own = [float(facts.pop("own_seconds", 1.0)) for facts in results]
    for part in own:
        yield seconds * part / max(sum(own), 1e-9)
