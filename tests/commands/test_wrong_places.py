"""What every command is given that can be no place, no number or no name is refused in a sentence,
and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_classifier import random_classifier, write_model
from unfused import cli
from unfused.commands.named import named
from unfused.config import ConfigError
from unfused.store import Folder

KEY = "0123456789abcdef"
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a store that has one model, and a folder that is no file."""
    root = tmp_path_factory.mktemp("places")
    classifier = random_classifier(Folder.of(root / "store" / "finetune" / KEY))
    write_model(Folder.of(root / "store" / "model" / KEY), classifier)
    (root / "folder.csv").mkdir()
    (root / "folder.int8.onnx").mkdir()
    (root / "file").write_text("")
    return root


@pytest.fixture
def refused(place, monkeypatch, capsys):
    """Run a command that is refused: what it says."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    before = sorted(place.rglob("*"))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
            raise SystemExit(0)
        said = capsys.readouterr().err
        assert stop.value.code == 2, said
        assert said.startswith("error: ") and said.count("\n") == 1
        assert sorted(place.rglob("*")) == before
        return said

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("predict KEY file --out folder.csv", "--out folder.csv is no file"),
        ("predict KEY file --out=", "--out"),
        ("predict KEY file --window nan", "A window is .05 to 3600 s long; got nan"),
        ("predict KEY file --window inf", "got inf"),
        ("predict KEY file --min-seconds nan", "A minimum length is 0 or more"),
        ("predict KEY file --store foo://bar", "--store foo://bar"),
        ("predict KEY file --store=", "--store is empty"),
        ("predict ~nobody-here file", "There is no model"),
        ("predict s3:// file", "s3:// names no place; write s3://bucket/path"),
        ("embed KEY file --out folder.csv", "--out folder.csv"),
        ("pseudo-label KEY file --out folder.csv", "--out folder.csv is no file"),
        ("pseudo-label KEY file --out p.selections.txt", "write .csv, .parquet, .jsonl, or - for"),
        ("pseudo-label KEY file --out p.labels.txt", "write .csv, .parquet, .jsonl, or - for"),
        ("pseudo-label KEY file --store foo://", "--store foo://"),
        ("export KEY --out folder.csv", "--out folder.csv is no file"),
        ("export KEY --out=", "--out"),
        ("export KEY --out folder.onnx --int8", "folder.int8.onnx is no file; name one"),
        ("export KEY --int8 --out " + 246 * "a" + ".onnx", "File name too long; name another"),
        ("page KEY --out folder.csv", "--out folder.csv is no file"),
        ("serve KEY --host=", "--host is empty"),
        ("serve KEY --max-mib inf", "--max-mib"),
        ("serve KEY --max-seconds nan", "--max-seconds"),
        ("inspect file --corpus=", "--corpus is empty"),
        ("run --summary folder.csv", "--summary folder.csv is no file"),
        ("run --summary file/x.json", "--summary"),
        ("run --store file/x", "is a file; name another folder"),
        ("verify --store=", "--store is empty"),
        ("verify --store file", "there is no folder"),
        ("verify --store ~nobody-here/store", "--store ~nobody-here/store: Could not determine"),
        ("sync --store=", "--store is empty"),
        ("sync --store file", "there is no folder"),
        ("sync --store nowhere", "there is no folder"),
        ("sync --store foo://bar", "--store foo://bar"),
        ("run --tracking-uri http://:5000", "write it as http://host:5000"),
        ("search --space SPACE --search-seed -1", "--search-seed"),
        ("search --space SPACE --concurrency 1000000", "--concurrency"),
        ("search --space SPACE --study a/../../b", "--study 'a/../../b'"),
        ("search --space SPACE --study-storage folder.csv", "--study-storage folder.csv"),
        ("search --space SPACE --study-storage=", "--study-storage (empty)"),
    ],
)
def test_a_place_or_number_that_can_be_none_is_refused_before_work(refused, words, says):
    words = words.replace("KEY", KEY).replace("SPACE", str(SPACES / "distillation.py"))
    assert says in refused(*words.split())


def test_an_empty_name_is_no_model_even_in_the_folder_of_one(place, monkeypatch):
    monkeypatch.chdir(place / "store" / "model" / KEY)
    with pytest.raises(ConfigError, match=f"There is no model ''; the store .* has {KEY}"):
        named("", str(place / "store"), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UNFUSED_KEPT_MIB", "many"),
        ("UNFUSED_KEPT_MIB", "-1"),
        ("UNFUSED_KEPT_MIB", "nan"),
        ("UNFUSED_KEPT_MIB", "1e3"),
        ("UNFUSED_SPEEDUPS", "none,fast"),
    ],
)
def test_a_variable_that_cannot_be_understood_is_refused_by_its_name(
    refused, monkeypatch, name, value
):
    monkeypatch.setenv(name, value)
    assert f"{name}={value!r}" in refused("config", "rounds")
