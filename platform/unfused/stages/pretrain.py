"""Pretrain: teach an encoder from unlabelled clips with one of the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unfused.config import ConfigError
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Artifact, Facts

if TYPE_CHECKING:
    from unfused.training import Fitted

EMBEDDINGS = "embeddings/"
"""What the names of the inputs begin with that are features of the clips."""


def check(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse a corpus that the objective cannot learn from.

    Raises:
        ConfigError: with the remedy.
    """
    clips = parts["clips"].num_clips
    if clips < 2:
        raise ConfigError(f"Pretraining needs at least 2 unlabelled clips; there are {clips}.")
    config["pretrain"].objective.check(clips)


class TrainedFacts(Facts):
    """Of a trained encoder."""

    num_clips: int
    training_seconds: float
    """That its epochs took, those before an interruption among them."""
    curve: list[dict[str, Any]]
    """A record for every epoch: `epoch`, `metrics`, `clips_per_second`, `wait_seconds`."""


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    from unfused.jobs.pretrain import PretrainJob

    jobs = [
        PretrainJob(
            build.node,
            build.inputs["clips"],
            embeddings_of(build),
            build.config["encoder"],
            build.config["pretrain"],
            build.out,
            build.checkpoints,
        )
        for build in builds
    ]
    return [trained(*one) for one in zip(builds, workers.run(jobs), strict=True)]


def embeddings_of(build: Build) -> tuple[Artifact, ...]:
    """Those that are among its inputs."""
    return tuple(one for name, one in build.inputs.items() if name.startswith(EMBEDDINGS))


def trained(build: Build, fitted: Fitted) -> Built:
    """What came of a node whose encoder was fitted to its clips."""
    facts = TrainedFacts(
        num_clips=build.inputs["clips"].facts.num_clips,
        training_seconds=fitted.training_seconds,
        curve=fitted.curve,
    )
    return Built(facts)


STAGE = Stage(version=7, facts=TrainedFacts, access=Workers, run=run, check=check)
