"""As many trials at a time as there are devices for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from small_searches import CLUSTER, LAPTOP, TEMPERATURE, run_of, search_of
from unfused import pipeline, runtime, tuning
from unfused.config import Config, RunOptions
from unfused.tuning import SearchRequest

GPUS = replace(LAPTOP, cpus=4, gpus=4)


@pytest.mark.parametrize(
    ("hardware", "options", "fits"),
    [
        (GPUS, {}, 4),
        (GPUS, {"gpus_per_worker": 0.5}, 8),
        (CLUSTER, {}, 8),
        (CLUSTER, {"num_workers": 2}, 4),
        (CLUSTER, {"num_workers": 4}, 2),
        (replace(CLUSTER, cpus=400), {}, 16),
        (replace(CLUSTER, gpus=0), {}, 4),
        (replace(CLUSTER, cpus=2), {}, 1),
    ],
)
def test_as_many_trials_at_a_time_as_there_are_devices_for(hardware, options, fits):
    request = pipeline.Request(Config(), RunOptions(**options))
    assert tuning.concurrency(SearchRequest(request, TEMPERATURE), hardware) == fits


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 8}, ""),
        ({"concurrency": 9}, "8 trials at a time.*--concurrency"),
        ({"num_workers": 9}, "--num-workers"),
    ],
)
def test_more_trials_at_a_time_than_fit_are_refused(options, says, small_task, tmp_path):
    run = run_of(search_of(small_task, TEMPERATURE, tmp_path), CLUSTER, **options)
    if not says:
        return run.check()
    with pytest.raises(runtime.DoesNotFit, match=says):
        run.check()
