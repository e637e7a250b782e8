"""A Ray of the run's own ends with it, and what it holds is given back."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from unfused import runtime, training
from unfused.config import RunOptions
from unfused.events import Stream
from unfused.pipeline import open_backend
from unfused.runtime.hardware import Hardware
from unfused.runtime.starting import sent_environment
from unfused.store import Folder

LAPTOP = Hardware(cpus=4, gpus=0, bfloat16=False, cuml=False, joined=False)
CLUSTER = Hardware(cpus=64, gpus=8, bfloat16=True, cuml=True, joined=True)


def test_workers_of_a_ray_of_ones_own_have_their_drivers_niceness(ray_cluster):
    import ray

    @ray.remote(num_cpus=0.1)
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert ray.get(niceness.remote()) == niceness._function()


@pytest.mark.parametrize(("hardware", "freed"), [(LAPTOP, True), (CLUSTER, False)])
def test_places_that_a_killed_process_held_are_free_again_on_a_ray_of_ones_own(
    ray_cluster, hardware, freed
):
    import ray
    from ray.util.placement_group import (
        placement_group,
        placement_group_table,
        remove_placement_group,
    )

    place = placement_group([{"CPU": 1}])
    ray.get(place.ready())
    runtime.free_places(hardware)
    try:
        assert (placement_group_table(place)["state"] == "REMOVED") == freed
    finally:
        remove_placement_group(place)


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_whose_workers_are_still_ending_leaves_ray_to_them(gone, tmp_path, monkeypatch):
    pool = SimpleNamespace(close=lambda: gone)
    cluster = SimpleNamespace()
    abandoned: list[bool] = []
    monkeypatch.setattr(runtime, "connect", lambda *_, **__: nullcontext(cluster))
    monkeypatch.setattr(runtime, "abandon", lambda: abandoned.append(True))
    monkeypatch.setattr(training, "Pool", lambda *_: pool)
    with open_backend(RunOptions(), LAPTOP, Stream(), Folder.of(tmp_path)) as opened:
        assert opened.pool is pool
    assert bool(abandoned) != gone


def test_a_clusters_workers_are_sent_no_secret(monkeypatch):
    monkeypatch.setenv("UNFUSED_STORE", "s3://KEY:lantern@bucket/store")
    monkeypatch.setenv("UNFUSED_CPUS", "3")
    sent = sent_environment()
    assert sent["UNFUSED_CPUS"] == "3" and "lantern" not in str(sent)
