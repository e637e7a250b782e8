"""`unfused serve` over real HTTP, with real files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import unfused
from small_classifier import CROP, random_classifier, tones, write_model
from unfused.store import Folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    root = tmp_path_factory.mktemp("served")
    classifier = random_classifier(Folder.of(root / "classifier"))
    write_model(Folder.of(root / "noises"), classifier)
    limits = ["--max-mib", "1", "--max-seconds", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unfused", "serve", "noises", "--port", "0", *limits],
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    yield SimpleNamespace(url=first.split()[-1], model=unfused.load(root / "noises"))
    process.terminate()
    process.wait(30)


def asked(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def file(wave: np.ndarray, rate: int = 16000, kind: str = "WAV") -> bytes:
    whole = io.BytesIO()
    soundfile.write(whole, wave, rate, format=kind)
    return whole.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_file_that_is_sent_is_labelled_as_predict_labels_it(server, kind, rate):
    rng = np.random.default_rng(rate)
    sent = file(np.cumsum(rng.standard_normal((rate, 2)), 0) / 300, rate, kind)
    status, answer = asked(server.url + "predict", sent)
    found, wanted = json.loads(answer), server.model.predict(sent)
    assert status == 200 and found["label"] == wanted.label and found["digest"] == wanted.digest
    assert found["probabilities"] == pytest.approx(dict(wanted.probabilities), abs=1e-5)


def test_a_long_recording_has_a_timeline(server):
    sent = file(np.concatenate(tones(CROP, count=6)))
    status, answer = asked(server.url + "timeline?threshold=0", sent)
    found = json.loads(answer)
    assert status == 200 and found[0]["start"] == 0
    assert found[-1]["end"] == pytest.approx(6 * CROP / 16000)


@pytest.mark.parametrize(
    ("path", "data", "status", "told"),
    [
        ("predict", b"x" * (2**20 + 1), 413, "more than 1 MiB"),
        ("predict", file(np.zeros(9 * 8000), 8000), 422, "longer than 8 s"),
        ("predict", b"this is no audio", 422, "not audio"),
        ("timeline?overlap=2", file(np.ones(800)), 422, "[0, .95]"),
        ("timeline?threshold=high", file(np.ones(800)), 422, "threshold"),
    ],
)
def test_what_cannot_be_answered_is_said(server, path, data, status, told):
    assert asked(server.url + path, data)[0] == status
    assert told in asked(server.url + path, data)[1].decode()


def test_the_server_says_what_it_is(server):
    told = json.loads(asked(server.url + "health")[1])
    assert told["classes"] == server.model.classes and told["max_seconds"] == 8
    assert "/predict" in json.loads(asked(server.url + "openapi.json")[1])["paths"]
    assert b"noises" in asked(server.url)[1]


def test_a_port_that_is_taken_is_one_sentence(server, tmp_path):
    port = server.url.rstrip("/").rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "unfused", "serve", server.model.folder.uri, "--port", port],
        cwd=Path(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "give another --port" in " ".join(done.stderr.split())
