"""Spaces are right or refused; a study forgets nothing; what trials share is built once."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from conftest import ROOT, TINY
from unfused import pipeline
from unfused.config import Config, ConfigError, RunOptions, override, parse_overrides
from unfused.search import Search, outcome, quality, shared_nodes
from unfused.search.space import Space, load
from unfused.search.study import Proposer, Pruning, opened
from unfused.search.trial import trial_plan, trial_request

SPACES = sorted((ROOT / "search_spaces").glob("*.py"))
HEAD = "from optuna.distributions import *\n"


@pytest.fixture
def space_file(tmp_path):
    """Write a space to a file; its path."""

    def write(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + text)
        return str(path)

    return write


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_names_real_keys_and_its_ranges_hold_the_defaults(path):
    space = load(str(path), Config())
    defaults = space.defaults(Config())
    assert defaults and space.contains(defaults)
    assert all(space.conditions.get(key) for key in space.distributions if key not in defaults)


def test_the_shipped_spaces_are_there_and_full_is_all_of_them():
    spaces = {path.stem: load(str(path), Config()) for path in SPACES}
    assert set(spaces) == {"augmentation", "clustering", "distillation", "full", "pretraining"}
    parts = [key for name, s in spaces.items() if name != "full" for key in s.distributions]
    assert sorted(spaces["full"].distributions) == sorted(parts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("space = {'cluster.num_cluster': IntDistribution(2, 9)}", "did you mean"),
        ("space = {'cluster.num_clusters': IntDistribution(9, 2)}", "search space"),
        ("space = {'cluster.num_clusters': IntDistribution(9, 9)}", "holds one value"),
        ("space = {'cluster.num_clusters': FloatDistribution(2, 9)}", "cluster.num_clusters"),
        ("space = {'cluster.num_clusters': IntDistribution(1, 9)}", "cluster.num_clusters"),
        ("space = {'cluster.num_clusters': (2, 9)}", "must be an Optuna distribution"),
        ("space = {'embed.layer': CategoricalDistribution(('last', 'first'))}", "embed.layer"),
        ("space = {'rounds': IntDistribution(1, 2)}\nobjectives = {}", "one or two metrics"),
        ("space = {'rounds': IntDistribution(1, 2)}\nobjectives = {'loss': 'minimize'}", "'loss'"),
        (
            "space = {'rounds': IntDistribution(1, 2)}\nobjectives = {'valid_accuracy': 'up'}",
            "maximize or minimize",
        ),
        (
            "space = {'rounds': IntDistribution(1, 2)}\nconditions = {'rounds': {'arms': 2}}",
            "must name both",
        ),
        ("places = {}", "has no `space`"),
        ("space = {", "cannot be read"),
    ],
)
def test_a_wrong_space_is_refused_in_one_sentence(space_file, text, says):
    with pytest.raises(ConfigError) as refused:
        load(space_file(text), Config())
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_space_stops_the_command_before_anything_is_written(space_file, program):
    one = program("wrong")
    path = space_file("space = {'distill.temprature': FloatDistribution(1, 2)}")
    refused = one("--space", path, script="search")
    assert refused.returncode == 2
    assert "distill.temperature" in refused.stderr
    assert list(one.folder.iterdir()) == []


def _space(*keys: str, objectives: dict[str, str] | None = None) -> Space:
    every = load(str(ROOT / "search_spaces" / "full.py"), Config())
    chosen = {key: every.distributions[key] for key in keys}
    return Space("some", chosen, {}, objectives or {"valid_accuracy": "maximize"})


def _plan(small_task, space: Space, tmp_path: Path) -> tuple[pipeline.Plan, Search]:
    options = RunOptions(store=str(tmp_path / "store"))
    config = override(Config(), parse_overrides(list(TINY)))
    search = Search(pipeline.Request(config, options, None, str(small_task)), space)
    request = trial_request(search.request, {}, space.is_labelled)
    return trial_plan(request, None, space.is_labelled), search


@pytest.mark.parametrize(
    ("keys", "shared", "own"),
    [
        (("distill.temperature", "distill.kl_weight"), "cluster", "distill/unfused"),
        (("cluster.num_clusters",), "embed/round1", "cluster/round1"),
        (("embed.layer",), "pretrain", "embed/round1"),
        (("clusterings",), "cluster/round1", "distill/round1"),
        (("pretrain.epochs",), "ingest/task", "pretrain"),
    ],
)
def test_what_no_setting_of_the_space_reaches_is_shared(small_task, tmp_path, keys, shared, own):
    plan, search = _plan(small_task, _space(*keys), tmp_path)
    found = shared_nodes(plan, search)
    assert shared in found and own not in found
    assert plan.upstream(found) == found


def test_a_trial_never_reads_test_clips_and_without_labelled_objectives_no_label(
    small_task, tmp_path
):
    plan, _ = _plan(small_task, _space("distill.temperature"), tmp_path)
    refs = [ref for step in plan.steps.values() for ref in step.node.inputs.values()]
    assert not any(":test" in ref for ref in refs)
    assert not any(name.startswith("evaluate") for name in plan.steps)
    blind = _space("distill.temperature", objectives={"effective_rank": "maximize"})
    plan, _ = _plan(small_task, blind, tmp_path)
    refs = [ref for step in plan.steps.values() for ref in step.node.inputs.values()]
    assert "distill/unfused" in plan.steps
    assert not any(".labels" in ref for ref in refs)


@pytest.fixture
def study(tmp_path):
    """`study(space)` opens one and the same study on disk."""

    def open_it(space: Space, **changes):
        settings = {"sampler": "tpe", "pruner": "median", "seed": 0, **changes}
        return opened(str(tmp_path / "s.journal"), "some", space, **settings)

    return open_it


TEMPERATURE = _space("distill.temperature")


def _ended(score: float | None = None, **said) -> dict:
    scores = {} if score is None else {"scores": {"valid_accuracy": score}}
    import json

    return {"outcome": json.dumps({**scores, "hits": 1, **said})}


def test_every_trial_ends_whatever_came_of_it(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        for name in "abcde":
            proposer.suggest(name)
        proposer.on_trial_complete("a", _ended(0.5))
        proposer.on_trial_complete("b", _ended(math.nan))
        proposer.on_trial_complete("c", _ended())
        proposer.on_trial_complete("d", {"progress": 25, "probe": 0.1})
        proposer.on_trial_complete("e", error=True)
        states = [trial.state for trial in found.trials]
        fail = TrialState.FAIL
        assert states == [TrialState.COMPLETE, fail, fail, TrialState.PRUNED, fail]
        reasons = [trial.user_attrs.get("failed", "") for trial in found.trials]
        assert reasons[1:3] == ["valid_accuracy is nan", "valid_accuracy is missing"]
        assert reasons[4] == "its process died"


def test_two_objectives_with_one_missing_are_a_failure(study):
    space = _space(
        "distill.epochs", objectives={"valid_accuracy": "maximize", "student_seconds": "minimize"}
    )
    with study(space) as found:
        proposer = Proposer(found, space, lambda trial: None)
        proposer.suggest("a")
        proposer.on_trial_complete("a", _ended(0.5))
        assert found.trials[0].state == TrialState.FAIL
        assert not proposer.states or proposer.states == [TrialState.FAIL]


def test_a_study_goes_on_where_it_was_left_with_the_open_trial_first(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        first = proposer.suggest("a")
        proposer.on_trial_complete("a", _ended(0.5))
        left = proposer.suggest("b")
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        assert proposer.suggest("x") == left
        proposer.on_trial_complete("x", _ended(0.6))
        new = proposer.suggest("y")
        assert new["number"] == 2
        assert new["changes"] not in (first["changes"], left["changes"])
        assert [trial.value for trial in found.trials[:2]] == [0.5, 0.6]


def test_one_search_at_a_time_holds_a_study_on_disk(study):
    with (
        study(TEMPERATURE),
        pytest.raises(ConfigError, match="Another search"),
        study(TEMPERATURE),
    ):
        pass


@pytest.mark.parametrize(
    ("location", "says"),
    [("sqlite:////no/such/folder/s.db", "cannot be opened"), ("redis://host/0", "name a file")],
)
def test_a_database_that_cannot_be_opened_is_one_sentence(location, says):
    with (
        pytest.raises(ConfigError, match=says) as refused,
        opened(location, "some", TEMPERATURE, "tpe", "none", 0),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_what_fails_while_a_database_is_open_is_not_blamed_on_it(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    with (
        pytest.raises(OSError, match="disk is full"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0),
    ):
        raise OSError("disk is full")


def test_other_objectives_need_another_study(study):
    with study(TEMPERATURE):
        pass
    other = _space("distill.temperature", objectives={"held_out_loss": "minimize"})
    with pytest.raises(ConfigError, match="other objectives"), study(other):
        pass


def test_a_trial_far_below_the_others_is_pruned_and_a_good_one_is_not(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        pruning = Pruning(proposer)
        for name in "abcd":
            proposer.suggest(name)
            assert not pruning(name, {"progress": 25, "probe": 0.5})
            proposer.on_trial_complete(name, _ended(0.7))
        proposer.suggest("bad")
        proposer.suggest("good")
        assert pruning("bad", {"progress": 25, "probe": 0.1})
        assert not pruning("good", {"progress": 25, "probe": 0.6})


def test_a_search_in_which_everything_fails_stops(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        pruning = Pruning(proposer)
        for name in "abcde":
            assert not pruning.stop_all()
            proposer.suggest(name)
            proposer.on_trial_complete(name, error=True)
        assert pruning.stop_all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"sampler": "best"}, "tpe, nsga2, random"), ({"pruner": "best"}, "median, halving, none")],
)
def test_an_unknown_sampler_or_pruner_names_those_there_are(study, changes, says):
    with pytest.raises(ConfigError, match=says), study(TEMPERATURE, **changes):
        pass


def test_the_effective_rank_counts_directions():
    rng = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 3, generator=rng) @ torch.randn(3, 40, generator=rng)
    assert 1.5 < quality.effective_rank(flat) <= 3.01
    assert quality.effective_rank(torch.eye(30)) == pytest.approx(30, rel=1e-3)


def test_the_probe_tells_separable_classes_apart_and_is_lost_on_noise():
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 4
    means = 3 * torch.randn(4, 64, generator=rng)
    noise = torch.randn(80, 64, generator=rng)
    few, new = means[targets] + noise[:40], means[targets] + noise[40:]
    weight = quality.ridge(few, targets, 4)
    assert ((quality.add_bias(new) @ weight).argmax(1) == targets).float().mean() > 0.95
    weight = quality.ridge(noise[:40], targets, 4)
    assert ((quality.add_bias(noise[40:]) @ weight).argmax(1) == targets).float().mean() < 0.6


def test_proxies_are_ranked_against_the_labels():
    study = optuna.create_study(direction="maximize")
    distribution = optuna.distributions.FloatDistribution(0, 1)
    for i, accuracy in enumerate((0.2, 0.4, 0.5, 0.9)):
        scores = {"valid_accuracy": accuracy, "effective_rank": i, "held_out_loss": i * i}
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": i / 4},
                distributions={"x": distribution},
                value=accuracy,
                user_attrs={"scores": scores},
            )
        )
    assert outcome.proxies(study) == {"effective_rank": 1.0, "held_out_loss": -1.0}


SMALL_SPACE = """
space = {
    "cluster.num_clusters": CategoricalDistribution((5, 7, 500)),
    "distill.temperature": FloatDistribution(0.5, 6.0, log=True),
}
"""
SMALL = [a for a in TINY if not a.startswith(("rounds", "cluster.num_clusters", "pretrain.epochs"))]
SMALL += ["rounds=1", "pretrain.epochs=2", "cluster.num_clusters=5"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_search_is_killed_and_goes_on_and_builds_nothing_twice(program, small_task, space_file):
    one = program("search")
    space = space_file(SMALL_SPACE)
    arguments = [
        "--space", space, "--task", str(small_task), "--num-trials", "5", "--concurrency", "2",
        "--pruner", "none", *SMALL,
    ]
    before = one.kill_after("trial 1 ", *arguments, script="search")
    found = one.run(*arguments, script="search")
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(5))
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
    folder = Path(found["folder"])
    assert {"trials.csv", "history.png", "slice.png"} <= set(found["files"])
    assert all((folder / name).stat().st_size > 0 for name in found["files"])
    assert found["stderr"].strip() == ""

    _the_best_line_gives_the_score_again(one, found)
    _mlflow_has_one_run_for_every_trial(one, found)


WEIGHTS_SPACE = """
space = {
    "distill.temperature": FloatDistribution(0.5, 6.0, log=True),
    "distill.kl_weight": FloatDistribution(0.001, 1.0, log=True),
    "distill.cosine_weight": FloatDistribution(0.01, 1.0, log=True),
}
"""


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
    program, small_task, space_file, tmp_path
):
    one = program("pruned")
    arguments = [
        "--space", space_file(WEIGHTS_SPACE), "--task", str(_by_chance(small_task, tmp_path)),
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

    again = one.run(*arguments, script="search")
    assert [trial["state"] for trial in again["trials"]] == states, "pruned stays pruned"


def _the_best_line_gives_the_score_again(one, found) -> None:
    line = next(s for s in found["stdout"].splitlines() if s.startswith("reproduce"))
    arguments = line.split("pipelines/full.py")[1].split()
    again = one.run(*arguments)
    assert again["scored_on"] == "valid"
    assert again["arms"]["unfused"]["accuracy"]["mean"] == found["best"]["values"][0]
    assert {stage["status"] for stage in again["stages"]} == {"hit"}


def _mlflow_has_one_run_for_every_trial(one, found) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{one.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unfused").experiment_id
    searches = client.search_runs([experiment], "tags.kind = 'search'")
    assert len(searches) == 1 and searches[0].info.status == "FINISHED"
    mine = f"tags.`mlflow.parentRunId` = '{searches[0].info.run_id}' and tags.kind = 'trial'"
    runs = [r for r in client.search_runs([experiment], mine) if "trial" in r.data.tags]
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(5))
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
