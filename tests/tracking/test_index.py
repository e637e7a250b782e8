"""What a person finds in MLflow afterwards, of a run, its nodes and the trials of a search."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

from tracked_runs import (
    CONFIG,
    PROVENANCE,
    SUMMARY,
    a_whole_run,
    ingest_hit,
    play,
    pretrain_started,
    read_artifact,
    started,
)
from unfused import tracking
from unfused.config import flatten
from unfused.events import (
    NodeFailed,
    NodeHit,
    Resumed,
    RunFinished,
    RunStarted,
)
from unfused.tracking.index import Index


class Test_the_pipeline_run:
    def test_has_every_setting_under_its_dotted_name(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        params = mlflow.only("tags.kind = 'pipeline'").data.params
        assert set(params) == set(flatten(CONFIG))
        assert params["cluster.num_clusters"] == "9"
        assert params["distill.temperature"] == "2.5"
        assert params["pretrain.augment.time_scale"] == "[0.6,1.5]"
        assert params["finetune.label_fraction"] == "none"

    def test_has_every_arms_score_and_the_numbers_of_the_pseudo_labels(self, mlflow, tmp_path):
        play(mlflow.tracker(), a_whole_run())
        run = mlflow.only("tags.kind = 'pipeline'")
        assert run.info.status == "FINISHED"
        assert next(iter(run.data.metrics)) == "test_accuracy"
        assert run.data.metrics == {
            "test_accuracy": 0.75,
            "test_accuracy_sd": 0.0625,
            "test_balanced_accuracy": 0.625,
            "scratch.accuracy": 0.25,
            "scratch.accuracy_sd": 0.125,
            "scratch.macro_f1": 0.5,
            "scratch.macro_f1_sd": 0.0,
            "unfused.accuracy": 0.75,
            "unfused.accuracy_sd": 0.0625,
            "unfused.balanced_accuracy": 0.625,
            "unfused.balanced_accuracy_sd": 0.0,
            "unfused.macro_f1": 0.5,
            "unfused.macro_f1_sd": 0.0,
            "pseudo_labels.num_clusters": 9,
            "pseudo_labels.num_nonempty": 8,
            "pseudo_labels.nmi": 0.625,
        }
        counted = {"chance": "0.5", "labels_per_draw.train": "50", "clips.task.quarantined": "2"}
        assert run.data.tags.items() >= counted.items()
        kept = read_artifact(mlflow.client, run.info.run_id, "summary.json", tmp_path)
        assert kept["arms"] == SUMMARY["arms"]
        assert kept["mlflow"]["run_id"] == run.info.run_id

    def test_can_be_chosen_by_a_score_without_looking_at_its_children(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        good = "metrics.`unfused.accuracy` > 0.7 and params.`cluster.num_clusters` = '9'"
        assert mlflow.only(good).data.tags["kind"] == "pipeline"

    def test_says_what_made_it(self, mlflow, tmp_path):
        play(mlflow.tracker(name="first try"), a_whole_run())
        run = mlflow.only("tags.kind = 'pipeline'")
        tags = run.data.tags
        assert run.info.run_name == "first try"
        assert tags["mlflow.source.git.commit"] == "0123456789abcdef"
        assert tags["provenance.git_dirty"] == "True"
        assert tags["provenance.code_digest"] == "c0de"
        assert tags["command"] == "pipelines/full.py cluster.num_clusters=9 --task 'my clips'"
        config = read_artifact(mlflow.client, run.info.run_id, "config.json", tmp_path)
        assert config["distill.temperature"] == 2.5

    def test_names_the_key_of_every_node_and_the_run_that_built_it(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        tags = mlflow.only("tags.kind = 'pipeline'").data.tags
        builder = mlflow.only("tags.kind = 'node'").info.run_id
        assert tags["key.ingest/task"] == "1111"
        assert tags["node.ingest/task"] == "ingest/1111 (hit)"
        assert tags["key.pretrain"] == "aaaa"
        assert tags["node.pretrain"] == "pretrain/aaaa (built)"
        assert tags["built_by.pretrain"] == builder

    def test_lists_the_data_sets_that_it_rests_on(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        found = mlflow.only("tags.kind = 'pipeline' and dataset.name = 'train'").inputs
        assert {d.dataset.name for d in found.dataset_inputs} == {"train", "train labels"}

    def test_began_when_the_run_did_however_long_mlflow_took_to_load(self, mlflow, monkeypatch):
        opened, gate = Index.open, threading.Event()
        slow = staticmethod(lambda *a: gate.wait(10) and opened(*a))
        monkeypatch.setattr(Index, "open", slow)
        tracker = mlflow.tracker()
        now = time.time()
        tracker(started())
        assert time.time() - now < 0.5
        time.sleep(0.5)
        gate.set()
        play(tracker, a_whole_run()[1:])
        began = mlflow.only("tags.kind = 'pipeline'").info.start_time / 1000
        assert abs(began - now) < 0.25


    def test_is_called_by_the_settings_that_tell_it_from_others(self, mlflow):
        settings = ("distill.temperature", "cluster.num_clusters")
        play(mlflow.tracker(name="sounds", settings=settings), a_whole_run())
        assert mlflow.only("tags.kind = 'pipeline'").info.run_name == "sounds k9 T2.5"

    def test_is_described_by_its_arms_and_leads_to_the_run_that_built_its_teacher(self, mlflow):
        play(mlflow.tracker(places={"task": "/data/sounds"}), a_whole_run())
        run, builder = (mlflow.only(f"tags.kind = '{kind}'") for kind in ("pipeline", "node"))
        note = run.data.tags["mlflow.note.content"]
        assert "| **unfused** | 0.750 | 0.625 | – |" in note
        assert "| scratch | 0.250 ± 0.125 | – | – |" in note
        page = f"#/experiments/{run.info.experiment_id}/runs/{builder.info.run_id}"
        assert f"- teacher: [`pretrain`]({page})" in note
        assert "task: `/data/sounds`" in note and "2 classes: a, b" in note

    def test_has_scores_of_validation_clips_under_names_of_their_own(self, mlflow):
        summary = {**SUMMARY, "scored_on": "valid"}
        play(mlflow.tracker(), [started(), RunFinished("FINISHED", summary)])
        found = mlflow.only("").data.metrics
        assert found["valid_accuracy"] == found["unfused.valid_accuracy"] == 0.75
        assert not {"test_accuracy", "unfused.accuracy"} & found.keys()


class Test_a_data_set:
    def test_is_called_after_the_folder_and_leads_there(self, mlflow):
        from mlflow.data import get_source

        play(mlflow.tracker(places={"task": "/data/sounds"}), a_whole_run())
        run = mlflow.only("tags.kind = 'pipeline' and dataset.name = 'sounds train'")
        found = {one.dataset.name: one for one in run.inputs.dataset_inputs}
        clips, labels = found["sounds train"], found["sounds train labels"]
        assert get_source(clips).uri == "/data/sounds"
        profile = json.loads(clips.dataset.profile)
        assert profile["num_clips"] == 600 and profile["digest"] == "d" * 64
        assert profile["store"] == f"{Path('store').resolve()}/ingest/1111/train"
        assert json.loads(labels.dataset.profile)["classes"] == ["a", "b"]


class Test_a_node:
    def test_is_one_level_below_with_its_own_settings(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        parent = mlflow.only("tags.kind = 'pipeline'").info.run_id
        child = mlflow.only(f"tags.`mlflow.parentRunId` = '{parent}'")
        assert child.info.run_name == "pretrain"
        assert child.info.status == "FINISHED"
        assert child.data.params == {
            "pretrain.epochs": "3",
            "pretrain.augment.time_scale": "[0.6,1.5]",
        }

    def test_keeps_its_metrics_by_epoch(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        run_id = mlflow.only("tags.stage = 'pretrain'").info.run_id
        losses = mlflow.client.get_metric_history(run_id, "loss")
        assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]
        speeds = mlflow.client.get_metric_history(run_id, "clips_per_second")
        assert [(m.step, m.value) for m in speeds] == [(1, 100.0), (2, 200.0), (3, 300.0)]
        waits = mlflow.client.get_metric_history(run_id, "wait_seconds")
        assert [m.value for m in waits] == [0.5, 1.0, 1.5]

    def test_keeps_the_numbers_of_its_artifact(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        metrics = mlflow.only("tags.stage = 'pretrain'").data.metrics
        assert metrics["seconds"] == 12.5
        assert metrics["num_clips"] == 600
        assert metrics["scores"] == 0.5
        assert metrics["clips.C_"] == 3
        assert not {"ok", "name"} & set(metrics)

    def test_leads_to_its_artifact_and_to_what_it_was_made_from(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        tags = mlflow.only("tags.stage = 'pretrain'").data.tags
        assert tags["node"] == "pretrain"
        assert tags["key"] == "aaaa"
        assert tags["store"] == f"{Path('store').resolve()}/pretrain/aaaa"
        assert tags["upstream.clips"] == "ingest/1111:train"
        assert tags["upstream.labels"] == "ingest/1111:train.labels"

    def test_has_the_data_that_it_read_as_inputs(self, mlflow):
        from mlflow.data import get_source

        play(mlflow.tracker(), a_whole_run())
        inputs = mlflow.only("tags.stage = 'pretrain'").inputs.dataset_inputs
        (train,) = [found for found in inputs if found.dataset.name == "train"]
        assert train.dataset.digest == "d" * 12
        assert json.loads(train.dataset.profile)["digest"] == "d" * 64
        assert json.loads(train.dataset.profile)["seconds"] == 571.5
        assert get_source(train).uri == f"{Path('store').resolve()}/ingest/1111/train"
        assert [tag.value for tag in train.tags] == ["pretrain"]

    def test_that_resumed_says_after_which_epoch(self, mlflow):
        play(mlflow.tracker(), [started(), pretrain_started(), Resumed("pretrain", 2)])
        assert mlflow.only("tags.stage = 'pretrain'").data.tags["resumed_from_epoch"] == "2"

    def test_that_is_cached_links_to_the_run_that_built_it(self, mlflow):
        play(mlflow.tracker(), a_whole_run())
        builder = mlflow.only("tags.kind = 'node'").info.run_id
        again = [NodeHit("seed0/pretrain", "pretrain", "aaaa", {"facts": {}}), ingest_hit()]
        play(mlflow.tracker(name="again"), [started(), *again, RunFinished("FINISHED")])
        tags = mlflow.only("attributes.run_name = 'again'").data.tags
        assert tags["node.seed0/pretrain"] == "pretrain/aaaa (hit)"
        assert tags["built_by.seed0/pretrain"] == builder
        assert tags["built_by.ingest/task"] == ""
        assert len(mlflow.runs("tags.kind = 'node'")) == 1

    def test_that_failed_before_is_not_taken_for_the_builder(self, mlflow):
        failed = [started(), pretrain_started("dead"), NodeFailed("pretrain", "out of memory")]
        play(mlflow.tracker(), failed)
        hit = NodeHit("pretrain", "pretrain", "dead", {"facts": {}})
        play(mlflow.tracker(name="again"), [started(), hit])
        assert mlflow.only("attributes.run_name = 'again'").data.tags["built_by.pretrain"] == ""


class Test_a_run_that_does_not_finish:
    def test_and_its_stage_are_marked_as_failed_with_the_reason(self, mlflow):
        stopped = [started(), pretrain_started(), NodeFailed("pretrain", "out of memory")]
        play(mlflow.tracker(), [*stopped, RunFinished("FAILED", None, "out of memory")])
        for run in mlflow.runs():
            assert run.info.status == "FAILED"
            assert run.data.tags["reason"] == "out of memory"

    def test_is_marked_as_killed_where_a_person_interrupts_it(self, mlflow):
        stopped = [started(), pretrain_started(), NodeFailed("pretrain", "KeyboardInterrupt")]
        play(mlflow.tracker(), [*stopped, RunFinished("KILLED")])
        assert [run.info.status for run in mlflow.runs()] == ["KILLED", "KILLED"]

    def test_says_so_where_its_request_was_refused_and_is_no_failed_run(self, mlflow):
        tracker = mlflow.tracker()
        for event in (started(), pretrain_started(), NodeFailed("pretrain", "all bad")):
            tracker(event)
        tracker.refuse("3 of 4 clips cannot be used")
        play(tracker, [RunFinished("FAILED", None, "3 of 4 clips cannot be used")])
        assert [run.info.status for run in mlflow.runs()] == ["KILLED", "KILLED"]
        tags = mlflow.only("tags.kind = 'pipeline'").data.tags
        assert tags["refused"] == "true"
        assert tags["mlflow.note.content"].startswith("**Refused**: 3 of 4 clips")

    def test_leaves_no_stage_behind_that_seems_to_run(self, mlflow):
        play(mlflow.tracker(), [started(), pretrain_started(), RunFinished("FAILED", None, "x")])
        assert [run.info.status for run in mlflow.runs()] == ["FAILED", "FAILED"]


def test_the_trials_of_a_search_and_their_nodes_are_one_level_below_it(mlflow):
    search = mlflow.tracker(name="search")
    search(RunStarted({"num_trials": 1}, (), PROVENANCE))
    parent = search.describe()["run_id"]
    play(mlflow.tracker(parent=parent, name="trial 0"), a_whole_run())
    play(search, [RunFinished("FINISHED", {"best": {"accuracy": 0.75}})])
    below = mlflow.runs(f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(run.info.run_name for run in below) == ["pretrain", "trial 0"]
    node, trial = sorted(below, key=lambda run: run.info.run_name)
    assert node.data.tags["pipeline"] == trial.info.run_id
    assert mlflow.only("attributes.run_name = 'search'").data.metrics["best.accuracy"] == 0.75


def test_a_trial_that_was_killed_goes_on_in_its_run_and_one_that_ended_has_it_to_itself(mlflow):
    def tracker(number: int) -> tracking.Tracker:
        return mlflow.tracker(parent="p", name=f"trial {number}", kind="trial")

    play(tracker(0), [started()])
    play(tracker(0), a_whole_run())
    again = mlflow.only("tags.kind = 'trial'")
    assert again.info.status == "FINISHED"
    mlflow.client.set_tag(again.info.run_id, "state", "COMPLETE")
    play(tracker(0), a_whole_run())
    assert len(mlflow.runs("tags.kind = 'trial'")) == 2


def test_an_experiment_has_views_for_its_runs_and_for_trials(mlflow):
    play(mlflow.tracker(), [started()])
    tags = mlflow.client.get_experiment_by_name(mlflow.name).tags
    for key, kind in (("runs", "!= 'node'"), ("trials", "= 'trial'")):
        view = json.loads(tags[f"mlflow.sharedViewState.unfused-{key}"])
        assert view["name"] == key and kind in json.loads(view["state"])["searchFilter"]


def test_a_kill_amid_the_params_of_a_trial_leaves_a_run_that_goes_on(mlflow):
    def tracker() -> tracking.Tracker:
        return mlflow.tracker(parent="p", name="trial 3", kind="trial", trial=3)

    half = started()
    play(tracker(), [replace(half, config=dict(list(half.config.items())[:1]))])
    assert len(half.config) > 1
    play(tracker(), a_whole_run())
    again = mlflow.only("tags.kind = 'trial'")
    assert again.info.status == "FINISHED" and again.data.tags["trial"] == "3"


def test_what_a_kill_kept_from_being_written_of_trials_is_written_at_the_end_of_their_search(
    mlflow,
):
    search = mlflow.tracker(name="search", kind="search")
    search(RunStarted({"num_trials": 3}, (), PROVENANCE))
    parent = search.describe()["run_id"]
    for number in (0, 1):
        trial = mlflow.tracker(parent=parent, name=f"trial {number}", kind="trial", trial=number)
        trial(started())
        trial.close()
    rows = [
        {"number": 0, "state": "COMPLETE", "scores": {"valid_accuracy": 0.5}},
        {"number": 1, "state": "PRUNED"},
        {"number": 2, "state": "FAIL", "changes": {"cluster.num_clusters": 500}},
    ]
    best = {"number": 0}
    search.end_search({"best": best, "trials": rows, "folder": "store/searches/s"}, {})
    search.close()
    best = mlflow.only("tags.trial = '0'")
    assert best.info.status == "FINISHED" and best.data.metrics["valid_accuracy"] == 0.5
    assert (best.data.tags["state"], best.data.tags["best"]) == ("COMPLETE", "true")
    assert mlflow.only("tags.trial = '1'").info.status == "KILLED"
    never = mlflow.only("tags.trial = '2'")
    assert (never.info.status, never.info.run_name) == ("FAILED", "search 2 k500")
    assert never.data.params == {"cluster.num_clusters": "500"}
