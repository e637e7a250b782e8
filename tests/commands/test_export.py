"""`unfused export` as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unfused
from small_classifier import CROP, random_classifier, tones, write_model
from unfused.commands.export import export
from unfused.exporting import onnxfile
from unfused.store import Folder

pytest.importorskip("onnxscript", reason="the export extra has it")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_model(Folder.of(root / "noises"), random_classifier(Folder.of(root / "classifier")))
    return root / "noises"


def test_a_model_becomes_files_that_say_what_it_says(folder, tmp_path, capsys):
    out = tmp_path / "noises.onnx"
    export(Folder.of(folder), "onnx", str(out), int8=True)
    assert {path.name for path in tmp_path.iterdir()} == {"noises.onnx", "noises.int8.onnx"}
    told = " ".join(capsys.readouterr().out.split())
    assert "16000 Hz" in told and "accuracy not measured" in told
    model, clips = unfused.load(folder), list(tones(2 * CROP + 5))
    said = onnxfile.probabilities(out, clips)
    np.testing.assert_allclose(said, model.probabilities(clips), atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "tflite", "--out", "x"], "there are onnx and torch"),
        (["--out", "no/such/x.onnx"], "there is no folder"),
        (["--format", "torch", "--int8", "--out", "x.pt2"], "ONNX files alone"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(folder, arguments, told, tmp_path):
    command = [sys.executable, "-m", "unfused", "export", str(folder), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())
