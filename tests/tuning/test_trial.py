"""A trial sees no test clip, and costs what it built."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from small_searches import LAPTOP, TEMPERATURE, plan_of, search_of, space_of
from unfused import display, pipeline, runtime, stages
from unfused.arms import ARMS
from unfused.events import NodeFailed, OfTrial, Stream
from unfused.pipeline.run import _Building
from unfused.tuning.trial import _training_seconds, costs, trial_request


def test_a_trial_never_reads_test_clips_and_without_labelled_objectives_no_label(
    small_task, tmp_path
):
    plan, _ = plan_of(small_task, space_of("distill.temperature"), tmp_path)
    parts = [ref.part for step in plan.steps.values() for ref in step.node.inputs.values()]
    assert "train" in parts and "test" not in parts
    assert not any(name.startswith("evaluate") for name in plan.steps)
    blind = space_of("distill.temperature", objectives={"effective_rank": "maximize"})
    plan, _ = plan_of(small_task, blind, tmp_path)
    parts = [ref.part for step in plan.steps.values() for ref in step.node.inputs.values()]
    assert "distill/unfused" in plan.steps
    assert not any(part.endswith(".labels") for part in parts)


@pytest.mark.parametrize("arm", ["unfused", "mixture", "selftrain", "floor"])
def test_a_trial_that_left_out_labels_choose_ends_with_the_classifier(arm, small_task, tmp_path):
    asked = space_of("cluster.num_clusters", objectives={"cross_validated": "maximize"})
    plan, _ = plan_of(small_task, replace(asked, judged=arm), tmp_path)
    parts = {ref.part for step in plan.steps.values() for ref in step.node.inputs.values()}
    assert "train.labels" in parts and not parts & {"valid", "test", "valid.labels", "test.labels"}
    assert list(plan.steps)[-1] == ARMS[arm].classifier


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_search_chooses_on_validation_clips_and_ends_on_test_clips(split, small_task, tmp_path):
    asked = search_of(small_task, TEMPERATURE, tmp_path, **{"evaluate.split": split})
    assert trial_request(asked.request, TEMPERATURE).config.evaluate.split == "valid"
    last = trial_request(asked.request, TEMPERATURE, split="test")
    assert last.config.evaluate.split == "test"


def test_what_another_trial_has_built_meanwhile_is_a_hit(small_task, tmp_path):
    plan, _ = plan_of(small_task, TEMPERATURE, tmp_path)
    for step in plan.steps.values():
        step.manifest, step.status = {"seconds": 10.0}, "hit"
    plan.steps["distill/unfused"].status = "built"
    others = len(plan.steps) - 1
    found = {"hits": others, "built": 1, "seconds": 10.0, "saved_seconds": 10.0 * others}
    assert costs(plan) == found


def test_a_student_costs_its_epochs_and_not_the_start_of_workers():
    facts = SimpleNamespace(training_seconds=3.0)
    assert _training_seconds(SimpleNamespace(manifest={"seconds": 10.0}, facts=facts)) == 3.0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (runtime.Cancelled("cancelled"), "trial 3 distill/unfused given up"),
        (ValueError("no"), "trial 3 distill/unfused failed: no"),
    ],
)
def test_a_pruned_student_is_given_up_and_has_not_failed(
    error, line, small_task, tmp_path, monkeypatch
):
    plan, _ = plan_of(small_task, TEMPERATURE, tmp_path)
    seen: list = []
    run = pipeline.Run(plan, LAPTOP, Stream([seen.append]))

    def stop(builds, access):
        raise error

    monkeypatch.setattr(stages, "get", lambda stage: SimpleNamespace(run=stop))
    if isinstance(error, runtime.Cancelled):
        run.cancel()
    gone = SimpleNamespace(delete=lambda: None)
    build = SimpleNamespace(out=gone, checkpoints=gone)
    monkeypatch.setattr(run, "_as_build", lambda step: build)
    monkeypatch.setattr(run, "_upstream", lambda step: {})
    cluster = SimpleNamespace(lease=lambda *_: nullcontext())
    backend = SimpleNamespace(
        cluster=cluster,
        access=lambda stage, turn: SimpleNamespace(began=None, waited=0.0),
        pool=SimpleNamespace(making_room=nullcontext),
    )
    ended: SimpleQueue = SimpleQueue()
    _Building(run, [plan.steps["distill/unfused"]], (1, 1), backend, ended).run()
    assert ended.get().error is error
    assert isinstance(seen[-1], NodeFailed)
    assert display.Plain()._line(OfTrial(3, seen[-1])) == line
