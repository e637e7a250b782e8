"""The lean trainer is Ray's own but for three processes, and one switch gives Ray's own."""

from __future__ import annotations

import pytest

from unfused.training.lean import lean


class Trainer:
    """In the place of Ray Train's."""

    def _create_default_callbacks(self):
        from ray.train.v2._internal.callbacks import DatasetsCallback
        from ray.train.v2._internal.callbacks.placement_group_callback import (
            PlacementGroupCleanerCallback,
        )

        spare = DatasetsCallback, PlacementGroupCleanerCallback
        return ["metrics", *(object.__new__(kind) for kind in spare), "state"]


@pytest.mark.parametrize("chosen", ["none", "dropout,log_mel"])
def test_where_the_switch_is_off_rays_own_trainer_runs(monkeypatch, chosen):
    monkeypatch.setenv("UNFUSED_SPEEDUPS", chosen)
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    assert lean(Trainer) is Trainer


@pytest.mark.slow
def test_the_lean_trainer_leaves_out_what_has_no_use_here(monkeypatch):
    monkeypatch.setenv("UNFUSED_SPEEDUPS", "all")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    assert lean(Trainer)()._create_default_callbacks() == ["metrics", "state"]
