"""What this machine or cluster has or may grow to, and whether a run fits there.

The rule of this file: nothing waits for what can never come. What a stage needs is held against the
hardware before it starts, and refused in one sentence.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfused.config import Config, ConfigError, RunOptions, override
from unfused.cores import MOST_JOBS, available_cpus, available_memory
from unfused.precision import native_bfloat16

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Devices of Linux without one of which torch finds no GPU: NVIDIA, AMD, Windows' subsystem."""
GROWS_TO = "UNFUSED_GROWS_TO"
"""Environment of a cluster's head: the nodes that its autoscaler may start, as `8*CPU=8,GPU=1`,
more kinds after semicolons. Ray 2.60 tells jobs only of nodes that are there."""
GPU_JOB_BYTES = 8 * 2**30
"""Memory that a GPU has for each of the jobs that share it."""
JOB_BYTES = 3 * 2**30
"""Memory that a machine has for each job at a time, its worker and what feeds it with it."""
HEAD = "node:__internal_head__"


class DoesNotFit(ConfigError):
    """A stage needs what the cluster can never offer."""


@dataclass(frozen=True)
class Hardware:
    """What the cluster has or may grow to."""

    cpus: float
    gpus: float
    bfloat16: bool
    """Whether the devices that train have native bfloat16 arithmetic."""
    cuml: bool
    joined: bool
    """Whether this is somebody's cluster (named by RAY_ADDRESS) and not this run's own."""
    jobs_of_gpu: int = 1
    """Jobs of one worker that share a GPU, unless the options say otherwise."""
    node_gpus: float = math.inf
    """The most GPUs of one node."""
    machines: int = 1
    """Machines that the cluster has or may grow to."""


def of_machine(options: RunOptions) -> Hardware:
    """The hardware of this machine, on which a run starts a Ray of its own."""
    gpus = local_gpus()
    shared_by = jobs_of_gpu(gpus)
    return Hardware(
        logical_cpus(options, gpus * shared_by),
        gpus,
        _bfloat16(options, gpus),
        has_cuml(),
        joined=False,
        jobs_of_gpu=shared_by,
    )


def of_cluster(
    options: RunOptions, nodes: Sequence[Mapping[str, Any]], grows_to: str, cuml: bool
) -> Hardware:
    """The hardware of somebody's cluster.

    Args:
        options: of the run: whether its workers take GPUs.
        nodes: as `ray.nodes()` has them.
        grows_to: as `GROWS_TO` has it; empty for a cluster that does not grow.
        cuml: whether cuML is installed.

    Raises:
        ConfigError: `grows_to` cannot be read.
    """
    alive = [node for node in nodes if node["Alive"]]
    shapes = [node["Resources"] for node in alive]
    hosts = {node["NodeManagerAddress"] for node in alive}
    heads = [shape for shape in shapes if HEAD in shape]
    grown = heads + [shape for count, shape in _node_kinds(grows_to) for _ in range(count)]
    # Nodes that are there now may be some of those that the cluster grows to.
    cpus, gpus = (max(_total(shapes, name), _total(grown, name)) for name in ("CPU", "GPU"))
    return Hardware(
        cpus,
        gpus,
        _bfloat16(options, gpus),
        cuml,
        joined=True,
        node_gpus=max((shape.get("GPU", 0.0) for shape in shapes + grown), default=0.0),
        machines=max(len(hosts), len(grown)),
    )


def _bfloat16(options: RunOptions, gpus: float) -> bool:
    """Of what the workers compute on: `--gpus-per-worker 0` leaves GPUs to clusterings."""
    return native_bfloat16(gpu=gpus > 0 and options.gpus_per_worker != 0)


def _total(shapes: Sequence[Mapping[str, float]], resource: str) -> float:
    return sum(shape.get(resource, 0.0) for shape in shapes)


def _node_kinds(text: str) -> list[tuple[int, dict[str, float]]]:
    """`8*CPU=8,GPU=1; 4*CPU=16` as how many there may be of what."""
    kinds = []
    try:
        for kind in filter(None, map(str.strip, text.split(";"))):
            count, _, shape = kind.partition("*")
            pairs = (resource.split("=") for resource in shape.split(","))
            kinds.append((int(count), {name.strip(): float(amount) for name, amount in pairs}))
    except ValueError:
        raise ConfigError(
            f"{GROWS_TO}={text!r} does not read like 8*CPU=8,GPU=1; correct it where the cluster's"
            " head is started."
        ) from None
    return kinds


def resolve(config: Config, hardware: Hardware) -> Config:
    """Turn every `auto` that changes numbers into what this hardware makes of it."""
    from unfused import clustering

    precision = "bfloat16" if hardware.bfloat16 else "float32"
    auto = [name for name, section in config if getattr(section, "precision", "") == "auto"]
    backend = clustering.resolve(config.cluster.backend, int(hardware.gpus), hardware.cuml)
    changes = {f"{name}.precision": precision for name in auto}
    return override(config, changes | {"cluster.backend": backend})


