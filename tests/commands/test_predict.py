"""`unfused predict` and `unfused embed` as a person calls them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import unfused
from small_classifier import CROP, random_classifier, tones, write_model
from unfused.store import Folder

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a store that has one model, and recordings."""
    root = tmp_path_factory.mktemp("use")
    classifier = random_classifier(Folder.of(root / "classifier"))
    write_model(Folder.of(root / "store" / "model" / KEY), classifier)
    (root / "clips" / "deep").mkdir(parents=True)
    for number, clip in enumerate(tones(CROP, count=3)):
        soundfile.write(root / "clips" / f"{number}.wav", clip, 16000)
    soundfile.write(root / "clips" / "deep" / "[a] x.flac", clip, 44100)
    (root / "clips" / "deep" / "empty.wav").write_bytes(b"")
    (root / "list.csv").write_text("path\nclips/2.wav\nclips/0.wav\n")
    return root


def unfused_command(place: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "unfused", *arguments],
        cwd=place,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.slow
def test_files_folders_and_manifests_are_labelled_in_one_table(place):
    done = unfused_command(place, "predict", KEY, "clips/1.wav", "clips", "list.csv")
    assert done.returncode == 0, done.stderr
    found = rows_of(done.stdout)
    assert [Path(one["path"]).name for one in found] == [
        "1.wav", "0.wav", "2.wav", "[a] x.flac", "empty.wav",
    ]  # fmt: skip
    model = unfused.load(place / "store" / "model" / KEY)
    for one in found[:4]:
        assert one["label"] == model.predict(one["path"]).label
    assert found[4]["reason"].startswith("empty")
    assert "1 without an answer" in done.stderr and "[a]" not in done.stderr


@pytest.mark.slow
def test_a_recording_that_lacks_its_end_is_told_apart_from_those_that_say_nothing(place, tmp_path):
    whole = tmp_path / "long.wav"
    soundfile.write(whole, np.concatenate(tones(CROP, count=80)), 16000)
    (tmp_path / "cut.wav").write_bytes(whole.read_bytes()[: -2 * CROP])
    (tmp_path / "empty.wav").touch()
    done = unfused_command(place, "predict", KEY, str(tmp_path))
    found = rows_of(done.stdout)
    assert [one["label"] == "" for one in found if one["path"].endswith("cut.wav")][-2:] == [
        False, True,
    ]  # fmt: skip
    assert "1 without an answer, 1 up to where it could be read, the first: " in done.stderr


@pytest.mark.slow
def test_vectors_are_written_beside_paths(place):
    done = unfused_command(place, "embed", KEY, "clips", "--out", "v.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(place / "v.parquet")
    assert table.column_names == ["path", "digest", "reason", "embedding"]
    assert [len(row) if row else None for row in table["embedding"].to_pylist()] == [
        16, 16, 16, 16, None,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["predict", "nothing", "clips"], f"the store store has {KEY} (noises, unfused, 0.750)"),
        (["predict", KEY, "no.wav"], "no file or folder 'no.wav'"),
        (["predict", KEY, "clips", "--out", "x.xlsx"], "write .csv, .parquet"),
        (["predict", KEY, "clips", "--overlap", "1"], "[0, .95]"),
        (["predict", "best", "clips"], "no model models:/unfused@champion"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_status_2(place, arguments, told):
    done = unfused_command(place, *arguments)
    assert done.returncode == 2 and told in " ".join(done.stderr.split()), done.stderr
    assert not done.stdout


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_many_recordings_stream_through_ray_to_the_same_rows(place, tmp_path):
    (tmp_path / "many").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1001):
        wave = 0.3 * rng.standard_normal(800)
        soundfile.write(tmp_path / "many" / f"{number:04d}.wav", wave, 8000)
    out = tmp_path / "said.csv"
    done = unfused_command(place, "predict", KEY, str(tmp_path / "many"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = rows_of(out.read_text())
    assert [Path(one["path"]).stem for one in found] == [f"{n:04d}" for n in range(1001)]
    model = unfused.load(place / "store" / "model" / KEY)
    for one in found[::250]:
        wanted = model.predict(one["path"])
        assert one["digest"] == wanted.digest and one["label"] == wanted.label
        assert float(one["probability"]) == pytest.approx(wanted.probability, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM])
def test_many_recordings_are_given_up_at_once_and_leave_no_half_a_table(place, tmp_path, asking):
    (tmp_path / "many").mkdir()
    for number in range(4000):
        (tmp_path / "many" / f"{number:04d}.wav").hardlink_to(place / "clips" / "0.wav")
    command = [sys.executable, "-m", "unfused", "predict", KEY, str(tmp_path / "many")]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "said.csv")],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(file.stat().st_size for file in tmp_path.glob(".*.partial")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(asking)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "Stopped.\n")
    assert [one.name for one in tmp_path.iterdir()] == ["many"]
