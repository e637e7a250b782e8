"""Whole searches: killed and gone on with, pruned, tracked, and the best line run again."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pytest

from conftest import TINY
from small_searches import write_space
from teachers.small_models import of_samples
from unfused.api import SearchResult

SMALL_SPACE = """
space = {
    "cluster.num_clusters": CategoricalDistribution((5, 7, 500)),
    "distill.temperature": FloatDistribution(0.5, 6.0, log=True),
}
"""
WEIGHTS_SPACE = """
space = {
    "distill.temperature": FloatDistribution(0.5, 6.0, log=True),
    "distill.kl_weight": FloatDistribution(0.001, 1.0, log=True),
    "distill.cosine_weight": FloatDistribution(0.01, 1.0, log=True),
}
"""
SMALL = [a for a in TINY if not a.startswith(("rounds", "cluster.num_clusters", "pretrain.epochs"))]
SMALL += ["rounds=1", "pretrain.epochs=2", "cluster.num_clusters=5", "teachers.clustered=encoders"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_search_is_killed_and_goes_on_and_builds_nothing_twice(program, small_task, tmp_path):
    one = program("search")
    space = write_space(tmp_path, SMALL_SPACE)
    arguments = [
        "--space", space, "--task", str(small_task), "--num-trials", "9", "--concurrency", "2",
        "--pruner", "none", *SMALL,
    ]
    before = one.kill_after("trial 5 ", *arguments, script="search")
    found = one.run(*arguments, script="search")
    over = set(re.findall(r"(?m)^trial (\d+) (?:complete|fail)", before))
    assert len(over) >= 4
    assert not over & set(re.findall(r"(?m)^trial (\d+) \S+ started", found["stdout"]))
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(9))
    for trial in trials:
        broken = trial["changes"]["cluster.num_clusters"] == 500
        assert trial["state"] == ("FAIL" if broken else "COMPLETE")
        if broken:
            assert "500 is more than" in trial["failed"]
    assert trials[0]["changes"]["cluster.num_clusters"] == 5, "the defaults are tried first"

    built = re.findall(r"(?m)^(?:trial \d+ )?(\S+) built ([0-9a-f]{16})", before + found["stdout"])
    assert len(built) == len(set(built)) == len({key for _, key in built})
    ks = {trial["changes"]["cluster.num_clusters"] for trial in trials} - {500}
    assert sum(name == "cluster" for name, _ in built) == len(ks)
    assert sum(name == "pretrain" for name, _ in built) == 1
    assert sum(name.startswith("evaluate") for name, _ in built) == 1
    for name, key in built:
        stage = "evaluate" if name.startswith("validate") else name.partition("/")[0]
        assert (one.folder / "store" / stage / key / "manifest.json").exists()
    assert not list((one.folder / "store" / "checkpoints").glob("*/*/*"))
    best = found["best"]
    assert best["values"] == [max(t["values"][0] for t in trials if "values" in t)]
    table = SearchResult(found).trials
    assert list(table["state"]) == [trial["state"] for trial in trials]
    assert table[next(iter(found["objectives"]))].max() == best["values"][0]
    folder = Path(found["folder"])
    assert {"trials.csv", "history.png", "slice.png"} <= set(found["files"])
    assert all((folder / name).stat().st_size > 0 for name in found["files"])
    assert found["stderr"].strip() == ""

    _the_best_line_is_the_trial_again(one, found)
    _mlflow_has_one_run_for_every_trial(one, found)


def _by_chance(task: Path, folder: Path) -> Path:
    """The clips of a task with labels drawn by lot, so that no two students score alike."""
    rng = random.Random(0)
    lines = ["path,label,split"]
    for path in sorted(task.glob("*/*/[0-9]*.*")):
        lines.append(f"{path},{rng.choice('abc')},{path.parent.parent.name}")
    (folder / "chance.csv").write_text("\n".join(lines) + "\n")
    return folder / "chance.csv"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_search_over_the_loss_clusters_once_and_pruned_trials_leave_nothing(
    program, small_task, tmp_path
):
    one = program("pruned")
    space, task = write_space(tmp_path, WEIGHTS_SPACE), _by_chance(small_task, tmp_path)
    arguments = [
        "--space", space, "--task", str(task),
        "--num-trials", "8", "--pruner", "halving", *SMALL,
    ]  # fmt: skip
    found = one.run(*arguments, script="search")
    states = [trial["state"] for trial in found["trials"]]
    assert len(states) == 8 and set(states) == {"COMPLETE", "PRUNED"}
    store = one.folder / "store"
    assert len(list(store.glob("cluster/*/manifest.json"))) == 1
    assert len(re.findall(r"(?m)^(?:trial \d+ )?cluster built", found["stdout"])) == 1
    complete = states.count("COMPLETE")
    assert len(list(store.glob("distill/*/manifest.json"))) == complete
    assert len(list(store.glob("finetune/*/manifest.json"))) == complete
    assert not list((store / "checkpoints").glob("*/*/*"))
    assert not list((store / "work").glob("*/*")), "nothing half-built"

    more = ["9" if word == "8" else word for word in arguments]
    again = one.run(*more, script="search")
    assert [trial["state"] for trial in again["trials"][:8]] == states, "pruned stays pruned"
    assert len(again["trials"]) == 9, "a search that has ended can be given more trials"


def _the_best_line_is_the_trial_again(one, found) -> None:
    line = next(s for s in found["stdout"].splitlines() if s.startswith("reproduce"))
    arguments = shlex.split(line.split("unfused run")[1])
    again = one.run(*arguments)
    assert again["scored_on"] == "valid"
    assert again["arms"]["unfused"]["accuracy"]["mean"] == found["best"]["values"][0]
    assert {stage["status"] for stage in again["stages"]} == {"hit"}
    anew = one.run(*arguments, "--store", "another")
    assert not {stage["status"] for stage in anew["stages"]} & {"hit"}
    assert _keys(anew) == _keys(again)
    assert anew["arms"]["unfused"]["accuracy"]["mean"] == found["best"]["values"][0]


def _keys(summary) -> dict[str, str]:
    return {stage["name"]: stage["key"] for stage in summary["stages"]}


def _mlflow_has_one_run_for_every_trial(one, found) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{one.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unfused").experiment_id
    searches = client.search_runs([experiment], "tags.kind = 'search'")
    assert len(searches) == 1 and searches[0].info.status == "FINISHED"
    mine = f"tags.`mlflow.parentRunId` = '{searches[0].info.run_id}' and tags.kind = 'trial'"
    runs = client.search_runs([experiment], mine)
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(9))
    for run in runs:
        trial = found["trials"][int(run.data.tags["trial"])]
        assert run.data.tags["state"] == trial["state"]
        assert run.data.params["cluster.num_clusters"] == str(
            trial["changes"]["cluster.num_clusters"]
        )
        if trial["state"] == "COMPLETE":
            assert run.data.metrics["valid_accuracy"] == trial["values"][0]
    best = [run for run in runs if run.data.tags.get("best") == "true"]
    assert [int(run.data.tags["trial"]) for run in best] == [found["best"]["number"]]
    names = {file.path for file in client.list_artifacts(searches[0].info.run_id)}
    assert {"history.png", "trials.csv"} <= names
    assert all(run.info.status != "RUNNING" for run in client.search_runs([experiment]))


TEACHERS_SPACE = """
space = {
    "teachers.heard": CategoricalDistribution(("all", "[own]", "[ears]")),
    "teachers.neighbours": CategoricalDistribution((0, 5)),
}
arm = "probe"
objectives = {"cross_validated": "maximize"}
"""


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_search_chooses_among_teachers_by_the_labels_of_the_draws_alone(
    program, small_task, tmp_path
):
    one = program("teachers")
    ears = of_samples(tmp_path / "ears.onnx", ("clips", "samples"))
    arguments = [
        "--space", write_space(tmp_path, TEACHERS_SPACE), "--task", str(small_task),
        "--teacher", "own", "--teacher", f"onnx:{ears}", "--num-trials", "4", *SMALL,
    ]  # fmt: skip
    found = one.run(*arguments, script="search")
    assert {trial["state"] for trial in found["trials"]} == {"COMPLETE"}
    for trial in found["trials"]:
        assert trial["scores"] == {"cross_validated": trial["values"][0]}
    assert found["labels"] == {"train": 9, "valid": 0}
    assert set(found["test"]["arms"]) == {"probe"}
    assert not list((one.folder / "store" / "evaluate").glob("validate*"))
    again = shlex.split(re.search(r"(?m)^reproduce +(.*)$", found["stdout"])[1])
    assert "arms=[probe]" in again and "evaluate.split=valid" not in again
    repeated = one.run(*again[2:])
    assert repeated["arms"]["probe"]["cross_validated"]["mean"] == found["best"]["values"][0]
    assert {stage["status"] for stage in repeated["stages"]} == {"hit"}
