"""Where and how a run happens: no result depends on it.

The rule of this file: what changes numbers belongs in `sections`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from unfused.config.changes import sentence
from unfused.config.section import ConfigError
from unfused.secrets import OF_DATABASE

MAX_TRIALS = 100_000
"""Of a study."""
MAX_AT_ONCE = 1024
"""Trials, jobs or workers."""
MAX_SEED = 2**31 - 1
"""Of a sampler."""


class RunOptions(BaseModel):
    """Where and how a run happens; never part of a result's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str = "store"
    """Folder or URI (s3://, gs://) of the artifacts."""
    tracking_uri: str | None = None
    """MLflow; by default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."""
    experiment: str = "unfused"
    """MLflow experiment."""
    num_workers: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] = 1
    """Ray Train workers that one job is spread over: they train, embed and score."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=1024)] | None = None
    """GPUs of one worker, or a share of one; by default one where the cluster has any."""
    jobs: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] | None = None
    """Jobs of a pipeline at a time, each on `num_workers`; by default as many as have GPUs, or CPU
    cores and memory."""
    strict: bool = False
    """Whether an artifact of the store that is damaged ends the run; else it is set aside and built
    again."""
    concurrency: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] = 1
    """Pipelines that share the cluster at a time (the trials of a search)."""

    @field_validator("store", "tracking_uri", "experiment")
    @classmethod
    def _said(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("it is empty; leave the option out for what it is by default")
        return text

    @model_validator(mode="after")
    def _whole_or_alone(self) -> RunOptions:
        share = self.gpus_per_worker or 0
        if share > 1 and share % 1:
            raise ValueError("--gpus-per-worker is a whole number, or a share of one GPU below 1")
        if 0 < share < 1 and self.num_workers > 1:
            raise ValueError("workers that train together cannot share a GPU: --gpus-per-worker 1")
        return self


OPTIONS = {f"--{name.replace('_', '-')}": (name,) for name in RunOptions.model_fields}
"""How the command line spells them."""


def run_options(**values: Any) -> RunOptions:
    """Options from the command line.

    Raises:
        ConfigError: a value out of range, or two that exclude each other; no such option.
    """
    for name in values.keys() - RunOptions.model_fields.keys():
        known = ", ".join(RunOptions.model_fields)
        raise ConfigError(f"There is no option {name!r}; choose from {known}.")
    try:
        return RunOptions(**values)
    except ValidationError as error:
        raise ConfigError(sentence(error, OPTIONS)) from None


def database_url(given: str) -> str:
    """The URL of a database as SQLAlchemy takes it: with the driver that comes with this platform,
    where it names none, and an @ in its password spelt as %40."""
    url = re.sub("^postgresql:", "postgresql+psycopg2:", given)
    return OF_DATABASE.sub(lambda found: f"{found[1]}://{found[2].replace('@', '%40')}@", url)
