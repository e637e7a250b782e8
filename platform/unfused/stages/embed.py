"""Embed: the target's clips through the teacher."""

from __future__ import annotations

from collections.abc import Sequence

from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Facts


class EmbedFacts(Facts):
    """Of the embeddings of all clips."""

    num_clips: int
    embedding_dim: int
    layer: str


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    from unfused.jobs.embed import EmbedJob

    jobs = [
        EmbedJob(
            build.node,
            build.inputs["clips"],
            build.inputs["teacher"],
            build.config["embed"],
            build.out,
        )
        for build in builds
    ]
    return [_embedded(*one) for one in zip(builds, workers.run(jobs), strict=True)]


def _embedded(build: Build, told: tuple[int, float]) -> Built:
    width, seconds = told
    clips, layer = build.inputs["clips"].facts.num_clips, build.config["embed"].layer
    return Built(EmbedFacts(num_clips=clips, embedding_dim=width, layer=layer), seconds)


STAGE = Stage(version=3, facts=EmbedFacts, access=Workers, run=run)
