"""The registered model: what a colleague loads who has neither Ray nor this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from unfused import data, scorers, tracking
from unfused.audio.samples import Cut, Windows
from unfused.config import AudioConfig, ConfigError
from unfused.events import RunFinished, RunStarted
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import on_device
from unfused.scorers import ScorerFacts
from unfused.store import Folder

CLASSES = ["C# minor", "dog", "label"]
CROP, POOLING = AudioConfig().crop_samples, "attention"
LENGTHS = {"shorter": CROP // 3, "exact": CROP, "longer": 2 * CROP + 777}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return random_classifier(Folder.of(tmp_path_factory.mktemp("store") / "finetune" / "feedface"))


def random_classifier(folder: Folder) -> Folder:
    """A finetune artifact as the stage writes it, with random weights and two draws."""
    torch.manual_seed(0)
    encoder = ClipEncoder(AudioConfig(), AudioNTTConfig(embedding_dim=16), mean=-8.0, std=4.0)
    encoder.save(folder, "start")
    for repeat in range(2):
        head = LinearClassifier(16, len(CLASSES), power=0.5)
        torch.nn.init.normal_(next(head.parameters()), std=1.0)
        ClipClassifier.save_head(folder, repeat, head, CLASSES, "start")
    return folder


def scorer_facts(num_crops: int | str) -> ScorerFacts:
    return ScorerFacts(
        kind="linear",
        classes=CLASSES,
        num_repeats=2,
        num_labels=9,
        num_validation_labels=0,
        num_crops=num_crops,
        crop_samples=CROP,
        pooling=POOLING,
    )


def tones(length: int, count: int = 3) -> np.ndarray:
    """int16 clips (B, S) whose pitch changes all the time, so that each window sounds different."""
    rng = np.random.default_rng(length)
    time = np.arange(length) / 16000
    pitch = rng.uniform(200, 800, (count, 1)) * (1 + time)
    wave = np.sin(2 * np.pi * pitch * time) * rng.uniform(0.2, 0.9, (count, 1))
    return (wave * 32767).astype(np.int16)


def evaluated(
    clips: np.ndarray, folder: Folder, num_crops: int | str, tmp_path: Path
) -> np.ndarray:
    """Probabilities (B, N) by the way of the evaluation: shards, windows, classifier."""
    place = Folder.of(tmp_path / f"part-{clips.shape[1]}")
    writer = data.ShardWriter(place, "part-00000.parquet")
    for number, clip in enumerate(clips):
        writer.add(str(number), clip)
    writer.close()
    piece = data.Slice(place, "part-00000.parquet", 0, len(clips), 0)
    block = data.even_block(piece, Cut(CROP, num_crops))
    windows = Windows(block["samples"], np.bincount(block["clip"]))
    windows = on_device(windows, torch.device("cpu"))
    return ClipClassifier.load(folder).predict(windows, POOLING).numpy()


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table[[f"probability.{name}" for name in CLASSES]].to_numpy()


def served(folder: Folder, num_crops: int | str = 1):
    """The model, loaded as MLflow loads it."""
    from unfused.serving import Classifier

    model = Classifier()
    facts = scorer_facts(num_crops).model_copy(update={"num_repeats": 1})
    folder.write_json(scorers.FACTS_FILE, facts.model_dump(mode="json"))
    model.load_context(SimpleNamespace(artifacts={"classifier": folder.uri}))
    return model


@pytest.mark.parametrize("num_crops", [1, 3, "auto"])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_waveform_is_scored_as_the_evaluation_scores_the_clip(
    classifier, length, num_crops, tmp_path
):
    clips = tones(length)
    table = served(classifier, num_crops).classify(clips.astype(np.float32) / 32768)
    wanted = evaluated(clips, classifier, num_crops, tmp_path)
    np.testing.assert_allclose(probabilities(table), wanted, atol=1e-6)
    assert list(table["label"]) == [CLASSES[i] for i in wanted.argmax(1)]
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_more_clips_than_fit_at_once_give_the_same_scores(classifier, monkeypatch):
    model, clips = served(classifier), tones(CROP, count=5).astype(np.float32) / 32768
    whole = probabilities(model.classify(clips))
    monkeypatch.setattr("unfused.serving.CLIPS_AT_ONCE", 2)
    np.testing.assert_allclose(probabilities(model.classify(clips)), whole, atol=1e-6)


def test_what_is_louder_than_full_scale_is_clipped_as_by_ingest(classifier):
    model, wave = served(classifier), tones(CROP).astype(np.float32) / 16000
    clipped = np.clip(wave, -1, 32767 / 32768)
    assert (wave != clipped).any()
    np.testing.assert_array_equal(
        probabilities(model.classify(wave)), probabilities(model.classify(clipped))
    )


@pytest.mark.parametrize(
    "wrong", [np.zeros(100), np.zeros((0, 100)), np.zeros((2, 0)), np.array([[0.0, np.nan]])]
)
def test_what_is_not_a_batch_of_waveforms_is_refused(classifier, wrong):
    with pytest.raises(ValueError, match=r"give \(clips, samples\)"):
        served(classifier).classify(wrong)


@pytest.fixture(scope="module")
def registered(classifier: Folder, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What MLflow has after two pipelines with one classifier and a third with another."""
    from mlflow import MlflowClient

    uri = tracking.initialise(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    facts = scorer_facts(num_crops=3)
    runs = []
    other = random_classifier(Folder.of(tmp_path_factory.mktemp("store") / "finetune" / "decade"))
    for folder in (classifier, classifier, other):
        tracker = tracking.Tracker(uri, "spoken/digits", "store")
        tracker(RunStarted({}, (), {}))
        tracker(RunFinished("FINISHED"))
        tracker.register(folder, facts, "spoken/digits")
        runs.append(tracker.describe()["run_id"])
        tracker.close()
    client = MlflowClient(uri)
    versions = client.search_model_versions("name = 'unfused-spoken-digits'")
    versions.sort(key=lambda version: int(version.version))
    return SimpleNamespace(uri=uri, client=client, runs=runs, versions=versions)


def test_every_new_classifier_is_a_version_that_leads_back_to_its_pipeline(registered, classifier):
    first, _, third = registered.runs
    assert [version.run_id for version in registered.versions] == [first, third]
    assert {version.status for version in registered.versions} == {"READY"}
    tags = registered.versions[0].tags
    assert tags["key"] == "feedface"
    assert tags["store"] == classifier.uri
    assert tags["pipeline"] == first


def test_every_pipeline_run_shows_the_model_that_it_led_to(registered):
    runs = [registered.client.get_run(run_id) for run_id in registered.runs]
    shown = [[model.model_id for model in run.outputs.model_outputs] for run in runs]
    one, two = (version.tags["model_id"] for version in registered.versions)
    assert shown == [[one], [one], [two]]
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_gives_its_encoder_to_another_run(registered, classifier, version, tmp_path):
    from functools import partial

    from unfused import teachers

    find = partial(tracking.registered_files, tracking_uri=registered.uri, scratch=tmp_path)
    found = teachers.read(f"models:/unfused-spoken-digits/{version}", registered=find)
    key = ("feedface", "decade")[version - 1]
    assert registered.versions[version - 1].tags["key"] == key
    weights = ClipEncoder.load(found.folder, found.facts.file).state_dict()
    same = ClipEncoder.load(classifier, "start").state_dict()
    assert all(torch.equal(weights[name], value) for name, value in same.items())


@pytest.mark.parametrize("uri", ["models:/unfused-spoken-digits/9", "models:/none/1", "models:/x"])
def test_a_version_that_is_not_there_is_one_sentence(registered, uri, tmp_path):
    with pytest.raises(ConfigError, match=r"no model models:/|is no registered model; write"):
        tracking.registered_files(uri, registered.uri, tmp_path)


def test_the_model_is_signed_holds_one_draw_and_no_pickle(registered):
    from mlflow.models import Model

    folder = Path(registered.versions[0].source.removeprefix("file://"))
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"head-00.safetensors", "start.safetensors", "serving.py"} <= files
    assert not {name for name in files if name.endswith((".pkl", ".pyc")) or "head-01" in name}
    signature = Model.load(str(folder)).signature
    (waveforms,) = signature.inputs.inputs
    assert (waveforms.type, waveforms.shape) == (np.dtype(np.float32), (-1, -1))
    names = [column.name for column in signature.outputs.inputs]
    assert names == ["label", *(f"probability.{name}" for name in CLASSES)]
    assert "+" not in (folder / "requirements.txt").read_text()


ELSEWHERE = """
import json, sys
sys.modules["ray"] = None
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/unfused-spoken-digits/2")
import unfused
clips = numpy.load(sys.argv[2])
tables = {name: model.predict(clips[name]).to_dict("list") for name in clips.files}
print(json.dumps({"code": unfused.__file__, "tables": tables}))
"""


@pytest.mark.slow
def test_a_process_without_ray_and_without_this_project_loads_it_and_gets_the_same_numbers(
    registered, classifier, tmp_path
):
    clips = {name: tones(length) for name, length in LENGTHS.items()}
    np.savez(tmp_path / "clips.npz", **{n: c.astype(np.float32) / 32768 for n, c in clips.items()})
    command = [sys.executable, "-c", ELSEWHERE, registered.uri, str(tmp_path / "clips.npz")]
    env = {"PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "mlartifacts" in told["code"]
    for name, table in told["tables"].items():
        wanted = evaluated(clips[name], classifier, 3, tmp_path)
        np.testing.assert_allclose(probabilities(pd.DataFrame(table)), wanted, atol=1e-5)
        assert table["label"] == [CLASSES[i] for i in wanted.argmax(1)]
