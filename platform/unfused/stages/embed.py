"""Embed: the target's clips through the teacher, trained here or by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Facts
from unfused.teachers import TeacherFacts, check_rate

if TYPE_CHECKING:
    from unfused.jobs.embed import Embedded, EmbedJob, OutsideEmbedJob


class EmbedFacts(Facts):
    """Of the embeddings of all clips."""

    num_clips: int
    embedding_dim: int
    layer: str
    num_quarantined: int = 0
    """Clips on which the teacher gave no finite number, listed in `quarantine.json`; their rows are
    the mean of the others."""


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    for build in builds:
        facts = build.inputs["teacher"].facts
        if isinstance(facts, TeacherFacts):
            check_rate(facts, build.inputs["clips"].facts.audio.sample_rate)
    told = workers.run([_job(build) for build in builds])
    return [_embedded(*one) for one in zip(builds, told, strict=True)]


def _job(build: Build) -> EmbedJob | OutsideEmbedJob:
    from unfused.jobs.embed import EmbedJob, OutsideEmbedJob

    clips, teacher = build.inputs["clips"], build.inputs["teacher"]
    kind = OutsideEmbedJob if isinstance(teacher.facts, TeacherFacts) else EmbedJob
    return kind(build.node, clips, teacher, build.config["embed"], build.out)


def _embedded(build: Build, told: Embedded) -> Built:
    facts = build.inputs["teacher"].facts
    outside = isinstance(facts, TeacherFacts)
    made = EmbedFacts(
        num_clips=build.inputs["clips"].facts.num_clips,
        embedding_dim=told.width,
        layer=facts.layer if outside else build.config["embed"].layer,
        num_quarantined=told.num_quarantined,
    )
    return Built(made)


STAGE = Stage(version=4, facts=EmbedFacts, access=Workers, run=run)
