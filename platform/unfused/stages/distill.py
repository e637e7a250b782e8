"""Distill: a randomly initialised student learns the pseudo-labels and from itself."""

from __future__ import annotations

from collections.abc import Sequence

from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.pretrain import TrainedFacts, trained


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    from unfused.jobs.distill import DistillJob

    jobs = [
        DistillJob(
            build.node,
            build.inputs["clips"],
            tuple(v for name, v in build.inputs.items() if name.startswith("clusters")),
            tuple(v for name, v in build.inputs.items() if name.startswith("embeddings")),
            build.config["encoder"],
            build.config["distill"],
            build.out,
            build.checkpoints,
        )
        for build in builds
    ]
    return [trained(*one) for one in zip(builds, workers.run(jobs), strict=True)]


STAGE = Stage(version=6, facts=TrainedFacts, access=Workers, run=run)
