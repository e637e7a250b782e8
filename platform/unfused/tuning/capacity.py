"""How many trials run at a time: what one asks of the cluster, and what there is.

The rule of this file: it counts CPUs and GPUs and starts nothing.
"""

from __future__ import annotations

from unfused import cores, runtime
from unfused.config import RunOptions
from unfused.stages import Workers
from unfused.tuning.request import SearchRequest

TRIAL_CPUS = 0.1
"""Of a trial's own process, which waits for its workers most of the time."""


def trial_needs(options: RunOptions, hardware: runtime.Hardware) -> dict[str, float]:
    """What a trial asks of the cluster while it trains, its own process with it."""
    needs = Workers.needs(options, hardware)
    return needs | {"CPU": needs["CPU"] + TRIAL_CPUS}


def most_trials(options: RunOptions, hardware: runtime.Hardware) -> int:
    """Trials that can run at a time; 0 where not even one can."""
    needs = trial_needs(options, hardware)
    rooms = [hardware.cpus / needs["CPU"]]
    if needs["GPU"]:
        rooms.append(hardware.gpus / needs["GPU"])
    return int(min(rooms))


def concurrency(search: SearchRequest, hardware: runtime.Hardware) -> int:
    """Trials at a time: as many as there are devices for, at least one."""
    options = search.request.options
    gpus = Workers.needs(options, hardware)["GPU"]
    cpus = hardware.cpus if hardware.joined else cores.available_cpus()
    if not gpus:
        return max(1, int(cpus) // (2 * options.num_workers + 2))
    # A machine of this run's own declares the CPUs that its trials ask for.
    return max(1, most_trials(options, hardware) if hardware.joined else int(hardware.gpus / gpus))


def check(options: RunOptions, hardware: runtime.Hardware) -> None:
    """Refuse trials that the cluster can never hold, or so many of them at a time.

    Raises:
        ConfigError: one sentence.
    """
    runtime.check_fit("a trial", trial_needs(options, hardware), hardware)
    most = most_trials(options, hardware)
    if options.concurrency > most:
        raise runtime.DoesNotFit(
            f"There are CPUs and GPUs for {most} trials at a time, not for"
            f" {options.concurrency}; lower --concurrency."
        )
