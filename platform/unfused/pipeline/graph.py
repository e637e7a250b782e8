"""The graph of a pipeline: plain data in topological order.

The rule of this file: another arm, seed or fold is a few more nodes, not a mode inside a stage; and
no node but `evaluate` has an edge to the test clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unfused.arms import ARMS, Arm
from unfused.config import Config, EncoderConfig, Section
from unfused.config.choices import ScorerConfig, default
from unfused.store import Folder, StoreError

SEED_STEP = 1009
"""Between the seeds of parallel clusterings, so that they are none of `--seeds`."""


@dataclass(frozen=True)
class Ref:
    """An edge: what a node makes, or one part of what an ingest makes."""

    node: str
    part: str = ""

    def __truediv__(self, part: str) -> Ref:
        return Ref(self.node, part)


@dataclass(frozen=True)
class Given:
    """What is there already and stands for a node: known by the digest of its content.

    Attributes:
        folder: its files.
        digest: of them.
        facts: as a manifest of the node's stage has them.
    """

    folder: Folder
    digest: str
    facts: Mapping[str, Any] = field(repr=False)

    @classmethod
    def artifact(cls, location: str) -> Given:
        """An artifact of any store.

        Args:
            location: its folder or URI.

        Raises:
            StoreError: there is no finished artifact.
        """
        folder = Folder.of(location)
        try:
            facts = folder.read_json("manifest.json")["facts"]
        except (FileNotFoundError, ValueError, KeyError):
            raise StoreError(
                f"{location} is no finished artifact; name a folder of a store that has a"
                " manifest.json."
            ) from None
        return cls(folder, content_digest(folder), facts)


def content_digest(folder: Folder) -> str:
    """SHA-256 of the names and bytes of all files but the manifest, which knows where it lies."""
    total = hashlib.sha256()
    for info in folder.files():
        name = info.path.removeprefix(f"{folder.path}/")
        if name != "manifest.json":
            total.update(name.encode() + b"\0" + hashlib.sha256(folder.read(name)).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class Node:
    """One thing to be built: a stage, the config sections it reads, and whence its inputs come."""

    name: str
    stage: str
    config: Mapping[str, Section] = field(default_factory=dict)
    inputs: Mapping[str, Ref] = field(default_factory=dict)
    given: Given | None = None
    """What stands for it; it then has neither sections nor inputs."""


def graph(
    config: Config,
    *,
    has_corpus: bool,
    task_prefix: str = "",
    prefix: str = "",
    given: Mapping[str, Given] | None = None,
) -> tuple[Node, ...]:
    """The nodes of one pipeline in topological order.

    Args:
        config: of all nodes.
        has_corpus: whether there is a corpus beside the task's own training clips.
        task_prefix: tells the tasks of a cross-validation apart.
        prefix: tells repetitions of the learned stages apart.
        given: what stands for nodes, by their names without a prefix.
    """
    new = _Graph(config, f"{task_prefix}ingest/task", f"{task_prefix}{prefix}", given or {})
    arms = [ARMS[name] for name in config.arms]
    sources = {arm.source for arm in arms}
    corpus = new.ingest(has_corpus)
    encoders: dict[str, Ref] = {}
    if sources & {"teacher", "student"}:
        teacher = new.pretrain(corpus)
        encoders |= {arm.name: teacher for arm in arms if arm.source == "teacher"}
    if "student" in sources:
        clusters = new.rounds(teacher)
        students = [arm for arm in arms if arm.source == "student"]
        encoders |= {arm.name: new.student(arm, clusters) for arm in students}
    classifiers = [new.classifier(arm, encoders.get(arm.name)) for arm in arms]
    for arm, classifier in zip(arms, classifiers, strict=True):
        new.evaluate(arm, classifier)
    return tuple(new.nodes)


class _Graph:
    """Nodes in order; every method adds some and returns the edge that others read them by.

    Args:
        config: of all nodes.
        task: the node that ingests the task.
        prefix: of the names of all other nodes.
        given: what stands for nodes.
    """

    def __init__(
        self, config: Config, task: str, prefix: str, given: Mapping[str, Given]
    ) -> None:
        self.config, self.prefix, self.given = config, prefix, given
        self.task = Ref(task)
        self.train, self.labels = self.task / "train", self.task / "train.labels"
        self.nodes: list[Node] = []

    def add(
        self, name: str, sections: dict[str, Section], stage: str = "", **inputs: Ref
    ) -> Ref:
        """A node, whose stage its name begins with unless it is told."""
        stage = stage or name.partition("/")[0]
        full = f"{self.prefix}{name}"
        given = self.given.get(name)
        self.nodes.append(
            Node(full, stage, given=given) if given else Node(full, stage, sections, inputs)
        )
        return Ref(full)

    def ingest(self, has_corpus: bool) -> Ref:
        """The clips that are pre-trained on: a corpus, or the task's own."""
        sections = {key: getattr(self.config, key) for key in ("data", "audio", "ingest")}
        corpus = Ref("ingest/corpus", "corpus")
        names = [corpus.node, self.task.node] if has_corpus else [self.task.node]
        self.nodes += [Node(name, "ingest", sections) for name in names]
        return corpus if has_corpus else self.train

    def pretrain(self, corpus: Ref) -> Ref:
        sections = {"pretrain": self.config.pretrain, "encoder": self.config.teacher}
        return self.add("pretrain", sections, clips=corpus)

    def rounds(self, teacher: Ref) -> dict[str, Ref]:
        """Pseudo-labels of the last round, whose nodes have no ending, as a student's inputs."""
        seen = {"labels": self.labels} if self.config.cluster.num_clusters == "classes" else {}
        for number in range(1, self.config.rounds):
            clusters = self._round(f"/round{number}", teacher, seen)
            teacher = self._student(f"distill/round{number}", self.config.bootstrap, clusters)
        return self._round("", teacher, seen)

    def _round(self, ending: str, teacher: Ref, labels: dict[str, Ref]) -> dict[str, Ref]:
        embeddings = self.add(
            f"embed{ending}", {"embed": self.config.embed}, clips=self.train, teacher=teacher
        )
        config, found = self.config.cluster, {}
        for number in range(1, self.config.clusterings + 1):
            also = f"/{number}" if number > 1 else ""
            other = config.model_copy(update={"seed": config.seed + SEED_STEP * (number - 1)})
            found[f"clusters{number if also else ''}"] = self.add(
                f"cluster{ending}{also}", {"cluster": other}, embeddings=embeddings, **labels
            )
        return found

    def student(self, arm: Arm, clusters: dict[str, Ref]) -> Ref:
        recipe = self.config.distill.model_copy(update=dict(arm.distill))
        return self._student(arm.student, recipe, clusters)

    def _student(self, name: str, recipe: Section, clusters: dict[str, Ref]) -> Ref:
        sections = {"distill": recipe, "encoder": self.config.student}
        return self.add(name, sections, clips=self.train, **clusters)

    def classifier(self, arm: Arm, encoder: Ref | None) -> Ref:
        """What the arm ends in: fine-tuned from an encoder, or fitted to the clips."""
        inputs = {"clips": self.train, "labels": self.labels}
        if arm.source == "clips":
            scorer = default(ScorerConfig, arm.scorer)
            sections = {"scorer": scorer, "draws": self.config.finetune.draws}
            return self.add(arm.classifier, sections, **inputs)
        if self.config.finetune.use_validation:
            valid = self.task / "valid"
            inputs |= {"valid": valid, "valid_labels": self.task / "valid.labels"}
        recipe = self.config.finetune.model_copy(update=dict(arm.finetune))
        sections: dict[str, Section] = {"finetune": recipe}
        if arm.source == "fresh":
            fresh: EncoderConfig = self.config.student
            return self.add(arm.classifier, sections | {"encoder": fresh}, **inputs)
        if encoder is None:
            raise ValueError(f"Nothing builds the {arm.source!r} that arm {arm.name!r} needs.")
        return self.add(arm.classifier, sections, **inputs, encoder=encoder)

    def evaluate(self, arm: Arm, classifier: Ref) -> Ref:
        split = self.config.evaluate.split
        inputs = {"clips": self.task / split, "labels": self.task / f"{split}.labels"}
        sections = {"evaluate": self.config.evaluate}
        return self.add(arm.scores(split), sections, "evaluate", **inputs, classifier=classifier)
