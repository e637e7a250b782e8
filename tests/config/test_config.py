"""Every knob goes through one door, and a wrong one is told in a sentence."""

import json

import numpy as np
import pytest

from unfused.config import (
    PRESETS,
    Config,
    ConfigError,
    describe,
    flatten,
    override,
    parse_overrides,
    preset,
    repeated,
)
from unfused.config.changes import paths
from unfused.config.choices import kinds
from unfused.store import canonical_json


@pytest.mark.parametrize("value", ["64", 64, np.int64(64), np.float32(64.0)])
def test_every_spelling_of_a_value_gives_one_identity(value):
    changed = override(Config(), {"cluster.num_clusters": value})
    same = override(Config(), {"cluster.num_clusters": 64})
    assert canonical_json(changed.model_dump()) == canonical_json(same.model_dump())


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("cluster.num_cluster", "cluster.num_clusters"),
        ("num_clusters", "cluster.num_clusters"),
        ("distil.temperature", "distill.temperature"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(key, nearest):
    with pytest.raises(ConfigError, match=f"did you mean {nearest}\\?"):
        override(Config(), {key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("distill.temperature", "-1"),
        ("cluster.num_clusters", "many"),
        ("cluster.num_clusters", "1"),
        ("pretrain.objective", "byol_z"),
        ("arms", "[unfused,unfused]"),
        ("arms", "[]"),
        ("audio.f_max", "9000"),
        ("ingest.max_seconds", "100000"),
        ("pretrain.batch_size", "1"),
        ("pretrain.learning_rate", "inf"),
        ("distill.temperature", "nan"),
        ("audio.f_min", "-inf"),
        ("audio.n_fft", "1023"),
        ("distill.augment.time_scale", "[1.5,0.5]"),
        ("distill.augment.time_scale", "[nan,1]"),
        ("finetune.num_folds", "1"),
        ("cluster.seed", "-1"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_sentence(key, value):
    with pytest.raises(ConfigError) as refused:
        override(Config(), {key: value})
    sentence = str(refused.value)
    assert key.rpartition(".")[2] in sentence
    assert "\n" not in sentence and sentence.endswith(".")


def test_lists_and_none_can_be_written_on_the_command_line():
    changes = parse_overrides(
        ["arms=[unfused,teacher]", "distill.augment.time_scale=[0.5,1.2]",
         "finetune.labels_per_class=none"]
    )
    config = override(override(Config(), {"finetune.labels_per_class": 5}), changes)
    assert config.arms == ("unfused", "teacher")
    assert config.distill.augment.time_scale == (0.5, 1.2)
    assert config.finetune.labels_per_class is None


@pytest.mark.parametrize("text", ["k", "=3", "cluster.num_clusters:3"])
def test_an_override_that_is_no_assignment_is_refused(text):
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_overrides([text])


def test_of_a_setting_given_twice_the_last_one_holds_and_that_is_said():
    given = ["cluster.seed=1", "distill.seed=4", "cluster.seed=2"]
    assert parse_overrides(given) == {"distill.seed": "4", "cluster.seed": "2"}
    assert repeated(given) == ["cluster.seed is set twice; the last one holds: cluster.seed=2"]
    assert repeated(given[1:]) == []


def test_what_is_set_again_holds_against_what_stood_in_between():
    given = ["student.dropout=0.1", "encoder.dropout=0.2", "student.dropout=0.4"]
    config = override(Config(), parse_overrides(given))
    assert (config.teacher.dropout, config.student.dropout) == (0.2, 0.4)


def test_the_two_label_budgets_exclude_each_other():
    both = {"finetune.labels_per_class": 5, "finetune.label_fraction": 0.5}
    with pytest.raises(ConfigError, match="alternatives"):
        override(Config(), both)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_configuration(name):
    config = preset(name)
    for key, value in PRESETS[name].items():
        assert flatten(config)[key] == value


def test_the_faithful_preset_keeps_the_published_values():
    config = preset("faithful")
    assert config.pretrain.objective.kind == "decar_v2"
    assert (config.distill.temperature, config.distill.detach_teacher) == (1.0, False)
    assert (config.distill.shallow_weight, config.distill.kl_weight) == (0.7, 0.3)
    assert config.distill.cosine_weight == 0.003
    assert config.cluster.num_clusters == "classes"
    assert config.cluster.num_components == 128


def test_an_unknown_preset_names_the_ones_there_are():
    with pytest.raises(ConfigError, match="recommended, faithful, demo"):
        preset("best")


def test_sections_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().cluster.num_clusters = 3


def test_the_configuration_survives_json():
    config = preset("demo")
    assert Config.model_validate(json.loads(config.model_dump_json())) == config


def test_objectives_are_the_files_of_their_folder():
    assert {"barlow_twins", "decar_v2", "nt_xent"} <= set(kinds("objectives"))


def test_a_setting_of_another_objective_is_refused_by_the_chosen_ones_name():
    with pytest.raises(ConfigError) as refused:
        override(Config(), {"pretrain.redundancy_weight": 0.01})
    assert "setting of barlow_twins" in str(refused.value)
    assert "pretrain.objective is features" in str(refused.value)
    with pytest.raises(ConfigError, match=r"=decar_v2 or pretrain\.objective=nt_xent, or"):
        override(Config(), {"pretrain.temperature": 0.1})
    chosen = {"pretrain.redundancy_weight": 0.01, "pretrain.objective": "barlow_twins"}
    assert override(Config(), chosen).pretrain.objective.redundancy_weight == 0.01


@pytest.mark.parametrize("key", ["pretrain.temperature", "pretrain.objective.temperature"])
def test_an_objectives_settings_are_named_with_and_without_it(key):
    changes = {"pretrain.objective": "nt_xent", key: "0.5"}
    assert override(Config(), changes).pretrain.objective.temperature == 0.5


def test_a_wrong_value_of_an_objective_is_told_by_its_dotted_name():
    with pytest.raises(ConfigError, match=r"^pretrain\.temperature=.* is not possible"):
        override(Config(), {"pretrain.objective": "nt_xent", "pretrain.temperature": -1})


def test_another_objective_keeps_what_was_set_and_has_its_own_defaults():
    set_before = override(Config(), {"pretrain.projector_dim": 32})
    other = override(set_before, {"pretrain.objective": "barlow_twins"})
    assert other.pretrain.objective.projector_dim == 32
    assert override(other, {"pretrain.objective": "features"}) == set_before


def test_an_objective_lists_its_own_settings_alone():
    names = set(flatten(override(Config(), {"pretrain.objective": "barlow_twins"})))
    assert {"pretrain.objective", "pretrain.redundancy_weight"} <= names
    assert not {"pretrain.temperature", "pretrain.num_prototypes"} & names


def test_no_objectives_setting_hides_one_of_the_stages():
    for kind in kinds("objectives"):
        flat = list(paths(override(Config(), {"pretrain.objective": kind})))
        assert len({name for name, _ in flat}) == len(flat)


def test_encoder_stands_for_the_teachers_and_the_students():
    config = override(Config(), {"encoder.embedding_dim": 64, "student.dropout": 0.1})
    assert config.teacher.embedding_dim == config.student.embedding_dim == 64
    assert (config.teacher.dropout, config.student.dropout) == (0.3, 0.1)


def test_a_layer_that_the_encoder_has_not_is_refused():
    with pytest.raises(ConfigError, match="block1, block2, block3, last"):
        override(Config(), {"embed.layer": "block9"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"audio.n_mels": 60}, "audio.n_mels=60 is no multiple of 8"),
        ({"audio.n_fft": 128}, "audio.n_mels=64 bands need as many: raise n_fft, or lower n_mels"),
        ({"audio.hop_length": 1025}, "leaves out samples between frames of audio.n_fft=1024"),
        ({"audio.crop_seconds": 0.1, "student.kind": "mobile_net"}, "mobile_net needs 32"),
    ],
)
def test_an_input_that_an_encoder_cannot_take_is_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        override(Config(), changes)


def test_every_setting_is_described():
    for name in PRESETS:
        undescribed = [key for key, text in describe(preset(name)).items() if not text]
        assert undescribed == []


@pytest.mark.parametrize(("asked", "window"), [("auto", 0.95), ("3", 3)])
def test_the_window_is_settled_as_a_number_whoever_chose_it(asked, window):
    audio = override(Config(), {"audio.crop_seconds": asked}).audio
    assert audio.settled().crop_seconds == window
    assert audio.crop_samples == audio.settled().crop_samples == round(window * 16000)


@pytest.mark.parametrize(
    ("key", "value"), [("audio.crop_seconds", "0.01"), ("finetune.num_crops", "some")]
)
def test_a_number_that_is_none_is_told_that_it_may_be_auto(key, value):
    with pytest.raises(ConfigError, match=rf"^{key}=.* is not possible: .* 'auto'\.$"):
        override(Config(), {key: value})


def test_the_published_method_has_one_window_of_its_length():
    faithful = preset("faithful")
    assert (faithful.embed.num_crops, faithful.finetune.num_crops) == (1, 1)
    assert (faithful.audio.crop_seconds, faithful.finetune.pooling) == (0.95, "mean")
