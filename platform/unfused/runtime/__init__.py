"""The Ray that a run uses: what it has, how it is joined, and what passes over it.

The rule of this room: nothing waits for what can never come. What a stage needs is held against
what the cluster has or may grow to before it starts, and refused in one sentence.
"""

from __future__ import annotations

from unfused.runtime.connection import (
    Cancelled,
    Cluster,
    abandon,
    beside_driver,
    connect,
    free_places,
    leave,
    probe,
)
from unfused.runtime.hardware import (
    DoesNotFit,
    Hardware,
    check_cluster,
    check_fit,
    gpus_per_worker,
    jobs_at_once,
    logical_cpus,
    of_cluster,
    of_machine,
    resolve,
    shown,
)
from unfused.runtime.leases import Leases, alone, sweep
from unfused.runtime.place import NoPlace
from unfused.runtime.relay import Relay
from unfused.runtime.starting import (
    NoCluster,
    NoRoom,
    NotStarted,
    hold,
    prepare,
    quiet_ray,
    scratch,
    start,
    stop,
)

__all__ = [
    "Cancelled",
    "Cluster",
    "DoesNotFit",
    "Hardware",
    "Leases",
    "NoCluster",
    "NoPlace",
    "NoRoom",
    "NotStarted",
    "Relay",
    "abandon",
    "alone",
    "beside_driver",
    "check_cluster",
    "check_fit",
    "connect",
    "free_places",
    "gpus_per_worker",
    "hold",
    "jobs_at_once",
    "leave",
    "logical_cpus",
    "of_cluster",
    "of_machine",
    "prepare",
    "probe",
    "quiet_ray",
    "resolve",
    "scratch",
    "shown",
    "start",
    "stop",
    "sweep",
]
