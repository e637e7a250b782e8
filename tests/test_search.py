"""Spaces are right or refused; a study forgets nothing; what trials share is built once."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.trial import TrialState

from conftest import ROOT, TINY
from unfused import display, events, pipeline, runtime, search, searching
from unfused.config import Config, ConfigError, RunOptions, override, parse_overrides
from unfused.events import NodeFailed, OfTrial, RunFinished, RunStarted, Stream, TrialEnded
from unfused.search import Runner, Search, SearchFailed, outcome, quality, shared_nodes
from unfused.search.space import Space, load
from unfused.search.study import Proposer, Pruning, opened
from unfused.search.trial import _training_seconds, costs, trial_plan, trial_request

SPACES = sorted((ROOT / "search_spaces").glob("*.py"))
HEAD = "from optuna.distributions import *\nCHOICES = CategoricalDistribution\n"


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


@pytest.mark.parametrize(
    ("space", "values", "inside"),
    [
        ("distillation", {"distill.head_width": 256, "distill.epochs": 8}, True),
        ("distillation", {"distill.head_width": 0}, False),
        ("distillation", {"distill.epochs": 100}, False),
        ("pretraining", {"pretrain.batch_size": 16}, False),
    ],
)
def test_settings_outside_the_space_are_no_first_trial(space, values, inside):
    space = load(str(ROOT / "search_spaces" / f"{space}.py"), Config())
    assert space.contains(values) == inside


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
        ("space = {'data.split_seed': IntDistribution(0, 9)}", "listed once for all"),
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
        (
            "space = {'rounds': IntDistribution(1, 2), 'cluster.whiten': CHOICES((True, False))}\n"
            "conditions = {'cluster.whiten': {'rounds': (2, 3)}}",
            "'rounds' is 3, which is not in its range",
        ),
        (
            "space = {'arms': CHOICES(('[unfused]', '[teacher,unfused]'))}",
            "arms is the same in all trials",
        ),
        ("space = {'evaluate.split': CHOICES(('valid', 'test'))}", "the same in all trials"),
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


def _search(small_task, space: Space, tmp_path: Path, **changes) -> Search:
    options = RunOptions(store=str(tmp_path / "store"))
    config = override(Config(), {**parse_overrides(list(TINY)), **changes})
    return Search(pipeline.Request(config, options, None, str(small_task)), space)


def _plan(small_task, space: Space, tmp_path: Path) -> tuple[pipeline.Plan, Search]:
    found = _search(small_task, space, tmp_path)
    request = trial_request(found.request, {}, space.is_labelled)
    return trial_plan(request, None, space.is_labelled), found


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
        settings = {"sampler": "tpe", "pruner": "median", "seed": 0, "identity": {}, **changes}
        return opened(str(tmp_path / "s.journal"), "some", space, **settings)

    return open_it


TEMPERATURE = _space("distill.temperature")


def _ended(score: float | None = None, **said) -> dict:
    scores = {} if score is None else {"scores": {"valid_accuracy": score}}
    return {"outcome": json.dumps({**scores, "hits": 1, **said})}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_seed_proposes_the_same_trials_and_two_objectives_have_a_front(sampler, tmp_path):
    both = {"valid_accuracy": "maximize", "student_parameters": "minimize"}
    space = _space("distill.temperature", "distill.epochs", objectives=both)

    def proposals(name: str, seed: int) -> list[dict]:
        path = str(tmp_path / f"{name}.journal")
        with opened(path, "some", space, sampler, "none", seed, {}) as found:
            for _ in range(3):
                trial = found.ask()
                epochs = space.suggest(trial)["distill.epochs"]
                found.tell(trial, [epochs / 12, float(epochs)])
            assert len(found.best_trials) == len({t.params["distill.epochs"] for t in found.trials})
            return [trial.params for trial in found.trials]

    assert proposals("one", 0) == proposals("two", 0) != proposals("three", 1)


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
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_what_fails_while_a_database_is_open_is_not_blamed_on_it(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    with (
        pytest.raises(OSError, match="disk is full"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        raise OSError("disk is full")


@pytest.mark.parametrize(
    ("space", "identity", "says"),
    [
        (replace(TEMPERATURE, objectives={"held_out_loss": "minimize"}), {}, "objectives"),
        (replace(TEMPERATURE, objectives={"effective_rank": "maximize"}), {}, "objectives"),
        (_space("distill.kl_weight"), {}, "distributions"),
        (TEMPERATURE, {"settings": "b", "clips": "a"}, "settings"),
        (TEMPERATURE, {"settings": "a", "clips": "b"}, "clips"),
    ],
)
def test_trials_that_are_not_comparable_need_another_study(study, space, identity, says):
    same = {"settings": "a", "clips": "a"}
    for before in ({"settings": "refused", "clips": "refused"}, same, same):
        with study(TEMPERATURE, identity=before) as found:
            if before is same:
                found.ask()
    with (
        pytest.raises(ConfigError, match=f"other {says}; .*--study") as refused,
        study(space, identity={**same, **identity}),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_study_of_somebody_else_with_other_directions_is_refused(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=location, study_name="some", direction="minimize")
    with (
        pytest.raises(ConfigError, match="other objectives"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass


def test_a_study_of_somebody_else_with_trials_is_refused(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=location, study_name="some", direction="maximize").ask()
    with (
        pytest.raises(ConfigError, match="other objectives"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass


def test_what_trials_save_is_less_what_their_search_paid_once_and_a_pruned_one_has_no_score(study):
    with study(TEMPERATURE) as found:
        found.set_user_attr(outcome.SHARED_SECONDS, 10.0)
        for value in (0.5, 0.6):
            trial = found.ask(dict(TEMPERATURE.distributions))
            trial.set_user_attr("saved_seconds", 10.0)
            trial.set_user_attr("scores", {})
            found.tell(trial, value)
        pruned = found.ask(dict(TEMPERATURE.distributions))
        pruned.report(0.9, 25)
        found.tell(pruned, state=TrialState.PRUNED)
        said = outcome.report(found, TEMPERATURE, found.best_trial)
    assert said["saved_seconds"] == 10.0
    assert [trial.get("values") for trial in said["trials"]] == [[0.5], [0.6], None]


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


@pytest.mark.parametrize("directions", [("maximize",), ("minimize",), ("maximize", "minimize")])
def test_what_matters_is_what_the_best_trials_have_in_common(directions, monkeypatch):
    rng = random.Random(0)
    study = optuna.create_study(directions=directions)
    sign = 1 if directions[0] == "maximize" else -1
    both = {name: optuna.distributions.FloatDistribution(0, 1) for name in "xy"}
    for _ in range(60):
        x, y = rng.random(), rng.random()
        value = sign * ((x > 0.9) - 9 * (y < 0.1) + 0.01 * rng.random())
        values = [value, rng.random()][: len(directions)]
        trial = optuna.trial.create_trial(
            params={"x": x, "y": y}, distributions=both, values=values
        )
        study.add_trial(trial)
    space = SimpleNamespace(objectives=dict(zip("ab", directions, strict=False)))
    found = outcome.importances(study, space)
    assert found["x"] > 0.6 > found["y"], "good trials have a large x, the worst a small y"

    pictures = optuna.visualization.matplotlib
    shown: dict[str, float] = {}
    for name in pictures.__all__:
        monkeypatch.setattr(pictures, name, lambda *args, **about: about)
    monkeypatch.setattr(outcome, "_png", lambda about: about)
    for name, about in outcome._pictures(study, space):
        shown |= {name: about["target"](study.trials[0])} if "target" in about else {}
    first = study.trials[0].values[0]
    assert shown["importance.png"] == -sign * first
    assert shown["history.png"] == shown["slice.png"] == first


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_search_chooses_on_validation_clips_and_ends_on_test_clips(split, small_task, tmp_path):
    asked = _search(small_task, TEMPERATURE, tmp_path, **{"evaluate.split": split})
    for labelled, scored_on in ((True, "valid"), (False, "test")):
        request = trial_request(asked.request, {}, labelled)
        assert request.config.evaluate.split == scored_on


@pytest.mark.parametrize("labelled", [True, False])
def test_the_line_that_reproduces_the_best_trial_is_a_command_of_any_shell(
    labelled, small_task, tmp_path
):
    changes = {"evaluate.split": "valid", "arms": ["scratch", "unfused"]}
    space = TEMPERATURE if labelled else BLIND
    asked = _search(small_task, space, tmp_path, **changes)
    line = outcome.line({"distill.temperature": 2.5, "distill.augment.crop_scale": "[0.5,1.5]"})
    command = searching.best_command(asked, line, Config())
    words = shlex.split(command)
    assert shlex.join(words) == command and "'arms=[unfused]'" in command
    pairs = [word for word in words[2:] if "=" in word]
    settings = parse_overrides(pairs)
    assert settings.get("evaluate.split") == ("valid" if labelled else None)
    assert settings["distill.temperature"] == "2.5"
    assert settings["cluster.num_clusters"] == "6"


def test_what_another_trial_has_built_meanwhile_is_a_hit(small_task, tmp_path):
    plan, _ = _plan(small_task, TEMPERATURE, tmp_path)
    for step in plan.steps.values():
        step.manifest, step.status = {"seconds": 10.0}, "hit"
    plan.steps["distill/unfused"].status = "built"
    others = len(plan.steps) - 1
    found = {"hits": others, "built": 1, "seconds": 10.0, "saved_seconds": 10.0 * others}
    assert costs(plan) == found


@pytest.mark.parametrize(("facts", "seconds"), [({"training_seconds": 3.0}, 3.0), ({}, 10.0)])
def test_a_student_costs_its_epochs_and_not_the_start_of_workers(facts, seconds):
    step = SimpleNamespace(manifest={"seconds": 10.0, "facts": facts})
    assert _training_seconds(step) == seconds


LAPTOP = runtime.Hardware(8, 0, bfloat16=False, cuml=False, joined=False)
GPUS = replace(LAPTOP, cpus=4, gpus=4)
CLUSTER = replace(LAPTOP, cpus=17, gpus=16, joined=True)


@pytest.mark.parametrize(
    ("hardware", "options", "fits"),
    [
        (GPUS, {}, 4),
        (GPUS, {"gpus_per_worker": 0.5}, 8),
        (CLUSTER, {}, 8),
        (CLUSTER, {"num_workers": 2}, 4),
        (CLUSTER, {"num_workers": 4}, 2),
        (replace(CLUSTER, cpus=400), {}, 16),
        (replace(CLUSTER, gpus=0), {}, 4),
        (replace(CLUSTER, cpus=2), {}, 1),
    ],
)
def test_as_many_trials_at_a_time_as_there_are_devices_for(hardware, options, fits):
    request = pipeline.Request(Config(), RunOptions(**options))
    assert search.concurrency(Search(request, TEMPERATURE), hardware) == fits


def _runner(asked: Search, hardware: runtime.Hardware = LAPTOP, **options) -> Runner:
    request = replace(asked.request, options=asked.request.options.model_copy(update=options))
    return Runner(replace(asked, request=request), hardware, Stream())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 8}, ""),
        ({"concurrency": 9}, "8 trials at a time.*--concurrency"),
        ({"num_workers": 9}, "--num-workers"),
    ],
)
def test_more_trials_at_a_time_than_fit_are_refused(options, says, small_task, tmp_path):
    runner = _runner(_search(small_task, TEMPERATURE, tmp_path), CLUSTER, **options)
    if not says:
        return runner.check()
    with pytest.raises(runtime.DoesNotFit, match=says):
        runner.check()


def _ingest(asked: Search) -> None:
    """Put what ingesting the clips would tell into the store."""
    plan = pipeline.Plan(trial_request(asked.request, {}))
    counts = {"low": 16, "mid": 16, "high": 16}
    labels = {"shards": [], "counts": counts, "digest": "l"}
    parts = {name: {"shards": [48], "digest": name} for name in ("train", "valid", "test")}
    parts |= {f"{name}.labels": labels for name in parts}
    for step in plan.steps.values():
        if step.node.stage == "ingest":
            out = plan.store.begin("ingest", str(step.key))
            out.write("nothing", b"")
            plan.store.commit("ingest", str(step.key), out, {"facts": {"parts": parts}})


BLIND = _space("distill.temperature", objectives={"effective_rank": "maximize"})
CLUSTERS = _space("cluster.num_clusters")
RATES = Space(
    "rates",
    {"audio.sample_rate": optuna.distributions.CategoricalDistribution((16000, 22050))},
    {},
    {"valid_accuracy": "maximize"},
)


@pytest.mark.parametrize(
    ("space", "changes", "says"),
    [
        (TEMPERATURE, {}, ""),
        (TEMPERATURE, {"finetune.labels_per_class": 17}, "labels_per_class=17"),
        (BLIND, {"finetune.labels_per_class": 17}, "labels_per_class=17"),
        (TEMPERATURE, {"cluster.num_clusters": 49}, "num_clusters=49"),
        (CLUSTERS, {"cluster.num_clusters": 49}, ""),
        (RATES, {"finetune.labels_per_class": 17}, ""),
    ],
)
def test_what_the_clips_rule_out_in_every_trial_is_refused_before_anything_is_trained(
    space, changes, says, small_task, tmp_path
):
    asked = _search(small_task, space, tmp_path, **changes)
    _ingest(asked)
    runner = _runner(asked)
    if not says:
        return runner.check_parts()
    with pytest.raises(ConfigError, match=says):
        runner.check_parts()
    with pytest.raises(ConfigError, match=says):
        runner.run.execute(SimpleNamespace(lease=lambda *a: pytest.fail("something is built")))


def test_validation_labels_of_all_folds_count_though_the_clips_are_not_shared(
    small_task, tmp_path
):
    asked = _search(small_task, RATES, tmp_path)
    runner = _runner(asked)
    assert not runner.plan.steps
    (task,) = runner.plan.inputs.tasks
    folds = tuple(replace(task, prefix=f"fold{number}/") for number in range(3))
    request = trial_request(asked.request, {"audio.sample_rate": 22050})
    plan = pipeline.Plan(request, pipeline.Inputs(None, folds))
    for number in range(3):
        parts = {"valid": {"shards": [4, number], "digest": "d"}}
        plan.steps[f"fold{number}/ingest/task"].manifest = {"facts": {"parts": parts}}
    assert search.validation_labels(plan) == 4 + 5 + 6


def test_other_clips_or_settings_are_another_identity(small_task, tmp_path):
    runner = _runner(_search(small_task, TEMPERATURE, tmp_path))
    same = _runner(_search(small_task, TEMPERATURE, tmp_path, **{"evaluate.split": "valid"}))
    assert same.identity == runner.identity
    other = _runner(_search(small_task, TEMPERATURE, tmp_path, **{"pretrain.seed": 9}))
    assert other.identity["settings"] != runner.identity["settings"]
    assert other.identity["clips"] == runner.identity["clips"]
    (task,) = runner.plan.inputs.tasks
    fewer = replace(task, clips=task.clips[1:])
    other.plan.inputs = pipeline.Inputs(None, (fewer,))
    assert other.identity["clips"] != runner.identity["clips"]


def test_a_search_without_a_score_names_the_remedy(small_task, tmp_path):
    study = optuna.create_study()
    failed = {"failed": "it broke."}
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=failed))
    with pytest.raises(SearchFailed, match=r"it broke\. .*--num-trials.*--study"):
        _runner(_search(small_task, TEMPERATURE, tmp_path))._best(study)


class _Tracker(list):
    """What a tracker is told, in order."""

    def __call__(self, event: events.Event) -> None:
        self.append(event)

    tag = close = lambda self, *told: self.append(told)


def test_a_search_that_is_stopped_ends_the_runs_of_the_trials_that_ran():
    told: dict[int, _Tracker] = {}
    trials = searching.Trials(lambda number: told.setdefault(number, _Tracker()))
    started, finished = RunStarted({}, (), {}), RunFinished("FINISHED")
    for number, event in ((0, started), (1, started), (0, finished)):
        trials(OfTrial(number, event))
    trials(TrialEnded(0, "COMPLETE", {}, {}))
    trials(TrialEnded(2, "FAIL", {}, {}))
    trials.close()
    assert told[0] == [started, ({"trial": 0},), finished, ({"state": "COMPLETE"},), ()]
    assert told[1] == [started, ({"trial": 1},), RunFinished("KILLED"), ()]
    assert set(told) == {0, 1}


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
    plan, _ = _plan(small_task, TEMPERATURE, tmp_path)
    seen: list = []
    run = pipeline.Run(plan, LAPTOP, Stream([seen.append]))

    def stop(builds, cluster):
        raise error

    monkeypatch.setattr(pipeline.stages, "module", lambda stage: SimpleNamespace(run=stop))
    gone = SimpleNamespace(delete=lambda: None)
    build = SimpleNamespace(out=gone, checkpoints=gone)
    monkeypatch.setattr(run, "_as_build", lambda step: build)
    monkeypatch.setattr(run, "_upstream", lambda step: {})
    with pytest.raises(type(error)):
        run._build_now([plan.steps["distill/unfused"]], None)
    assert isinstance(seen[-1], NodeFailed)
    assert display.Plain()._line(OfTrial(3, seen[-1])) == line


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
        "--space", space, "--task", str(small_task), "--num-trials", "12", "--concurrency", "2",
        "--pruner", "none", *SMALL,
    ]
    before = one.kill_after("trial 5 ", *arguments, script="search")
    found = one.run(*arguments, script="search")
    over = set(re.findall(r"(?m)^trial (\d+) (?:complete|fail)", before))
    assert len(over) >= 4
    assert not over & set(re.findall(r"(?m)^trial (\d+) \S+ started", found["stdout"]))
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(12))
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

    _the_best_line_is_the_trial_again(one, found)
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

    more = ["9" if word == "8" else word for word in arguments]
    again = one.run(*more, script="search")
    assert [trial["state"] for trial in again["trials"][:8]] == states, "pruned stays pruned"
    assert len(again["trials"]) == 9, "a search that has ended can be given more trials"


def _the_best_line_is_the_trial_again(one, found) -> None:
    line = next(s for s in found["stdout"].splitlines() if s.startswith("reproduce"))
    arguments = shlex.split(line.split("pipelines/full.py")[1])
    again = one.run(*arguments)
    assert again["scored_on"] == "valid"
    assert again["arms"]["unfused"]["accuracy"]["mean"] == found["best"]["values"][0]
    assert {stage["status"] for stage in again["stages"]} == {"hit"}
    anew = one.run(*arguments, "--store", "another")
    assert not {stage["status"] for stage in anew["stages"]} & {"hit"}
    assert _keys(anew) == _keys(again)
    # Two trials at a time have half of the threads each, whose sums round otherwise: three of the
    # twelve clips may fall differently.
    assert anew["arms"]["unfused"]["accuracy"]["mean"] == pytest.approx(
        found["best"]["values"][0], abs=0.25
    )


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
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(12))
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
