"""The model that a run leaves, as its user meets it."""

from __future__ import annotations

from pathlib import Path

import unfused
from unfused.inference import load


def test_a_runs_model_labels_the_test_clips_as_the_summary_says(finished, small_task):
    _, summary = finished
    chosen = summary["chosen"]
    arm = chosen["by_draw"][0]
    model = unfused.load(summary["models"][arm])
    table = model.predict_all(sorted((small_task / "test").glob("*/*.*")))
    right = table["label"] == [Path(path).parent.name for path in table["path"]]
    assert right.mean() == chosen["accuracy"]["values"][0]
    assert model.facts.measured.own_accuracy == chosen["accuracy"]["values"][0]
    assert model.facts.arm == arm and model.facts.lineage["keys"]


def test_a_run_says_how_to_use_its_model_and_every_model_is_whole(finished):
    _, summary = finished
    folder = next(iter(summary["models"].values()))
    assert f"unfused predict {folder}" in " ".join(summary["stdout"].split())
    for place in summary["models"].values():
        assert load(place).classes == ["high", "low", "mid"]
        assert (Path(place) / "README.md").read_text().startswith("# task")
