"""Finetune: a classifier from an encoder and the few labels, once for every draw of them.

The draws of the labels are the same for all arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfused.config import ConfigError, DrawConfig
from unfused.scorers import ScorerFacts, of_all_draws
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage


def check(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse a label budget that the training clips cannot pay."""
    check_budget(config["finetune"], parts)


def check_draws(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """The same for a node that has the draws as a section of their own."""
    check_budget(config["draws"], parts)


def check_budget(config: DrawConfig, parts: Mapping[str, Any]) -> None:
    """Refuse a label budget that the training clips cannot pay.

    Raises:
        ConfigError: with the remedy.
    """
    wanted = config.labels_per_class
    counts = parts["labels"].counts
    fewest = min(counts, key=counts.get)
    if wanted and counts[fewest] < wanted:
        raise ConfigError(
            f"finetune.labels_per_class={wanted}, but class {fewest!r} has {counts[fewest]}"
            f" training clips; set it to {counts[fewest]} or less."
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


STAGE = Stage(version=7, facts=ScorerFacts, access=Workers, run=run, check=check)
