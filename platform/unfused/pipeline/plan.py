"""The plan of a request: every node, its key, and whether the store has it.

The rule of this file: a key is worked out as soon as it can be known, and nothing is built here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from unfused import stages, teachers
from unfused.arms import ARMS
from unfused.config import ConfigError
from unfused.corpora.clip import Clip
from unfused.pipeline.graph import Node, Ref
from unfused.pipeline.request import Inputs, Request, read_inputs, repetitions
from unfused.store import (
    MANIFEST,
    Artifact,
    Damaged,
    Folder,
    Kept,
    Store,
    artifact_key,
    digest,
)

Urgency = tuple[float, int]
"""Of a node; what has the greatest is built first."""


@dataclass
class Step:
    """A node with what is known of its artifact so far."""

    node: Node
    clips: tuple[Clip, ...] = field(default=(), repr=False)
    key: str | None = None
    status: str = "after ingest"
    """hit, miss, built, given, or `after ingest` where the key is not known yet."""
    manifest: dict[str, Any] | None = field(default=None, repr=False)
    facts: Any = field(default=None, repr=False)
    """Those of the manifest, as the stage's own type."""
    seconds: float = 0.0
    resumed_from_epoch: int | None = None

    def settle(self, status: str, manifest: dict[str, Any]) -> None:
        """The artifact is there.

        Raises:
            KeyError | ValidationError: its manifest is not one of its stage.
        """
        self.facts = stages.get(self.node.stage).facts.model_validate(manifest["facts"])
        self.status, self.manifest = status, manifest

    def unsettle(self) -> None:
        """The artifact is there no more."""
        self.status, self.manifest, self.facts = "miss", None, None

    @property
    def place(self) -> str:
        """Where its artifact is in a store: `stage/key`."""
        return f"{self.node.stage}/{self.key}"

    @property
    def reads(self) -> set[str]:
        """The nodes that it is built on."""
        return {ref.node for ref in self.node.inputs.values()}


