"""Selftrain: a student of the labels that the probes give all clips, once for every draw."""

from __future__ import annotations

from collections.abc import Sequence

from unfused.scorers import ScorerFacts, of_all_draws
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.finetune import check
from unfused.stages.trust import EMBEDDINGS


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    return [_run(build, workers) for build in builds]


def _run(build: Build, workers: Workers) -> Built:
    from unfused.jobs.selftrain import SelftrainJob

    jobs = [
        SelftrainJob(
            build.node,
            build.inputs["clips"],
            build.inputs["labels"],
            build.inputs.get("trust"),
            {
                name.removeprefix(EMBEDDINGS): artifact
                for name, artifact in build.inputs.items()
                if name.startswith(EMBEDDINGS)
            },
            build.inputs.get("encoder"),
            build.config.get("encoder"),
            build.config["selftrain"],
            build.config["scoring"],
            build.config["draws"],
            build.out,
            build.checkpoints,
            repeats,
        )
        for repeats in workers.share(build.config["draws"].num_repeats)
    ]
    return Built(of_all_draws(workers.run(jobs)))


STAGE = Stage(version=2, facts=ScorerFacts, access=Workers, run=run, check=check)
