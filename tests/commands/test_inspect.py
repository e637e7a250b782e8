"""`unfused inspect` shows what a run would find, and finds it as a run does."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from unfused.commands.inspect import inspect
from unfused.commands.inspected import histogram
from unfused.config import Config, RunOptions
from unfused.corpora import Columns
from unfused.pipeline import Request

RATE = 16000


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Two classes of 15 clips, and what people have beside such."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def wav(name: str, seconds: float, channels: int = 1, rate: int = RATE) -> None:
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (round(seconds * rate), channels)
        soundfile.write(path, rng.uniform(-0.5, 0.5, shape), rate)

    for i in range(15):
        wav(f"dog/{i}.wav", 0.5 + i / 10)
        wav(f"cat/{i}.flac", 2.0, channels=2, rate=44100)
    (tmp_path / "sounds/dog/copy.wav").write_bytes((tmp_path / "sounds/dog/3.wav").read_bytes())
    for i in range(3):
        (tmp_path / f"sounds/dog/dead{i}.wav").touch()
    (tmp_path / "sounds/cat/words.wav").write_text("this is no audio")
    (tmp_path / "sounds/cat/notes.docx").touch()
    soundfile.write(tmp_path / "sounds/cat/silent.wav", np.zeros(RATE), RATE)
    return tmp_path


def request(task: str = "sounds", corpus: str | None = None, **named) -> Request:
    return Request(Config(), RunOptions(), corpus, task, **named)


def test_it_shows_what_is_there_what_is_broken_and_what_to_run_next(collection, capsys):
    found = inspect(request(), 0)
    said = capsys.readouterr().out
    assert found["next"] == "unfused run --task sounds"
    assert sum(sum(split.values()) for split in found["classes"].values()) == 32
    task = found["task"]
    assert (task["files"], task["clips"]) == (35, 31)
    assert task["quarantine"] == {"empty": 3, "not audio": 1}
    assert {one["path"].rpartition("/")[2] for one in task["bad"]} == {
        "words.wav", "dead0.wav", "dead1.wav", "dead2.wav",
    }  # fmt: skip
    assert [one["path"].rpartition("/")[2] for one in task["silent"]] == ["silent.wav"]
    assert task["recorded"] == [
        {"rate": RATE, "channels": 1, "files": 16},
        {"rate": 44100, "channels": 2, "files": 15},
    ]
    assert task["durations"]["0"] == 0.5 and task["durations"]["1"] == 2.0
    for line in (
        "1 clip is a copy of another; each recording is kept once.",
        "1 file is no audio by name and left out: 1 .docx.",
        "quarantine 4: empty 3, not audio 1",
        "recorded   16 kHz mono 16, 44.1 kHz stereo 15",
        "next       unfused run --task sounds",
    ):
        assert line in said


def test_it_writes_nothing(collection):
    before = sorted(collection.rglob("*"))
    inspect(request(corpus="sounds"), 0)
    assert sorted(collection.rglob("*")) == before


def test_a_corpus_is_looked_at_with_what_the_task_holds_out_left_out(collection):
    found = inspect(request(corpus="sounds"), 0)
    held_out = sum(sum(found["classes"][split].values()) for split in ("valid", "test"))
    left_out = int(found["notes"][-1].split()[0])
    assert "clips of the corpus are held out by the task" in found["notes"][-1]
    assert left_out in (held_out, held_out + 1), "one clip has a copy"
    assert found["corpus"]["clips"] in (31 - held_out, 32 - held_out)


def test_clips_without_labels_are_a_corpus(collection):
    (collection / "sounds/cat/words.wav").unlink()
    found = inspect(request("sounds/cat"), 0)
    assert "classes" not in found and found["refused"] is None
    assert found["corpus"]["clips"] == 16
    assert found["next"] == "unfused run --corpus sounds/cat --task LABELLED"


def test_what_a_run_would_refuse_is_told_beside_what_is_there(collection, capsys):
    (collection / "one.csv").write_text("path,label\nsounds/dog/1.wav,a\nsounds/dog/2.wav,a\n")
    found = inspect(request("one.csv"), 0)
    assert "2 clips are too few" in found["refused"]
    assert found["task"]["clips"] == 2 and found["labels"] == {"a": 2} and found["next"] is None
    told = capsys.readouterr().out
    assert "refused    " in told and "classes    a 2" in told


@pytest.mark.parametrize("names", ["recording,genus", "audio_file,ground_truth", "path,dog,cat"])
def test_a_table_whose_labels_are_not_understood_is_refused_as_by_a_run(collection, names):
    rows = [f"sounds/dog/{i}.wav,1,0"[: None if names.count(",") > 1 else -2] for i in range(15)]
    (collection / "odd.csv").write_text("\n".join([names, *rows]) + "\n")
    found = inspect(request("odd.csv"), 0)
    assert "--label-column" in found["refused"] and names.split(",")[1] in found["refused"]
    assert found["task"]["clips"] == 15 and found["next"] is None


def test_a_list_of_paths_alone_is_a_corpus(collection):
    rows = [f"sounds/dog/{i}.wav" for i in range(15)]
    (collection / "list.csv").write_text("\n".join(["path", *rows]) + "\n")
    found = inspect(request("list.csv"), 0)
    assert found["refused"] is None and found["corpus"]["clips"] == 15
    assert found["next"] == "unfused run --corpus list.csv --task LABELLED"


def test_the_next_command_has_the_settings_that_were_typed(collection):
    found = inspect(request(), 0, ["--preset", "demo", "audio.channel=left"])
    assert found["next"].endswith("--preset demo audio.channel=left")


def test_of_many_files_some_are_opened_evenly(collection):
    found = inspect(request(), 10)
    assert (found["task"]["files"], found["task"]["opened"]) == (35, 10)


def test_columns_that_are_named_are_named_in_the_next_command(collection):
    rows = [f"sounds/dog/{i}.wav,{'ab'[i % 2]}" for i in range(15)]
    (collection / "odd.csv").write_text("\n".join(["sound,what", *rows]) + "\n")
    found = inspect(request("odd.csv", columns=Columns("sound", "what")), 0)
    assert found["next"].endswith("--task odd.csv --path-column sound --label-column what")


def test_the_bars_of_durations_count_every_clip_once():
    seconds = np.array([*np.linspace(0.1, 4, 99), 99.0])
    lines = histogram(seconds)
    assert sum(int(line.split()[-1]) for line in lines) == 100
    assert lines[0].strip().startswith("0.0-0.5 s") and "+ s" in lines[-1]


@pytest.mark.slow
def test_many_files_are_read_in_processes_of_its_own_and_json_is_alone_on_standard_output(
    collection,
):
    rng = np.random.default_rng(1)
    for i in range(100):
        soundfile.write(collection / f"sounds/dog/more{i}.wav", rng.uniform(-1, 1, 8000), RATE)
    command = [sys.executable, "-m", "unfused", "inspect", "sounds", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["task"]["clips"] == 131
    assert "next       unfused run --task sounds" in ended.stderr


def test_what_a_run_would_refuse_once_it_has_read_all_is_refused(collection, capsys):
    rows = [f"sounds/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(
        collection.glob("sounds/*/[0-9]*.*"))]  # fmt: skip
    rows += [f"missing{i}.wav,dog" for i in range(9)]
    (collection / "m.csv").write_text("\n".join(["path,label", *rows]))
    found = inspect(request("m.csv"), 0)
    assert "ingest.max_bad_fraction" in found["refused"]
    assert "refused" in capsys.readouterr().out