@dataclass(frozen=True)
class Listed:
    """What the listed clips say of a part that is not ingested yet."""

    num_clips: float
    """No more can come of them; infinite where recordings may be cut."""
    counts: Mapping[str, int]
    """Clips of each class."""


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
        self.damaged: dict[str, Damaged] = {}
        """What lies in the place of an artifact and is none, by `stage/key`."""
        for prefix, task, nodes in repetitions(request, self.inputs):
            self.repetitions.append(prefix)
            for node in nodes:
                clips = {"ingest/corpus": self.inputs.corpus or ()}.get(node.name, task.listed)
                if node.name not in self.steps:
                    self.steps[node.name] = Step(node, clips if node.stage == "ingest" else ())
        with self.store.telling():
            self.refresh()

    def keep(self, names: Collection[str]) -> None:
        """Forget all nodes but these, which must have their inputs among them."""
        self.steps = {name: step for name, step in self.steps.items() if name in names}

    def upstream(self, names: Iterable[str]) -> set[str]:
        """These nodes and all that they are built on."""
        found = set(names)
        for name, step in reversed(self.steps.items()):
            if name in found:
                found |= step.reads
        return found

    def refresh(self, busy: Collection[str] = ()) -> None:
        """Work out every key that can be known now, and look it up in the store.

        Args:
            busy: nodes that are left alone, for they are being built.
        """
        for step in self.steps.values():
            if step.manifest is None and step.node.name not in busy:
                self._look_up(step)

    def _look_up(self, step: Step) -> None:
        if given := step.node.given:
            step.key = given.digest[:16]
            step.settle("given", {"facts": dict(given.facts)})
            return
        step.key = self._key(step)
        if step.key and not self.found(step):
            step.status = "miss"

    def found(self, step: Step) -> bool:
        """Whether the store has a node's artifact by now, as whole as can be told without reading
        it.

        Raises:
            Damaged: it is not whole, and the request is strict.
        """
        stage, key = step.node.stage, str(step.key)
        try:
            if (manifest := self.store.manifest(stage, key)) is None:
                return False
            step.settle("hit", manifest)
        except Damaged as damage:
            self.note(step, damage)
        except (KeyError, ValidationError):
            folder = self.store.folder(stage, key)
            self.note(step, Damaged(folder.uri, MANIFEST, "not of its stage"))
        return step.manifest is not None

    def note(self, step: Step, damage: Damaged) -> None:
        """What lies in the place of an artifact is none.

        Raises:
            Damaged: the request is strict.
        """
        if self.request.options.strict:
            raise damage
        self.damaged[step.place] = damage
        for other in self.steps.values():
            if other.place == step.place:
                other.unsettle()

    def set_aside(self, step: Step) -> tuple[Damaged, Folder] | None:
        """Have what was noted of an artifact's place out of the way: what it was, and where it
        went; None where there is nothing."""
        damage = self.damaged.pop(step.place, None)
        aside = damage and self.store.set_aside(step.node.stage, str(step.key))
        return (damage, aside) if damage and aside else None

    def _key(self, step: Step) -> str | None:
        node = step.node
        inputs = {name: self._identity(ref) for name, ref in node.inputs.items()}
        if node.outside:
            inputs = {"teacher": node.outside.digest}
        if node.stage == "ingest":
            inputs = {"listing": digest([_listed(clip) for clip in step.clips])}
        if any(identity is None for identity in inputs.values()):
            return None
        config = {name: section.identity() for name, section in node.config.items()}
        known = {name: str(identity) for name, identity in inputs.items()}
        return artifact_key(node.stage, stages.get(node.stage).version, config, known)

    def _identity(self, ref: Ref) -> str | None:
        step = self.steps[ref.node]
        if not ref.part:
            return step.key
        return self._part(ref).digest if step.manifest else None

    def _part(self, ref: Ref) -> Any:
        parts = self.steps[ref.node].facts.parts
        if ref.part not in parts:
            raise ConfigError(
                f"The task has no {ref.part.partition('.')[0]} clips; give its manifest a `split`"
                " column that has them, or none so that it is split."
            )
        return parts[ref.part]

    def artifact(self, ref: Ref) -> Artifact:
        """The artifact, or the part of one, that an edge of the graph leads to."""
        step = self.steps[ref.node]
        folder = self.folder(step)
        if not ref.part:
            assert step.manifest is not None
            return Artifact(folder, str(step.key), step.facts)
        facts = self._part(ref)
        return Artifact(folder / ref.part, facts.digest, facts)

    def folder(self, step: Step) -> Folder:
        """Where a node's artifact is."""
        given = step.node.given
        if given:
            return given.folder
        folder = self.store.folder(step.node.stage, str(step.key))
        return Kept.of_manifest(folder, step.manifest or {})

    def parts(self, step: Step, look_up: Callable[[Ref], Any] | None = None) -> dict[str, Any]:
        """Facts of the ingested parts that a node reads, itself or through what it builds on.

        Args:
            step: the node.
            look_up: gives those of one part; by default what ingest left.
        """
        found: dict[str, Any] = {}
        for name, ref in step.node.inputs.items():
            if ref.part:
                found[name] = (look_up or self._part)(ref)
            else:
                found = self.parts(self.steps[ref.node], look_up) | found
        return found

    def check_early(self) -> None:
        """What the ingested clips rule out, or what those that are listed already do.

        Raises:
            ConfigError: of the first missing node that cannot be built from them.
        """
        if not any(step.node.stage == "ingest" for step in self.missing):
            self.check_parts()
            return
        for step in self.missing:
            if check := stages.get(step.node.stage).check:
                check(step.node.config, self.parts(step, self._listed))

    def _listed(self, ref: Ref) -> Listed:
        split = ref.part.partition(".")[0]
        usable = [clip for clip in self.steps[ref.node].clips if clip.size > 0]
        clips = [clip for clip in usable if split in (clip.split, "corpus")]
        cut = self.request.config.ingest.segment_seconds
        may_grow = cut != "off" and (cut != "auto" or split == "corpus")
        counts = Counter(str(clip.label) for clip in clips if clip.label is not None)
        return Listed(math.inf if may_grow else len(clips), counts)

    def pseudo_labels(self, prefix: str) -> Step | None:
        """The clustering that the students of a repetition learn, the first of several."""
        students = [self.steps.get(f"{prefix}{arm.student}") for arm in ARMS.values()]
        for student in filter(None, students):
            for name, ref in student.node.inputs.items():
                if name.startswith("clusters"):
                    return self.steps[ref.node]
        return None

    def check_parts(self) -> None:
        """What only the ingested data can tell, before anything is trained.

        Raises:
            ConfigError: of the first missing node that cannot be built from its parts.
        """
        for step in self.missing:
            if check := stages.get(step.node.stage).check:
                check(step.node.config, self.parts(step))
            if step.node.stage == "embed":
                self._check_rate(step)

    def _check_rate(self, step: Step) -> None:
        """Refuse a teacher from outside that wants a higher rate than clips and recordings have."""
        outside = self.steps[step.node.inputs["teacher"].node].node.outside
        if outside:
            clips = self._part(step.node.inputs["clips"])
            rate = self.request.config.audio.sample_rate
            teachers.check_rate(outside.facts, rate, clips.recorded_rate)

    @property
    def missing(self) -> list[Step]:
        return [step for step in self.steps.values() if step.manifest is None]

    def ready_groups(self) -> list[list[Step]]:
        """The missing nodes whose inputs are there, one for each key, as they are built: those of a
        stage together where it says so, others alone."""
        groups: dict[str, list[Step]] = {}
        for step in {step.key: step for step in self.missing if self._is_ready(step)}.values():
            stage = step.node.stage
            together = stages.get(stage).together
            groups.setdefault(stage if together else step.node.name, []).append(step)
        return list(groups.values())

    def urgency(self) -> dict[str, Urgency]:
        """By node, how many others wait for it one after the other, then how many it has waited
        for itself: what comes late and is long leaves nothing to do beside it.

        Infinitely many wait for what no node waits for, which is what a person does.
        """
        waiting, waited = dict.fromkeys(self.steps, 0), dict.fromkeys(self.steps, 0)
        for name, step in self.steps.items():
            waited[name] = max((waited[read] + 1 for read in step.reads), default=0)
        for name, step in reversed(self.steps.items()):
            for read in step.reads:
                waiting[read] = max(waiting[read], waiting[name] + 1)
        return {name: (waiting[name] or math.inf, waited[name]) for name in self.steps}

    def _is_ready(self, step: Step) -> bool:
        return step.key is not None and all(self.steps[name].manifest for name in step.reads)


def _listed(clip: Clip) -> list[Any]:
    """What is cheap to know of a clip and tells that it has changed."""
    known = [clip.path, clip.label, clip.split, clip.size, clip.modified]
    return [*known, clip.start, clip.end] if clip.is_stretch else known
