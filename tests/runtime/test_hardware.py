"""Nothing waits for what can never come: hardware is counted, and held against what is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from unfused import runtime
from unfused.config import Config, ConfigError, RunOptions, flatten, override
from unfused.runtime.hardware import HEAD, DoesNotFit, Hardware, jobs_of_gpu
from unfused.stages import Workers

LAPTOP = Hardware(cpus=4, gpus=0, bfloat16=False, cuml=False, joined=False)
CLUSTER = Hardware(cpus=64, gpus=8, bfloat16=True, cuml=True, joined=True)


def test_a_request_for_more_gpus_than_there_are_is_refused_in_one_sentence():
    options = RunOptions(num_workers=8, gpus_per_worker=1)
    needs = Workers.needs(options, LAPTOP)
    with pytest.raises(DoesNotFit, match=r"pretrain needs 8 GPUs and this machine has .* 0; lower"):
        runtime.check_fit("pretrain", {"GPU": needs["GPU"]}, LAPTOP)


def test_ray_data_always_has_cpus_beside_the_workers():
    for workers in (1, 2, 5):
        options = RunOptions(num_workers=workers)
        assert Workers.needs(options, LAPTOP)["CPU"] >= 2 * workers
        own = runtime.logical_cpus(options)
        assert own >= Workers.needs(options, LAPTOP)["CPU"]


def test_workers_take_gpus_where_there_are_any():
    assert runtime.gpus_per_worker(RunOptions(), CLUSTER) == 1
    assert runtime.gpus_per_worker(RunOptions(), LAPTOP) == 0
    assert runtime.gpus_per_worker(RunOptions(gpus_per_worker=0), CLUSTER) == 0


@pytest.mark.parametrize(
    ("cores", "gibibytes", "of_gpu", "gpus", "jobs"),
    [
        (16, 128, 80, 1, 4),
        (16, 128, 24, 1, 3),
        (8, 16, 8, 1, 1),
        (16, 128, 80, 8, 1),
        (2, 64, 80, 1, 1),
    ],
)
def test_small_jobs_share_a_gpu_that_has_room(cores, gibibytes, of_gpu, gpus, jobs, monkeypatch):
    _on_machine(monkeypatch, cores, gibibytes)
    properties = SimpleNamespace(total_memory=of_gpu * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
    assert jobs_of_gpu(gpus) == jobs
    shared = replace(LAPTOP, gpus=gpus, jobs_of_gpu=jobs)
    assert runtime.jobs_at_once(RunOptions(), shared) == gpus * jobs
    assert runtime.jobs_at_once(RunOptions(gpus_per_worker=1), shared) == gpus
    assert runtime.gpus_per_worker(RunOptions(num_workers=2), shared) == 1


def _on_machine(monkeypatch, cores: int, gibibytes: float) -> None:
    monkeypatch.setattr("unfused.runtime.hardware.available_cpus", lambda: cores)
    memory = int(gibibytes * 2**30)
    monkeypatch.setattr("unfused.runtime.hardware.available_memory", lambda: memory)


@pytest.mark.parametrize(
    ("cores", "memory", "options", "jobs"),
    [
        (1, 64, {}, 1),
        (2, 64, {}, 2),
        (32, 64, {}, 4),
        (4, 7, {}, 2),
        (4, 2, {}, 1),
        (4, 64, {"num_workers": 2}, 2),
        (4, 64, {"concurrency": 2}, 2),
        (4, 64, {"concurrency": 8}, 1),
        (2, 64, {"jobs": 3}, 3),
    ],
)
def test_a_machine_has_as_many_jobs_at_a_time_as_cores_and_memory_for_them(
    cores, memory, options, jobs, monkeypatch
):
    _on_machine(monkeypatch, cores, memory)
    asked = RunOptions(**options)
    assert runtime.jobs_at_once(asked, LAPTOP) == jobs
    # Each job's workers and readers, and one more task, have CPUs at the same time.
    needed = asked.concurrency * (2 * asked.num_workers * jobs + 1)
    assert runtime.logical_cpus(asked) >= needed


@pytest.mark.parametrize(
    ("options", "jobs"),
    [
        ({}, 8),
        ({"num_workers": 2}, 4),
        ({"gpus_per_worker": 0.5}, 16),
        ({"concurrency": 8}, 1),
        ({"gpus_per_worker": 0}, 4),
    ],
)
def test_a_cluster_has_as_many_as_gpus_else_leaves_cpus_to_others(options, jobs):
    assert runtime.jobs_at_once(RunOptions(**options), CLUSTER) == jobs
    small = Hardware(cpus=4, gpus=0, bfloat16=False, cuml=False, joined=True)
    assert runtime.jobs_at_once(RunOptions(), small) == 1


@pytest.mark.parametrize(
    ("options", "gpus", "says"),
    [
        ({"jobs": 9}, 8, "room for 8 jobs at a time, not for 9; lower --jobs"),
        ({"jobs": 5, "num_workers": 2}, 8, "room for 4 jobs"),
        ({"jobs": 3, "concurrency": 3}, 8, "not for 9; lower --jobs or --concurrency"),
        ({"jobs": 33}, 0, "room for 32 jobs"),
        ({"jobs": 8}, 8, ""),
        ({"jobs": 32}, 0, ""),
        ({"num_workers": 16}, 8, ""),
    ],
)
def test_jobs_that_would_wait_for_one_another_for_ever_are_refused(options, gpus, says):
    store = {"store": "s3://bucket/store", **options}
    hardware = Hardware(cpus=64, gpus=gpus, bfloat16=True, cuml=True, joined=True)
    if not says:
        return runtime.check_cluster(RunOptions(**store), hardware)
    with pytest.raises(DoesNotFit, match=says):
        runtime.check_cluster(RunOptions(**store), hardware)


@pytest.mark.parametrize(
    ("hardware", "precision", "backend"),
    [(LAPTOP, "float32", "torch"), (CLUSTER, "bfloat16", "cuml")],
)
def test_what_auto_means_is_settled_before_anything_is_keyed(hardware, precision, backend):
    config = runtime.resolve(Config(), hardware)
    settings = flatten(config)
    assert {settings[name] for name in settings if name.endswith(".precision")} == {precision}
    by_clips = {"audio.crop_seconds", "embed.num_crops", "finetune.num_crops"}
    by_clips |= {"ingest.segment_seconds"}
    by_clips |= {f"{name}.epochs" for name in ("pretrain", "bootstrap", "distill", "selftrain")}
    by_request = {"teachers.weighting"}
    assert {name for name, value in settings.items() if value == "auto"} == by_clips | by_request
    assert config.cluster.backend == backend


def node(host: str, **resources: float) -> dict:
    return {"Alive": True, "NodeManagerAddress": host, "Resources": resources}


def test_gpus_that_an_autoscaler_may_start_count_before_they_are_there():
    head = node("a", CPU=8, **{HEAD: 1})
    alone = runtime.of_cluster(RunOptions(), [head], "", cuml=False)
    assert (alone.cpus, alone.gpus, alone.machines) == (8, 0, 1)
    grows = runtime.of_cluster(RunOptions(), [head], "8*CPU=8,GPU=1; 2*CPU=16", cuml=True)
    assert (grows.cpus, grows.gpus, grows.node_gpus, grows.machines) == (104, 8, 1, 11)
    grown = [head, *(node(f"g{i}", CPU=8, GPU=1) for i in range(8)), {"Alive": False}]
    assert runtime.of_cluster(RunOptions(), grown, "8*CPU=8,GPU=1; 2*CPU=16", cuml=True) == grows


def test_growth_that_cannot_be_read_is_one_sentence():
    with pytest.raises(ConfigError, match="'8 x GPU' does not read like 8\\*CPU=8,GPU=1; correct"):
        runtime.of_cluster(RunOptions(), [], "8 x GPU", cuml=False)


def test_a_worker_that_no_node_can_hold_is_refused():
    grows = runtime.of_cluster(RunOptions(), [], "8*CPU=8,GPU=1", cuml=False)
    options = RunOptions(gpus_per_worker=2, store="s3://bucket/store")
    with pytest.raises(DoesNotFit, match=r"needs 2 GPUs and no machine .* more than 1; lower"):
        runtime.check_cluster(options, grows)
    runtime.check_cluster(RunOptions(store="s3://bucket/store"), grows)


def test_a_store_that_other_machines_cannot_see_is_refused():
    nodes = [node("a", CPU=8), node("b", CPU=8)]
    two = runtime.of_cluster(RunOptions(), nodes, "", cuml=False)
    with pytest.raises(ConfigError, match=r"folder of one machine .* to 2; give s3://"):
        runtime.check_cluster(RunOptions(), two)
    runtime.check_cluster(RunOptions(store="file:///mnt/store"), two)
    runtime.check_cluster(
        RunOptions(), runtime.of_cluster(RunOptions(), nodes[:1] * 4, "", cuml=False)
    )


def test_a_precision_that_was_asked_for_is_kept():
    asked = override(Config(), {"distill.precision": "float32"})
    assert runtime.resolve(asked, CLUSTER).distill.precision == "float32"
