"""A space of settings is right, or refused in one sentence before anything is written."""

from __future__ import annotations

import json

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from conftest import ROOT
from small_searches import write_space
from unfused.config import Config, ConfigError, override
from unfused.tuning.space import Space, load

SPACES = sorted((ROOT / "search_spaces").glob("*.py"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_names_real_keys_and_its_ranges_hold_the_defaults(path):
    space = load(str(path), Config())
    defaults = space.defaults(Config())
    assert defaults and space.contains(defaults)
    assert all(space.conditions.get(key) for key in space.distributions if key not in defaults)


@pytest.mark.parametrize(
    ("space", "values", "inside"),
    [
        ("distillation", {"distill.head_width": 256, "distill.epochs": "auto"}, True),
        ("distillation", {"distill.head_width": 0}, False),
        ("distillation", {"distill.epochs": 100}, False),
        ("pretraining", {"pretrain.batch_size": 16}, False),
    ],
)
def test_settings_outside_the_space_are_no_first_trial(space, values, inside):
    space = load(str(ROOT / "search_spaces" / f"{space}.py"), Config())
    assert space.contains(values) == inside


def test_the_shipped_spaces_are_there_and_full_is_all_of_the_methods_own():
    spaces = {path.stem: load(str(path), Config()) for path in SPACES}
    own = {"augmentation", "clustering", "distillation", "pretraining"}
    assert set(spaces) == own | {"full", "selftraining", "teachers"}
    assert {name: spaces[name].judged for name in ("selftraining", "teachers")} == {
        "selftraining": "selftrain",
        "teachers": "mixture",
    }
    parts = [key for name in own for key in spaces[name].distributions]
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
        ("space = {'rounds': IntDistribution(1, 2)}\narm = 'none'", "no arm 'none'"),
        (
            "space = {'rounds': IntDistribution(1, 2)}\narm = 'probe'\n"
            "objectives = {'effective_rank': 'maximize'}",
            "which the arm probe does not end in",
        ),
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
def test_a_wrong_space_is_refused_in_one_sentence(tmp_path, text, says):
    with pytest.raises(ConfigError) as refused:
        load(write_space(tmp_path, text), Config())
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def as_data(space: Space) -> dict:
    """A space as a TOML or JSON file has it."""

    def told(distribution) -> dict:
        if isinstance(distribution, CategoricalDistribution):
            return {"choices": list(distribution.choices)}
        found = {"low": distribution.low, "high": distribution.high, "log": distribution.log}
        return found | ({"step": distribution.step} if distribution.step else {})

    return {
        "arm": space.judged,
        "space": {key: told(one) for key, one in space.distributions.items()},
        "conditions": {k: {o: list(v) for o, v in c.items()} for k, c in space.conditions.items()},
        "objectives": dict(space.objectives),
    }


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_is_the_same_in_python_in_toml_and_in_json(path, tmp_path):
    wanted = load(str(path), Config())
    data = as_data(wanted)
    toml, plain = tmp_path / f"{path.stem}.toml", tmp_path / f"{path.stem}.json"
    toml.write_text("\n".join(f"{name} = {as_toml(one)}" for name, one in data.items()))
    plain.write_text(json.dumps(data))
    for found in (load(str(one), Config()) for one in (toml, plain)):
        assert found == wanted and found.identity() == wanted.identity()


def test_a_space_of_data_says_whole_numbers_shares_and_lists_as_one_would_write_them(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        arm = "selftrain"
        [space]
        "cluster.num_clusters" = {low = 8, high = 256, log = true}
        "pretrain.augment.mixup_ratio" = {low = 0.0, high = 0.6}
        "pretrain.augment.time_scale" = {choices = [[1.0, 1.0], [0.8, 1.2]]}
        "cluster.num_components" = {low = 16, high = 64, step = 16}
        [objectives]
        cross_validated = "maximize"
        """
    )
    space = load(str(path), Config())
    assert dict(space.distributions) == {
        "cluster.num_clusters": IntDistribution(8, 256, log=True),
        "pretrain.augment.mixup_ratio": FloatDistribution(0.0, 0.6),
        "pretrain.augment.time_scale": CategoricalDistribution(("[1.0,1.0]", "[0.8,1.2]")),
        "cluster.num_components": IntDistribution(16, 64, step=16),
    }
    assert space.judged == "selftrain" and space.labels == "draw"


K = '"cluster.num_clusters"'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"[space]\n{K} = {{low = 9, high = 2}}", "cluster.num_clusters"),
        (f"[space]\n{K} = {{low = 9}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = 2, high = inf}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = nan, high = 3}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = true, high = 3}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = 2, high = 9, log = true, step = 2}}", "cannot be read"),
        (f"[space]\n{K} = {{low = 2, high = 9, choices = [3]}}", "write {low = 8"),
        (f"[space]\n{K} = {{choices = []}}", "cannot be read"),
        (f"[space]\n{K} = {{choices = 'all'}}", "write {low = 8"),
        (f"[space]\n{K} = {{choices = [{{a = 1}}]}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = 2, high = 9, log = 1}}", "write {low = 8"),
        (f"[space]\n{K} = {{low = 2, high = 9, base = 2}}", "write {low = 8"),
        ("[space]\ncluster.num_clusters = {low = 2, high = 9}", "keys in quotes"),
        (f"[spaces]\n{K} = {{low = 2, high = 9}}", "'spaces', which is none of space,"),
        (f"[space]\n{K} = {{low = 2, high = 9}}\n[conditions]\n{K} = 3", "table of tables"),
        ("arm = 'unfused'", "has no `space`"),
        ("[space", "cannot be read"),
    ],
)
def test_a_wrong_space_of_data_is_refused_in_one_sentence(tmp_path, text, says):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(str(path), Config())
    assert says in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 100_000, '{"space": {"rounds": {"low": NaN, "high": 2}}}']
)
def test_a_wrong_json_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.json"):
        load(str(path), Config())


def test_python_is_executed_only_where_the_file_says_that_it_is_python(tmp_path):
    harm = tmp_path / "harm"
    for kind in ("toml", "json", "txt", "pyc"):
        path = tmp_path / f"mine.{kind}"
        path.write_text(f"open({str(harm)!r}, 'w')")
        with pytest.raises(ConfigError):
            load(str(path), Config())
    assert not harm.exists()


def test_a_space_that_ends_the_program_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(write_space(tmp_path, "raise SystemExit(0)"), Config())


def test_a_wrong_space_stops_the_command_before_anything_is_written(program, tmp_path):
    one = program("wrong")
    path = write_space(tmp_path, "space = {'distill.temprature': FloatDistribution(1, 2)}")
    refused = one("--space", path, script="search")
    assert refused.returncode == 2
    assert "distill.temperature" in refused.stderr
    assert list(one.folder.iterdir()) == []


def test_what_leaves_labelled_clips_out_in_turn_needs_folds(tmp_path):
    text = "space = {'rounds': IntDistribution(1, 2)}\nobjectives = {'cross_validated': 'maximize'}"
    path = write_space(tmp_path, text)
    assert load(path, Config()).labels == "draw"
    without = override(Config(), {"finetune.num_folds": 0})
    with pytest.raises(ConfigError, match="num_folds=0"):
        load(path, without)
    # A mixture's folds are those of `teachers`.
    assert load(write_space(tmp_path, f"{text}\narm = 'mixture'"), without).judged == "mixture"


def test_another_arm_is_another_study(tmp_path):
    text = "space = {'rounds': IntDistribution(1, 2)}"
    arms = ("", "\narm = 'unfused'", "\narm = 'clusterfit'")
    names = [load(write_space(tmp_path, f"{text}{arm}"), Config()).identity() for arm in arms]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        (
            "space = {'cluster.num_clusters': IntDistribution(8, 64)}",
            {"cluster.num_clusters": 4},
            "rules out cluster.num_clusters=4: its trials have 8 to 64; set one",
        ),
        (
            "space = {'distill.head_width': CHOICES((128, 256))}",
            {"distill.head_width": 0},
            "rules out distill.head_width=0: its trials have 128 or 256",
        ),
        (
            "space = {'pretrain.objective': CHOICES(('features', 'barlow_twins'))}",
            {"pretrain.objective": "nt_xent", "pretrain.temperature": 0.3},
            "rules out pretrain.objective=nt_xent: its trials have features or barlow_twins",
        ),
        (
            "space = {'teacher.kind': CHOICES(('audio_ntt', 'mobile_net'))}",
            {"teacher.kind": "mobile_net", "teacher.dropout": 0.1},
            "",
        ),
        (
            "space = {'rounds': IntDistribution(1, 2)}",
            {"arms": "[floor,unfused]"},
            "rules out arms=[floor,unfused]: its trials have the arm unfused alone",
        ),
        (
            "space = {'rounds': IntDistribution(1, 2)}",
            {"evaluate.split": "valid"},
            "rules out evaluate.split=valid: the best trial of a search is scored on test clips",
        ),
        ("space = {'rounds': IntDistribution(1, 2)}", {"arms": "[unfused]"}, ""),
        ("space = {'rounds': IntDistribution(1, 2)}", {"cluster.num_clusters": 4}, ""),
        ("space = {'rounds': IntDistribution(1, 2)}", {"rounds": 2}, ""),
    ],
)
def test_a_space_that_rules_out_what_a_person_chose_says_so(tmp_path, text, changes, says):
    path, config = write_space(tmp_path, text), override(Config(), changes)
    if not says:
        assert load(path, config, sorted(changes))
        return
    with pytest.raises(ConfigError) as refused:
        load(path, config, sorted(changes))
    assert f"{path} {says}" in str(refused.value)
    assert load(path, config)


def test_a_setting_of_kinds_that_no_trial_has_is_ruled_out(tmp_path):
    path = write_space(tmp_path, "space = {'pretrain.objective': CHOICES(('features', 'byol_a'))}")
    config = override(Config(), {"pretrain.objective": "nt_xent", "pretrain.temperature": 0.3})
    with pytest.raises(ConfigError, match=r"features or byol_a, and none of these has that setti"):
        load(path, config, ["pretrain.temperature"])
