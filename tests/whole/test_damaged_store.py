"""A store that a disk, a crash or a person has damaged: the same command sets aside what is not as
it was written, builds it again, and ends with the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import TINY
from unfused.cli import main

pytestmark = pytest.mark.slow


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _one(store: Path, stage: str, name: str, node: str = "") -> Path:
    """A file of an artifact of a stage, or of one of its nodes."""
    found = sorted(store.glob(f"{stage}/*/{name}"))
    return next(path for path in found if node in (_of(path, store, "node") or ""))


def _of(path: Path, store: Path, what: str) -> str:
    place = store.joinpath(*path.relative_to(store).parts[:2])
    return json.loads((place / "manifest.json").read_text())[what]


def _numbers(summary: dict) -> dict:
    return {name: summary[name] for name in ("arms", "chosen", "trust", "pseudo_labels")}


@pytest.fixture
def damaged(finished, program):
    """A copy of a finished run's store: what is read for scores is damaged, and the scores gone."""
    one, summary = finished
    again = program("damaged")
    shutil.copytree(one.folder / "store", again.folder / "store")
    store = again.folder / "store"
    shutil.rmtree(store / "evaluate")
    shutil.rmtree(store / "model")
    _flip(_one(store, "ingest", "test/part-00000.parquet"))
    _flip(_one(store, "finetune", "*.safetensors", "finetune/unfused"))
    _one(store, "selftrain", "manifest.json").unlink()
    _one(store, "combine", "manifest.json").write_text("{half")
    return again, summary


def test_what_is_damaged_is_told_and_built_again_with_the_same_numbers(
    damaged, small_task, capsys
):
    one, summary = damaged
    store = str(one.folder / "store")
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--store", store])
    assert ended.value.code == 1
    assert "4 damaged" in " ".join(capsys.readouterr().out.split())
    again = one.run("--task", str(small_task), *TINY)
    assert _numbers(again) == _numbers(summary)
    said = again["stdout"] + again["stderr"]
    for stage in ("ingest", "finetune", "selftrain", "combine"):
        assert f"{stage}/" in "".join(line for line in said.splitlines() if "damaged" in line)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--store", store])
    assert ended.value.code == 0
    assert not list((one.folder / "store" / "work").rglob("*.*"))


def test_a_strict_run_ends_at_the_first_damage(damaged, small_task):
    one, _ = damaged
    done = one("--task", str(small_task), *TINY, "--strict")
    assert done.returncode == 2
    assert "combine/" in done.stderr and "is damaged (manifest.json" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
