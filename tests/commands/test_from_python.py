"""`unfused.run` and `unfused.search` as a notebook calls them, and are asked what cannot be; what
they give is in `docs/use.ipynb`, which a test of a whole run executes."""

from __future__ import annotations

from pathlib import Path

import pytest

import unfused
from unfused.api import RunResult, SearchResult
from unfused.config import ConfigError
from unfused.store import Folder
from unfused.tuning import SearchRequest

assert SearchRequest, "a package of the name `search` would be in the place of the function"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"stor": "x"}, "There is no option 'stor'; choose from store, tracking_uri"),
        ({"preset": "fast"}, "no preset 'fast'"),
        ({"seeds": 0}, "--seeds 0 is not from 1"),
        ({"teachers": "onxx:encoder.onnx"}, "'onxx:encoder.onnx' is no teacher"),
        ({"teachers": Path("encoder.onnx")}, "'encoder.onnx' is no teacher"),
        ({"settings": {"cluster.k": 3}}, "no setting 'cluster.k'"),
        ({"settings": "rounds=2"}, "settings is 'rounds=2'; give names and values"),
        ({"settings": {1: 2}}, "settings is {1: 2}; give names and values"),
        ({"corpus": ["a.csv"]}, r"corpus is \['a.csv'\]; give a path or an address"),
        ({"audio_root": "a\0b"}, "audio_root is .*; give a path or an address"),
        ({"teachers": 5}, "teachers is 5; give one or several as text"),
        ({"label_column": 5}, "label_column is 5; give a column's name"),
        ({"seeds": "x"}, "seeds is 'x'; give a whole number"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(small_task, tmp_path, wrong, told):
    with pytest.raises(ConfigError, match=told):
        unfused.run(small_task, **{"store": tmp_path / "store", **wrong})
    assert not (tmp_path / "store").exists()


def test_a_search_is_told_what_its_trials_do_not_have(small_task, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text('[space]\n"distill.temperature" = {low = 0.5, high = 6.0}\n')
    with pytest.raises(ConfigError, match="its trials have the arm unfused alone"):
        unfused.search(space, small_task, settings={"arms": "[floor]"}, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"space": {"rounds": (1, 2)}}, "space is .*; give a file as in search_spaces/"),
        ({"num_trials": 0}, "num_trials is 0; give a whole number from 1"),
        ({"num_trials": 2.5}, r"num_trials is 2\.5; give a whole number"),
        ({"search_seed": 2**31}, "search_seed is 2147483648; give a whole number from 0"),
        ({"concurrency": 0}, "concurrency is 0; give a whole number from 1"),
        ({"study": 5}, "study is 5; give a name"),
        ({"study_storage": 5}, "study_storage is 5; give a file, or the address"),
    ],
)
def test_a_wrong_search_is_one_sentence_and_writes_nothing(small_task, tmp_path, wrong, told):
    space = tmp_path / "space.toml"
    space.write_text('[space]\n"distill.temperature" = {low = 0.5, high = 6.0}\n')
    with pytest.raises(ConfigError, match=told):
        unfused.search(**{"space": space, "task": small_task, "store": tmp_path / "store", **wrong})
    assert not (tmp_path / "store").exists()


def test_what_is_given_back_says_what_it_is():
    chosen = {"by_draw": ["mixture", "probe", "mixture"], "accuracy": {"mean": 0.875}}
    run = RunResult({"run": {"id": "decade00"}, "chosen": chosen}, Folder("/store/runs/decade00"))
    assert repr(run) == "<RunResult decade00: mixture, probe, accuracy 0.875>"
    best = {"number": 1, "changes": {"rounds": 2}}
    search = SearchResult({"trials": [{}, {}], "best": best})
    assert repr(search) == "<SearchResult of 2 trials: the best is 1, {'rounds': 2}>"
