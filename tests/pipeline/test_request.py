"""Who teaches: what `--teacher` names."""

from __future__ import annotations

import pytest

from unfused.arms import BESIDE_OUTSIDE, DEFAULT
from unfused.config import Config, ConfigError, override
from unfused.pipeline import heard
from unfused.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.at(str(tmp_path / "store"))


def test_without_a_word_it_is_the_own_teacher(store):
    config, teachers = heard(Config(), [], store)
    assert teachers.own and not teachers.outside and config.arms == DEFAULT
    assert heard(Config(), ["own"], store)[1] == teachers


def test_one_from_outside_takes_its_place_or_stands_beside_it(store):
    config, teachers = heard(Config(), ["statistics"], store)
    assert not teachers.own and list(teachers.outside) == ["statistics"]
    assert config.arms == BESIDE_OUTSIDE
    both = heard(Config(), ["own", "statistics", "cepstra:centred"], store)[1]
    assert both.own and list(both.outside) == ["statistics", "cepstra-centred"]


def test_arms_that_were_asked_for_stay(store):
    asked = override(Config(), {"arms": "[scratch,unfused]"})
    assert heard(asked, ["statistics"], store)[0].arms == ("scratch", "unfused")


def test_two_of_one_name_are_refused(store):
    with pytest.raises(ConfigError, match="two teachers are called 'statistics'"):
        heard(Config(), ["statistics", "statistics"], store)


def test_the_arm_of_a_teacher_that_there_is_not_is_refused(store):
    asked = override(Config(), {"arms": "[teacher]"})
    with pytest.raises(ConfigError, match="add --teacher own, or leave the arm out"):
        heard(asked, ["statistics"], store)


def test_a_word_that_is_no_teacher_is_refused_with_those_that_are(store):
    with pytest.raises(ConfigError, match=r"is no teacher; write .*onnx:FILE"):
        heard(Config(), ["speech.onnx"], store)
