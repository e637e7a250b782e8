"""The graph of a pipeline: plain data in topological order.

The rule of this file: another arm, seed or fold is a few more nodes, not a mode inside a stage; and
no node but `evaluate` has an edge to the test clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from unfused import teachers
from unfused.arms import ARMS, METHOD, Arm
from unfused.config import (
    CombineConfig,
    Config,
    ConfigError,
    DistillConfig,
    EmbedConfig,
    EncoderConfig,
    Section,
)
from unfused.config.choices import ScorerConfig, default
from unfused.probing.facts import STUDENT
from unfused.store import MANIFEST, NO_MANIFEST, Folder, Kept, StoreError
from unfused.teachers import Outside

SEED_STEP = 1009
"""Between the seeds of parallel clusterings, so that they are none of `--seeds`."""
OWN_NAME = "own"
"""The teacher that is pre-trained."""


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
            manifest = folder.read_json(MANIFEST)
            facts, there = manifest["facts"], Folder(Kept.of_manifest(folder, manifest).uri)
        except (FileNotFoundError, *NO_MANIFEST):
            raise StoreError(
                f"{location} is no finished artifact; name a folder of a store that has a"
                f" {MANIFEST}."
            ) from None
        return cls(there, content_digest(there), facts)


def content_digest(folder: Folder) -> str:
    """SHA-256 of the names and bytes of all files but the manifest, which knows where it lies."""
    total = hashlib.sha256()
    for info in folder.files():
        name = info.path.removeprefix(f"{folder.path}/")
        if name != MANIFEST:
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
    outside: Outside | None = None
    """The teacher from outside that it takes in; it then has neither either."""


@dataclass(frozen=True)
class Teachers:
    """Whose embeddings are clustered and trusted.

    Attributes:
        own: whether one is pre-trained.
        outside: those that somebody else trained, by name.
    """

    own: bool = True
    outside: Mapping[str, Outside] = field(default_factory=dict)

    def among(self, config: Config) -> Teachers:
        """Those that take part, by `teachers.heard`.

        Raises:
            ConfigError: it names one that is not there; an arm has no teacher.
        """
        found, known = self, [OWN_NAME] * self.own + [*self.outside]
        if config.teachers.heard != "all":
            if unknown := set(config.teachers.heard) - set(known):
                raise ConfigError(
                    f"teachers.heard names {min(unknown)!r}, and the teachers are"
                    f" {', '.join(known)}; name some of these."
                )
            names = set(config.teachers.heard)
            outside = {name: one for name, one in self.outside.items() if name in names}
            found = Teachers(self.own and OWN_NAME in names, outside)
        if "teacher" in config.arms and not found.own:
            raise ConfigError(
                "The arm `teacher` is the encoder that is pre-trained, and there is none: add"
                " --teacher own, or leave the arm out."
            )
        return found


OWN = Teachers()


def graph(
    config: Config,
    *,
    has_corpus: bool,
    task_prefix: str = "",
    prefix: str = "",
    given: Mapping[str, Given] | None = None,
    who: Teachers = OWN,
) -> tuple[Node, ...]:
    """The nodes of one pipeline in topological order.

    Args:
        config: of all nodes.
        has_corpus: whether there is a corpus beside the task's own training clips.
        task_prefix: tells the tasks of a cross-validation apart.
        prefix: tells repetitions of the learned stages apart.
        given: what stands for nodes, by their names without a prefix.
        who: may teach.
    """
    heard = who.among(config)
    new = _Graph(config, f"{task_prefix}ingest/task", f"{task_prefix}{prefix}", given or {}, heard)
    arms = [ARMS[name] for name in config.arms]
    new.ingest(has_corpus)
    students = [arm for arm in arms if arm.source == "student"]
    if METHOD not in students and any(arm.hears_student for arm in arms):
        students.append(METHOD)
    trusting = any(arm.trusts for arm in arms)
    if students or trusting or any(arm.source == "teacher" for arm in arms):
        new.teach()
    if students:
        new.study(students)
    if trusting:
        new.trust()
    classifiers = [new.classifier(arm) for arm in arms]
    for arm, classifier in zip(arms, classifiers, strict=True):
        new.evaluate(arm, classifier)
    return tuple(new.nodes)


@cache
def _feature(spec: str) -> Outside:
    """A teacher that nothing has to be brought for: always the same."""
    return teachers.read(spec)


class _Graph:
    """Nodes in order.

    Args:
        config: of all nodes.
        task: the node that ingests the task.
        prefix: of the names of all other nodes.
        given: what stands for nodes.
        who: teaches.
    """

    def __init__(
        self, config: Config, task: str, prefix: str, given: Mapping[str, Given], who: Teachers
    ) -> None:
        self.config, self.prefix, self.given, self.who = config, prefix, given, who
        self.task = Ref(task)
        self.train, self.labels = self.task / "train", self.task / "train.labels"
        self.corpus, self.original = self.train, self.task
        """`original` has the task's clips at the rate that the most demanding teacher wants."""
        self.teachers: dict[str, Ref] = {}
        """Encoders by name: one's own, those from outside, and in the end the student."""
        self.embeddings: dict[str, Ref] = {}
        """Theirs of the training clips."""
        self.features: set[Ref] = set()
        """Of the teachers those that nothing has to be brought for."""
        self.judging: set[str] = set()
        """Of these by name those that no encoder learns."""
        self.encoders: dict[str, Ref] = {}
        """What arms are fine-tuned from."""
        self.trusted: Ref | None = None
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

    def ingest(self, has_corpus: bool) -> None:
        """The clips of the task, and those that are pre-trained on where they are others."""
        if has_corpus:
            self.corpus = Ref("ingest/corpus", "corpus")
            self.nodes.append(Node(self.corpus.node, "ingest", self._ingested(self.rate)))
        self.nodes.append(Node(self.task.node, "ingest", self._ingested(self.rate)))
        if self.highest > self.rate:
            self.original = Ref(f"{self.task.node}@{self.highest}")
            self.nodes.append(Node(self.original.node, "ingest", self._ingested(self.highest)))

    def _ingested(self, rate: int) -> dict[str, Section]:
        """What an ingest reads, for shards of a rate in Hz."""
        audio = self.config.audio.model_copy(update={"sample_rate": rate})
        return {"audio": audio, "ingest": self.config.ingest}

    @property
    def rate(self) -> int:
        """Hz of the clips that encoders are trained on."""
        return self.config.audio.sample_rate

    @property
    def highest(self) -> int:
        """Hz that some teacher wants, where that is more."""
        return max([self.rate, *(one.facts.sample_rate for one in self.who.outside.values())])

    def teach(self) -> None:
        """The teachers whose embeddings are clustered."""
        if self.who.own:
            sections = {"pretrain": self.config.pretrain, "encoder": self.config.teacher}
            features = self._features() if self.config.pretrain.objective.hears_features else {}
            made = self.add("pretrain", sections, clips=self.corpus, **features)
            self.teachers[OWN_NAME] = made
        for name, outside in self.who.outside.items():
            self.teachers[name] = self.take(name, outside)

    def teach_also(self) -> None:
        """And those that nothing has to be brought for."""
        self.teachers |= self._also()

    def _also(self) -> dict[str, Ref]:
        return self._free(self.config.teachers.also)

    def _free(self, specs: Sequence[str]) -> dict[str, Ref]:
        found = [_feature(spec) for spec in specs]
        made = {one.facts.name: self.take(one.facts.name, one) for one in found}
        self.features |= set(made.values())
        return made

    def _features(self) -> dict[str, Ref]:
        """What features say of the clips that are pre-trained on."""
        apart = self.corpus != self.train
        found = {
            name: self.embed(f"embed{'/corpus' * apart}/{name}", teacher, self.corpus)
            for name, teacher in self._also().items()
        }
        if not apart:
            self.embeddings |= found
        return {f"embeddings/{name}": ref for name, ref in found.items()}

    def take(self, name: str, outside: Outside) -> Ref:
        """A teacher from outside, the same whatever the seed or the fold."""
        node = Node(f"teacher/{name}", "teacher", outside=outside)
        if node.name not in {known.name for known in self.nodes}:
            self.nodes.append(node)
        return Ref(node.name)

    def embed(self, name: str, teacher: Ref, clips: Ref | None = None) -> Ref:
        """What a teacher makes of clips, by default those of training at a rate that is enough."""
        outside = self.who.outside.get(teacher.node.partition("/")[2])
        demands = bool(outside) and outside.facts.sample_rate > self.rate
        clips = clips or (self.original if demands else self.task) / "train"
        # No layer, no windows: what an encoder is embedded with changes nothing of features.
        config = EmbedConfig() if teacher in self.features else self.config.embed
        return self.add(name, {"embed": config}, clips=clips, teacher=teacher)

    def study(self, arms: Sequence[Arm]) -> None:
        """The students of these arms, of pseudo-labels of the last round."""
        if self.config.teachers.clustered == "all":
            self.teach_also()
        if not self.teachers:
            raise ConfigError(
                "No teacher is left to make pseudo-labels of: name one in teachers.heard, or set"
                " teachers.clustered=all."
            )
        seen = {"labels": self.labels} if self.config.cluster.num_clusters == "classes" else {}
        heard: Mapping[str, Ref] = self.teachers
        for number in range(1, self.config.rounds):
            clusters = self._round(f"/round{number}", heard, seen)
            student = self._student(f"distill/round{number}", self.config.bootstrap, clusters)
            heard = {OWN_NAME: student}
        clusters = self._round("", heard, seen)
        for arm in arms:
            recipe = self.config.distill.model_copy(update=dict(arm.distill))
            self.encoders[arm.name] = self._student(arm.student, recipe, clusters)

    def _round(
        self, ending: str, heard: Mapping[str, Ref], labels: dict[str, Ref]
    ) -> dict[str, Ref]:
        """Clusters of what every teacher embeds, as a student's inputs."""
        found: dict[str, Ref] = {}
        for name, teacher in heard.items():
            of = "" if name == OWN_NAME else f"/{name}"
            known = self.embeddings.get(name) if self.teachers.get(name) == teacher else None
            embeddings = known or self.embed(f"embed{ending}{of}", teacher)
            if self.teachers.get(name) == teacher:
                self.embeddings[name] = embeddings
            for number in range(1, self.config.clusterings + 1):
                seed = self.config.cluster.seed + SEED_STEP * (number - 1)
                other = self.config.cluster.model_copy(update={"seed": seed})
                also = f"/{number}" if number > 1 else ""
                found[f"clusters{number if also else ''}{of}"] = self.add(
                    f"cluster{ending}{of}{also}",
                    {"cluster": other},
                    embeddings=embeddings,
                    **labels,
                )
        return found

    def _student(self, name: str, recipe: DistillConfig, clusters: dict[str, Ref]) -> Ref:
        sections = {"distill": recipe, "encoder": self.config.student}
        inputs = dict(clusters)
        if recipe.feature_weight or recipe.soft_temperature:
            for key, ref in clusters.items():
                made = next(node for node in self.nodes if node.name == ref.node)
                inputs[key.replace("clusters", "embeddings", 1)] = made.inputs["embeddings"]
        return self.add(name, sections, clips=self.train, **inputs)

    def trust(self) -> None:
        """Probes on all teachers, those that cost nothing and the student among them."""
        self.teach_also()
        judging = self._free(self.config.teachers.judging)
        self.judging = {*judging} - {*self.teachers}
        self.teachers |= judging
        if METHOD.name in self.encoders:
            self.teachers[STUDENT] = self.encoders[METHOD.name]
        for name, teacher in self.teachers.items():
            if name not in self.embeddings:
                of = "" if name == OWN_NAME else f"/{name}"
                self.embeddings[name] = self.embed(f"embed{of}", teacher)
        inputs = {f"embeddings/{name}": ref for name, ref in self.embeddings.items()}
        sections = {"teachers": self.config.teachers, "draws": self.config.finetune.draws}
        self.trusted = self.add("trust", sections, labels=self.labels, clips=self.train, **inputs)

    def classifier(self, arm: Arm) -> Ref:
        """What the arm ends in."""
        make = {
            "clips": self._fitted,
            "probes": self._combined,
            "labels": self._selftrained,
        }.get(arm.source, self._finetuned)
        return make(arm)

    def _fitted(self, arm: Arm) -> Ref:
        scorer = default(ScorerConfig, arm.scorer)
        sections = {"scorer": scorer, "draws": self.config.finetune.draws}
        return self.add(arm.classifier, sections, clips=self.train, labels=self.labels)

    def _combined(self, arm: Arm) -> Ref:
        assert self.trusted is not None
        sections = {"combine": CombineConfig(members=arm.members), "embed": self.config.embed}
        inputs = {f"teacher/{name}": ref for name, ref in self.teachers.items()}
        return self.add(
            arm.classifier,
            sections,
            clips=self.train,
            original=self.original / "train",
            trust=self.trusted,
            **inputs,
        )

    def _selftrained(self, arm: Arm) -> Ref:
        recipe = self.config.selftrain.model_copy(update=dict(arm.selftrain))
        sections = {
            "selftrain": recipe,
            "scoring": self.config.finetune.scoring,
            "draws": self.config.finetune.draws,
            "encoder": self.config.student,
        }
        inputs = {"clips": self.train, "labels": self.labels}
        if arm.trusts:
            assert self.trusted is not None
            inputs["trust"] = self.trusted
        if arm.trusts and recipe.feature_weight:
            unmatched = {STUDENT, *self.judging}
            matched = {name: ref for name, ref in self.embeddings.items() if name not in unmatched}
            inputs |= {f"embeddings/{name}": ref for name, ref in matched.items()}
        if recipe.start == "student" and METHOD.name in self.encoders:
            inputs["encoder"] = self.encoders[METHOD.name]
        return self.add(arm.classifier, sections, **inputs)

    def _finetuned(self, arm: Arm) -> Ref:
        inputs = {"clips": self.train, "labels": self.labels}
        if self.config.finetune.use_validation:
            valid = self.task / "valid"
            inputs |= {"valid": valid, "valid_labels": self.task / "valid.labels"}
        recipe = self.config.finetune.model_copy(update=dict(arm.finetune))
        sections: dict[str, Section] = {"finetune": recipe}
        if arm.source == "fresh":
            fresh: EncoderConfig = self.config.student
            return self.add(arm.classifier, sections | {"encoder": fresh}, **inputs)
        encoder = self.teachers[OWN_NAME] if arm.source == "teacher" else self.encoders[arm.name]
        return self.add(arm.classifier, sections, **inputs, encoder=encoder)

    def evaluate(self, arm: Arm, classifier: Ref) -> Ref:
        split = self.config.evaluate.split
        task = self.original if arm.source == "probes" else self.task
        inputs = {"clips": task / split, "labels": task / f"{split}.labels"}
        sections = {"evaluate": self.config.evaluate}
        return self.add(arm.scores(split), sections, "evaluate", **inputs, classifier=classifier)
