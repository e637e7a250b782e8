"""Every setting says what it may be, and that is what it is held to."""

from __future__ import annotations

import pytest

from unfused.config import PRESETS, Config, ConfigError, override, preset, reference


def one(key: str, config: Config | None = None):
    (found,) = reference(config or Config(), [key])
    return found


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("cluster.num_clusters", "a whole number from 2 to 65536, or classes"),
        ("data.test_fraction", "a number above 0 and below 0.5"),
        ("finetune.label_fraction", "a number above 0 and at most 1, or none"),
        ("audio.crop_seconds", "a number from 0.1 to 60, or auto"),
        ("cluster.whiten", "true or false"),
        ("distill.augment.time_scale", "[a number from 0.05 to 10, a number from 0.05 to 10]"),
        ("teachers.heard", "all, or a list of names"),
        ("student.kind", "audio_ntt or mobile_net"),
        ("embed.layer", "block1, block2, block3 or last"),
    ],
)
def test_a_range_is_told_in_words(key, allowed):
    assert one(key).allowed == allowed


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_has_a_range_a_default_and_a_meaning(name):
    for found in reference(preset(name)):
        assert found.allowed and found.meaning and "typing" not in found.allowed
        if found.name in PRESETS[name]:
            assert found.value in (found.default, found.presets.get(name))


@pytest.mark.parametrize("key", ["cluster.num_clusters", "data.test_fraction", "rounds"])
def test_a_range_is_the_one_that_is_enforced(key):
    low, outside = {"cluster.num_clusters": (2, 1), "rounds": (1, 0)}.get(key, (0.1, 0.5))
    override(Config(), {key: low})
    with pytest.raises(ConfigError):
        override(Config(), {key: outside})


def test_a_default_is_told_beside_those_of_presets_and_the_value():
    found = one("cluster.num_clusters", override(Config(), {"cluster.num_clusters": 5}))
    assert (found.value, found.default) == (5, 16)
    assert found.presets == {"faithful": "classes", "demo": 32, "large": 256}


def test_a_section_is_all_that_it_has():
    names = [found.name for found in reference(Config(), ["embed"])]
    assert names == ["embed.layer", "embed.num_crops", "embed.batch_size", "embed.precision"]
    both = [found.name for found in reference(Config(), ["encoder.kind"])]
    assert both == ["teacher.kind", "student.kind"]
    assert len(reference(Config(), ["distill.augment"])) == 6


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("cluster.num_cluster", "did you mean cluster.num_clusters"),
        ("pretrain.temperature", "choose pretrain.objective=decar_v2 or"),
    ],
)
def test_a_key_that_is_not_there_is_told_the_way(key, says):
    with pytest.raises(ConfigError, match=says):
        reference(Config(), [key])
