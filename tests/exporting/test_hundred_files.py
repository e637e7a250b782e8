"""A hundred files of every kind: table, server, exported file and page say the same.

The classifier's probabilities are far from 0 and 1 (half of the labels have less than .66), so that
a thousandth of them means something.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import exported
import numpy as np
import onnxruntime
import pytest

import unfused
from browser import CHROMIUM, Browser
from hundred_files import File, write_hundred
from small_classifier import model_facts
from unfused import exporting, inference
from unfused.commands.export import write_page
from unfused.config import ConfigError
from unfused.inference import Model
from unfused.inference.card import card
from unfused.store import Folder

pytestmark = pytest.mark.slow

UNKNOWN_TO_CHROMIUM = ("aiff", "caf", "wma", "amr")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    root = tmp_path_factory.mktemp("hundred")
    scorer = exported.linear(root / "classifier", "audio_ntt")
    facts = model_facts().model_copy(update={"scorer": scorer, "licenses": []})
    inference.write(Folder.of(root / "model"), facts, Folder.of(root / "classifier"), card(facts))
    (root / "files").mkdir()
    return root


@pytest.fixture(scope="module")
def files(place: Path) -> list[File]:
    return write_hundred(place / "files")


@pytest.fixture(scope="module")
def model(place: Path) -> Model:
    return unfused.load(place / "model")


@pytest.fixture(scope="module")
def table(place: Path, files: list[File]) -> dict[str, np.ndarray]:
    """What `unfused predict` says: probabilities by the file's name."""
    command = [sys.executable, "-m", "unfused", "predict", "model", "files"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    names = [f"probability.{name}" for name in exported.CLASSES]
    assert not [row for row in rows if row["reason"]]
    return {Path(row["path"]).name: np.array([float(row[n]) for n in names]) for row in rows}


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "unfused", "serve", "model", "--port", "0"],
        cwd=place,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(30)


def test_every_one_of_a_hundred_files_has_a_label_that_could_be_another(files, table):
    assert len(files) == 100 and list(table) == [file.path.name for file in files]
    said = np.stack(list(table.values()))
    assert np.median(said.max(axis=1)) < 0.8
    assert np.bincount(said.argmax(axis=1), minlength=3).min() >= 10


def test_the_server_says_of_a_files_bytes_what_the_table_says(files, table, server):
    for file in files:
        with urllib.request.urlopen(server + "predict", file.path.read_bytes()) as answer:
            said = json.load(answer)["probabilities"]
        np.testing.assert_allclose(list(said.values()), table[file.path.name], atol=1e-3)


def test_the_exported_file_says_of_the_waveform_what_the_table_says(files, table, model, place):
    out = place / "model.onnx"
    exporting.write(Folder.of(place / "classifier"), model.facts.scorer, 16000, out, "onnx")
    session = onnxruntime.InferenceSession(out)
    for file in files:
        waveform = model.hearing.wave(file.path)[None] / np.float32(32768)
        said = session.run(["probabilities"], {"waveform": waveform})[0][0]
        np.testing.assert_allclose(said, table[file.path.name], atol=1e-3)


@pytest.fixture(scope="module")
def browser(place: Path, model: Model) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    try:
        write_page(model.folder, str(place / "page.html"), int8=False)
    except ConfigError as error:
        pytest.skip(str(error))
    with Browser() as page:
        page.open((place / "page.html").as_uri())
        page.wait("noises", "Ready.")
        yield page


def answered(page: Browser, file: File) -> SimpleNamespace:
    """What the page makes of a file: its sentence, and what it hears and says, if it can."""
    page.look("window.unfused = null; said.textContent = ''")
    page.choose("#file", file.path)
    done = "Boolean(window.unfused) || said.textContent.includes('cannot')"
    page.until(lambda: page.look(done), f"answer to {file.path.name}")
    found = page.look("window.unfused")
    sentence = page.look("said.textContent")
    if found is None:
        return SimpleNamespace(sentence=sentence, said=None)
    length = found["segments"][-1]["end"]
    return SimpleNamespace(sentence=sentence, said=found["probabilities"], length=length)


def within(file: File) -> float:
    """What the page's probabilities may differ by: what was measured, rounded up."""
    if file.kind == "opus":  # libsndfile decodes Opus at the rate of its source, browsers at 48 kHz
        return {8000: 0.3, 16000: 0.05}.get(file.rate, 1e-3)
    if file.kind == "webm":
        return 0.03
    if (file.kind, file.rate) == ("vorbis.ogg", 8000):
        return 0.01
    return {11025: 0.01, 44100: 2e-3}.get(file.rate, 1e-3)  # other stages of resampling


def test_the_page_says_what_the_table_says_or_that_the_browser_cannot_read_it(
    files, table, model, browser
):
    for file in files:
        name, page = file.path.name, answered(browser, file)
        if file.kind in UNKNOWN_TO_CHROMIUM:
            assert page.said is None
            assert page.sentence == (
                f"{name} cannot be read by this browser; save it as WAV, FLAC or MP3 and choose"
                " that."
            )
            continue
        wanted, wave = table[name], model.hearing.wave(file.path)
        if page.length < len(wave):
            # FFmpeg keeps an AAC encoder's padding at the end; of WebM the end agrees best.
            heard = wave[-page.length :] if file.kind == "webm" else wave[: page.length]
            wanted = list(model.predict(heard, rate=16000).probabilities.values())
        np.testing.assert_allclose(page.said, wanted, atol=within(file), err_msg=name)
        assert file.kind in ("m4a", "webm", "vorbis.ogg") or page.length == len(wave), name
