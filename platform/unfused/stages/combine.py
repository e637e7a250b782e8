"""Combine: what is heard of the trusted teachers, and they themselves, as one classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from unfused import teachers
from unfused.audio.samples import Cut
from unfused.probing.facts import DrawTrust, TrustFacts, neighbours_file, probes_file
from unfused.scorers import ScorerFacts
from unfused.scorers.probes import TEACHER_FILE, draw_file, joined_in, teachers_of
from unfused.stages.access import Tasks
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Artifact
from unfused.teachers import TeacherFacts

TEACHER = "teacher/"
"""What the names of the inputs that are teachers begin with; the teacher's own follows."""


def run(builds: Sequence[Build], tasks: Tasks) -> list[Built]:
    return [Built(_Combined(build).write()) for build in builds]


class _Combined:
    """One classifier.

    Args:
        build: with the inputs `trust`, `clips`, every teacher, and `original`, clips at the rate
            that the most demanding of them wants.
    """

    def __init__(self, build: Build) -> None:
        self.build, self.members = build, build.config["combine"].members
        self.trust: Artifact[TrustFacts] = build.inputs["trust"]
        self.audio = build.inputs["clips"].facts.audio
        self.rate = build.inputs["original"].facts.audio.sample_rate

    def write(self) -> ScorerFacts:
        """Write what every draw hears, and all teachers that any draw listens to."""
        out, draws = self.build.out, self.trust.facts.draws
        for repeat, draw in enumerate(draws):
            settings = {"weights": self._weights(draw), "sample_rate": self.rate}
            out.write_json(draw_file(repeat), settings)
            out.write(probes_file(repeat), self.trust.folder.read(probes_file(repeat)))
        voices = {name for draw in draws for name in self._weights(draw)}
        for name in teachers_of(voices):
            self._copy(name, self.build.inputs[f"{TEACHER}{name}"])
        for name in joined_in(voices):
            out.write(neighbours_file(name), self.trust.folder.read(neighbours_file(name)))
        return ScorerFacts(
            kind="probes",
            classes=self.trust.facts.classes,
            num_repeats=len(draws),
            num_labels=self.trust.facts.num_labels,
            num_validation_labels=0,
            cross_validated=self._cross_validated,
        )

    def _weights(self, draw: DrawTrust) -> Mapping[str, float]:
        return {draw.best: 1.0} if self.members == "best" else draw.heard

    @cached_property
    def _cross_validated(self) -> list[float] | None:
        draws = self.trust.facts.draws
        found = [d.accuracy[d.best] if self.members == "best" else d.pooled for d in draws]
        return None if None in found else found

    def _copy(self, name: str, teacher: Artifact) -> None:
        facts = teacher.facts
        if not isinstance(facts, TeacherFacts):
            config = self.build.config["embed"]
            cut = Cut(self.audio.crop_samples, config.num_crops)
            facts = teachers.own(name, self.audio.sample_rate, cut, config.layer)
        folder, facts = self.build.out / name, facts.settled(self.audio.sample_rate)
        folder.write_json(TEACHER_FILE, facts.model_dump(mode="json"))
        for file in teachers.files(teacher.folder, facts):
            folder.write(file, teacher.folder.read(file))


STAGE = Stage(version=2, facts=ScorerFacts, access=Tasks, run=run)
