"""Finetune: a classifier from an encoder and the few labels, once for every draw of them.

The draws of the labels are the same for all arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfused.config import ConfigError
from unfused.scorers import ScorerFacts, of_all_draws
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage


def check(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse a class none of whose training clips can be used: nobody could learn it.

    Raises:
        ConfigError: with the remedy.
    """
    if missing := [name for name, count in parts["labels"].counts.items() if not count]:
        raise ConfigError(
            f"No training clip of class {missing[0]!r} could be used: all are quarantined"
            " (quarantine.json beside the ingested clips says why); add others or remove the class."
        )


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    return [_run(build, workers) for build in builds]


def _run(build: Build, workers: Workers) -> Built:
    from unfused.jobs.finetune import FinetuneJob

    jobs = [
        FinetuneJob(
            build.node,
            build.inputs["clips"],
            build.inputs["labels"],
            build.inputs.get("encoder"),
            build.config.get("encoder"),
            build.inputs.get("valid"),
            build.inputs.get("valid_labels"),
            build.config["finetune"],
            build.out,
            repeats,
        )
        for repeats in workers.share(build.config["finetune"].num_repeats)
    ]
    return Built(of_all_draws(workers.run(jobs)))


STAGE = Stage(version=8, facts=ScorerFacts, access=Workers, run=run, check=check)
