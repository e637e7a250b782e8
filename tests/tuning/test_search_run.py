"""What a search refuses before it trains, counts, and says where nothing came of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from small_searches import BLIND, RATES, TEMPERATURE, run_of, search_of, space_of
from unfused import pipeline
from unfused.config import AudioConfig, ConfigError
from unfused.data import LabelFacts, PartFacts
from unfused.stages.ingest import ClipCounts, IngestFacts
from unfused.tuning import SearchFailed, SearchRequest
from unfused.tuning.run import validation_labels
from unfused.tuning.trial import trial_request

CLUSTERS = space_of("cluster.num_clusters")


def _part(*shards: int, digest: str = "d") -> PartFacts:
    return PartFacts(
        digest=digest,
        shards=list(shards),
        seconds=1.0,
        durations=[0.1] * 5,
        audio=AudioConfig().settled(),
    )


def _facts(parts: dict) -> dict:
    """Of an ingested task, as its manifest has them."""
    found = IngestFacts(clips=ClipCounts(read=48, quarantined=0), parts=parts)
    return found.model_dump(mode="json")


def _ingest(asked: SearchRequest) -> None:
    """Put what ingesting the clips would tell into the store."""
    plan = pipeline.Plan(trial_request(asked.request, asked.space))
    counts = {"low": 16, "mid": 16, "high": 16}
    labels = LabelFacts(digest="l", classes=list(counts), counts=counts)
    parts = {name: _part(48, digest=name) for name in ("train", "valid", "test")}
    facts = _facts({**parts, **{f"{name}.labels": labels for name in parts}})
    for step in plan.steps.values():
        if step.node.stage == "ingest":
            out = plan.store.begin("ingest", str(step.key))
            out.write("nothing", b"")
            plan.store.commit("ingest", str(step.key), out, {"facts": facts})


@pytest.mark.parametrize(
    ("space", "changes", "says"),
    [
        (TEMPERATURE, {}, ""),
        (TEMPERATURE, {"finetune.labels_per_class": 17}, ""),
        (TEMPERATURE, {"cluster.num_clusters": 49}, "num_clusters=49"),
        (BLIND, {"cluster.num_clusters": 49}, "num_clusters=49"),
        (CLUSTERS, {"cluster.num_clusters": 49}, ""),
        (RATES, {"cluster.num_clusters": 49}, ""),
    ],
)
def test_what_the_clips_rule_out_in_every_trial_is_refused_before_anything_is_trained(
    space, changes, says, small_task, tmp_path
):
    asked = search_of(small_task, space, tmp_path, **changes)
    _ingest(asked)
    run = run_of(asked)
    if not says:
        return run.check_parts()
    with pytest.raises(ConfigError, match=says):
        run.check_parts()
    with pytest.raises(ConfigError, match=says):
        run.run.execute(SimpleNamespace(lease=lambda *a: pytest.fail("something is built")))


def test_validation_labels_of_all_folds_count_though_the_clips_are_not_shared(small_task, tmp_path):
    asked = search_of(small_task, RATES, tmp_path)
    run = run_of(asked)
    assert {step.node.stage for step in run.plan.steps.values()} == {"teacher"}
    (task,) = run.plan.inputs.tasks
    folds = tuple(replace(task, prefix=f"fold{number}/") for number in range(3))
    request = trial_request(asked.request, asked.space, {"audio.sample_rate": 22050})
    plan = pipeline.Plan(request, pipeline.Inputs(None, folds))
    for number in range(3):
        facts = _facts({"valid": _part(4, number)})
        plan.steps[f"fold{number}/ingest/task"].settle("hit", {"facts": facts})
    assert validation_labels(plan) == 4 + 5 + 6


def test_other_clips_or_settings_are_another_identity(small_task, tmp_path):
    run = run_of(search_of(small_task, TEMPERATURE, tmp_path))
    same = run_of(search_of(small_task, TEMPERATURE, tmp_path, **{"evaluate.split": "valid"}))
    assert same.identity == run.identity
    other = run_of(search_of(small_task, TEMPERATURE, tmp_path, **{"pretrain.seed": 9}))
    assert other.identity["settings"] != run.identity["settings"]
    assert other.identity["clips"] == run.identity["clips"]
    (task,) = run.plan.inputs.tasks
    fewer = replace(task, clips=task.clips[1:])
    other.plan.inputs = pipeline.Inputs(None, (fewer,))
    assert other.identity["clips"] != run.identity["clips"]


def test_a_search_without_a_score_names_the_remedy(small_task, tmp_path):
    study = optuna.create_study()
    failed = {"failed": "it broke."}
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=failed))
    with pytest.raises(SearchFailed, match=r"it broke\. .*--num-trials.*--study"):
        run_of(search_of(small_task, TEMPERATURE, tmp_path))._best(study)
