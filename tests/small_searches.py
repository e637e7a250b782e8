"""Searches small enough for a test, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna

from conftest import ROOT, TINY
from unfused import pipeline, runtime
from unfused.config import Config, RunOptions, override, parse_overrides
from unfused.events import Stream
from unfused.tuning import SearchRequest, SearchRun
from unfused.tuning.space import Space, load
from unfused.tuning.study import opened
from unfused.tuning.trial import trial_plan, trial_request

HEAD = "from optuna.distributions import *\nCHOICES = CategoricalDistribution\n"
LAPTOP = runtime.Hardware(8, 0, bfloat16=False, cuml=False, joined=False)
CLUSTER = replace(LAPTOP, cpus=17, gpus=16, joined=True)


def write_space(folder: Path, text: str) -> str:
    """Write a space to a file; its path."""
    path = folder / "mine.py"
    path.write_text(HEAD + text)
    return str(path)


def space_of(*keys: str, objectives: dict[str, str] | None = None) -> Space:
    every = load(str(ROOT / "search_spaces" / "full.py"), Config())
    chosen = {key: every.distributions[key] for key in keys}
    return Space("some", chosen, {}, objectives or {"valid_accuracy": "maximize"})


def search_of(small_task, space: Space, tmp_path: Path, **changes) -> SearchRequest:
    options = RunOptions(store=str(tmp_path / "store"))
    config = override(Config(), {**parse_overrides(list(TINY)), **changes})
    return SearchRequest(pipeline.Request(config, options, None, str(small_task)), space)


def plan_of(small_task, space: Space, tmp_path: Path) -> tuple[pipeline.Plan, SearchRequest]:
    found = search_of(small_task, space, tmp_path)
    return trial_plan(trial_request(found.request, space), space), found


def run_of(asked: SearchRequest, hardware: runtime.Hardware = LAPTOP, **options) -> SearchRun:
    request = replace(asked.request, options=asked.request.options.model_copy(update=options))
    return SearchRun(replace(asked, request=request), hardware, Stream())


def open_study(folder: Path, space: Space, **changes):
    """One and the same study on disk."""
    settings = {"sampler": "tpe", "pruner": "median", "seed": 0, "identity": {}, **changes}
    return opened(str(folder / "s.journal"), "some", space, **settings)


TEMPERATURE = space_of("distill.temperature")
BLIND = space_of("distill.temperature", objectives={"effective_rank": "maximize"})
RATES = Space(
    "rates",
    {"audio.sample_rate": optuna.distributions.CategoricalDistribution((16000, 22050))},
    {},
    {"valid_accuracy": "maximize"},
)
