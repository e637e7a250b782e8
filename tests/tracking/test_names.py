"""What runs are called."""

from __future__ import annotations

import pytest

from unfused.config import RunOptions, flatten, override, preset
from unfused.pipeline import Request
from unfused.tracking import names


def called(changes: dict, task: str | None = "audio/sounds", start: str = "recommended", **more):
    config = override(preset(start), changes)
    base, settings = names.of_request(Request(config, RunOptions(), None, task, **more))
    return names.titled(base, flatten(config), settings)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "sounds"),
        ({"distill.temperature": 2.0, "cluster.num_clusters": 32}, "sounds k32 T2"),
        ({"finetune.labels_per_class": 5}, "sounds labels_per_class=5"),
        ({"pretrain.epochs": 3, "distill.temperature": 2.5}, "sounds T2.5 pretrain.epochs=3"),
    ],
)
def test_a_name_says_what_differs_from_the_preset_and_no_more(changes, name):
    assert called(changes) == name


def test_another_preset_is_told_and_its_own_settings_are_not():
    assert called({}, start="faithful") == "sounds faithful"
    assert called({"distill.temperature": 3.0}, start="faithful") == "sounds faithful T3"
    assert called({}, task=None, start="demo") == "demo"


def test_teachers_and_repetitions_are_told():
    name = called({}, seeds=3, folds=True, specs=("own", "onnx:teachers/speech.onnx"))
    assert name == "sounds seeds=3 folds +own +speech"


def test_a_name_has_room_for_some_settings_and_counts_the_others():
    sections = ("pretrain", "bootstrap", "distill", "selftrain")
    changes = {f"{section}.epochs": 3 for section in sections}
    changes |= {f"{section}.batch_size": 8 for section in sections}
    assert called(changes).endswith(" +3")
