"""Fit: a scorer that needs no encoder, once for every draw of the few labels."""

from __future__ import annotations

from collections.abc import Sequence

from unfused.scorers import ScorerFacts
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.finetune import check


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    from unfused.jobs.fit import FitJob

    jobs = [
        FitJob(
            build.node,
            build.inputs["clips"],
            build.inputs["labels"],
            build.config["scorer"],
            build.config["draws"],
            build.out,
        )
        for build in builds
    ]
    return [Built(facts) for facts in workers.run(jobs)]


STAGE = Stage(version=3, facts=ScorerFacts, access=Workers, run=run, check=check)
