"""Ray Train's trainer without what a Ray of this run's own has no use for.

The rule of this file: one swap of a class, for which Ray's own stands in where it is off.
"""

from __future__ import annotations

import os
from typing import Any

from unfused import speedups


def lean(trainer: type) -> type:
    """Ray Train's trainer without three processes; itself where the speedup `lean` is off.

    One hands out data sets that are given to the trainer (workers make their own here), one frees
    the places of a controller that died, for which it needs a dashboard, and there is none; one
    looks whether a cloud is about to take nodes away. Each costs a start, and wakes a hundred times
    a second as long as the workers train.
    """
    if not speedups.enabled("lean"):
        return trainer
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    class Lean(trainer):
        def _create_default_callbacks(self) -> list[Any]:
            spare = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [c for c in super()._create_default_callbacks() if not isinstance(c, spare)]

    return Lean