def gpus_per_worker(options: RunOptions, hardware: Hardware) -> float:
    """What the options say, else a GPU for each worker where there are any; a share of one where
    each job has one worker and a GPU has room for several: a small student leaves it idle."""
    if options.gpus_per_worker is not None:
        return options.gpus_per_worker
    if not hardware.gpus:
        return 0
    # Workers that train together cannot share one.
    return 1 / hardware.jobs_of_gpu if options.num_workers == 1 else 1


def jobs_at_once(options: RunOptions, hardware: Hardware) -> int:
    """Jobs of a pipeline that run side by side: as many as have workers' GPUs, else CPU cores and
    memory, each; at least one."""
    if options.jobs:
        return options.jobs
    gpus = gpus_per_worker(options, hardware) * options.num_workers
    if gpus:
        room = hardware.gpus / gpus
    elif hardware.joined:
        # Others may want as much again, and nobody may wait for a CPU that never comes free.
        room = min(MOST_JOBS, hardware.cpus / (4 * options.num_workers))
    else:
        room = _local_room(options)
    return max(1, int(room / options.concurrency))


def _local_room(options: RunOptions) -> float:
    """Jobs that the cores and the memory of this machine have room for."""
    room = min(MOST_JOBS, available_cpus() / options.num_workers, available_memory() / JOB_BYTES)
    return max(1.0, room)


def check_fit(stage: str, needs: dict[str, float], hardware: Hardware) -> None:
    """Refuse what can never run.

    Raises:
        DoesNotFit: names the stage, what is missing and the remedy.
    """
    for resource, has in (("CPU", hardware.cpus), ("GPU", hardware.gpus)):
        wanted = needs.get(resource, 0)
        if wanted > has:
            raise DoesNotFit(
                f"{stage} needs {wanted:g} {resource}s and this "
                f"{'cluster' if hardware.joined else 'machine'} has or may grow to {has:g}; "
                "lower --num-workers or --gpus-per-worker, or run on a larger cluster."
            )


def check_cluster(options: RunOptions, hardware: Hardware) -> None:
    """Refuse a worker that no node can hold, jobs that wait for one another for ever, and a store
    that other machines cannot see.

    Raises:
        DoesNotFit: a worker's GPUs are more than those of any node; jobs at a time want more than
            there is.
        ConfigError: the store is a folder of one machine, and the cluster has several.
    """
    each = gpus_per_worker(options, hardware)
    if each > hardware.node_gpus:
        raise DoesNotFit(
            f"A worker needs {each:g} GPUs and no machine of this cluster has or will have more"
            f" than {hardware.node_gpus:g}; lower --gpus-per-worker."
        )
    _check_jobs(options, hardware, each * options.num_workers)
    if hardware.machines > 1 and "://" not in options.store:
        raise ConfigError(
            f"--store {options.store} is a folder of one machine and this cluster has or may grow"
            f" to {hardware.machines}; give s3://bucket/path, gs://bucket/path, or file:///path for"
            " a folder that all of them mount (UNFUSED_STORE sets it for every run)."
        )


def _check_jobs(options: RunOptions, hardware: Hardware, gpus: float) -> None:
    """Refuse a number of jobs that was asked for and has no room, with so many GPUs for each."""
    most = math.inf
    if gpus:
        most = hardware.gpus / gpus
    elif hardware.joined:
        most = hardware.cpus / (2 * options.num_workers)
    wanted = (options.jobs or 1) * options.concurrency
    if options.jobs and options.jobs > 1 and wanted > most:
        raise DoesNotFit(
            f"There is room for {int(most)} jobs at a time, not for {wanted}; lower --jobs"
            f"{' or --concurrency' * (options.concurrency > 1)}."
        )


def shown(needs: dict[str, float]) -> str:
    """`{"CPU": 2.0, "GPU": 1.0}` as "2 CPU, 1 GPU"."""
    return ", ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)


def logical_cpus(options: RunOptions, gpu_jobs: int = 0) -> int:
    """CPUs that a cluster of this run's own declares, on a machine with GPUs for so many jobs.

    Workers and as many Ray Data tasks for every job at a time, two more tasks for every pipeline at
    a time, and one for the small actors that look after them: on a small machine they share cores,
    but none may wait for a CPU that never comes free.
    """
    jobs = options.jobs or max(1, int(max(_local_room(options), gpu_jobs) / options.concurrency))
    pipelines = options.concurrency * (2 * options.num_workers * jobs + 2)
    return max(available_cpus(), pipelines + (options.concurrency > 1))


def has_cuml() -> bool:
    """Whether cuML is installed."""
    return importlib.util.find_spec("cuml") is not None


def local_gpus() -> int:
    """GPUs that torch sees; it is imported (seconds) only where a driver is."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def jobs_of_gpu(gpus: int) -> int:
    """Jobs that share each of this machine's GPUs: what it, the cores and the memory have room for;
    at least one."""
    if not gpus:
        return 1
    import torch

    memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
    cores, beside = available_cpus() / (2 * gpus), available_memory() / (gpus * JOB_BYTES)
    return max(1, int(min(MOST_JOBS, memory / GPU_JOB_BYTES, cores, beside)))
