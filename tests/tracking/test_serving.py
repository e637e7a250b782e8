"""The registered model: what a colleague loads who has neither Ray nor this project."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from small_classifier import (
    CLASSES,
    CROP,
    evaluated,
    model_facts,
    random_classifier,
    tones,
    write_model,
)
from unfused import tracking
from unfused.audio.decode import resample
from unfused.commands.named import named
from unfused.config import ConfigError
from unfused.events import RunFinished, RunStarted
from unfused.inference import load
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Folder

LENGTHS = {"shorter": CROP // 3, "exact": CROP, "longer": 2 * CROP + 777}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return random_classifier(Folder.of(tmp_path_factory.mktemp("store") / "finetune" / "feedface"))


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table[[f"probability.{name}" for name in CLASSES]].to_numpy()


def served(folder: Folder, num_crops: int | str = 1):
    """The model, loaded as MLflow loads it."""
    from unfused.serving import Classifier

    model = Classifier()
    place = write_model(Folder(f"{folder.uri}-{num_crops}"), folder, num_crops)
    model.load_context(SimpleNamespace(artifacts={"model": place.uri}))
    return model


@pytest.mark.parametrize("num_crops", [1, 3, "auto"])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_waveform_is_scored_as_the_evaluation_scores_the_clip(
    classifier, length, num_crops, tmp_path
):
    clips = tones(length)
    model = served(classifier, num_crops)
    table = model.classify(clips.astype(np.float32) / 32768)
    assert table.equals(model.classify(clips)), "int16 means what it does in a file"
    wanted = evaluated(clips, classifier, num_crops, tmp_path)
    np.testing.assert_allclose(probabilities(table), wanted, atol=1e-6)
    assert list(table["label"]) == [CLASSES[i] for i in wanted.argmax(1)]
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_more_clips_than_fit_at_once_give_the_same_scores(classifier, monkeypatch):
    model, clips = served(classifier), tones(CROP, count=5).astype(np.float32) / 32768
    whole = probabilities(model.classify(clips))
    monkeypatch.setattr("unfused.inference.model.BLOCK_SECONDS", 2.0)
    np.testing.assert_allclose(probabilities(model.classify(clips)), whole, atol=1e-6)


def test_what_is_louder_than_full_scale_is_clipped_as_by_ingest(classifier):
    model, wave = served(classifier), tones(CROP).astype(np.float32) / 16000
    clipped = np.clip(wave, -1, 32767 / 32768)
    assert (wave != clipped).any()
    np.testing.assert_array_equal(
        probabilities(model.classify(wave)), probabilities(model.classify(clipped))
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((2, 3, 100)), r"give \(clips, samples\)"),
        (np.zeros((0, 100)), "no clip to label"),
        (np.zeros((2, 0)), r"give \(samples,\)"),
        (np.array([[0.0, np.nan]]), "NaN"),
        ([{}], "A clip is of dict"),
        (None, "Got NoneType; give a list of waveforms, paths or bytes of files"),
        (0.5, "Got float; give a list"),
        (np.float32(0.5), "Got float32; give a list"),
        (np.array(0.5), r"give \(clips, samples\)"),
        ({"path": "no/such.wav"}, "missing"),
        ({"samples": [[0.0], [0.0]], "rate": [16000]}, "several lengths; give each"),
        (["no/such.wav"], "missing"),
        (["/my-recordings/2024_01/deployment_0001/raw-audio/a-night_in-june"], "missing"),
        ([base64.b64encode(b"this is no audio" * 9).decode()], "not audio"),
    ],
)
def test_what_is_no_recording_is_refused(classifier, wrong, told):
    with pytest.raises(ValueError, match=told):
        served(classifier).classify(wrong)


def test_a_rate_that_is_not_the_models_is_resampled(classifier):
    model, rate = served(classifier), 44100
    low = tones(2 * CROP) / 32768
    high = np.stack([resample(wave, 16000, rate) for wave in low])
    wanted = probabilities(model.predict(None, low))
    there = probabilities(model.predict(None, high, {"sample_rate": rate}))
    unstated = probabilities(model.predict(None, high))
    off, far = (np.abs(found - wanted).max() for found in (there, unstated))
    assert off < 0.01 and far > 5 * off, (off, far)


@pytest.mark.parametrize("rate", [0, -1, 16, True])
def test_a_rate_that_is_none_is_refused_by_a_served_model(classifier, rate):
    model, waves = served(classifier), np.zeros((2, 1000), np.float32)
    with pytest.raises(ValueError, match="A rate is Hz"):
        model.predict(None, waves, {"sample_rate": rate})
    with pytest.raises(ValueError, match="A rate is Hz"):
        model.classify(pd.DataFrame({"samples": [*waves], "sample_rate": rate}))
    assert len(model.predict(None, waves, {"sample_rate": None})) == 2


def test_a_rate_is_heard_by_either_name_and_two_are_refused(classifier):
    model, waves = served(classifier), tones(CROP).astype(np.float32) / 32768
    wanted = model.predict(None, waves, {"sample_rate": 44100})
    assert not wanted.equals(model.predict(None, waves))
    assert wanted.equals(model.predict(None, waves, {"rate": 44100}))
    assert wanted.equals(model.predict(None, waves, {"sample_rate": 16000, "rate": 44100}))
    with pytest.raises(ValueError, match="sample_rate is 44100 and rate is 8000; give one"):
        model.predict(None, waves, {"sample_rate": 44100, "rate": 8000})


def test_a_column_states_the_rate_of_every_row(classifier):
    model, (one, other) = served(classifier), tones(CROP, count=2).astype(np.float32) / 32768
    frame = pd.DataFrame({"samples": [one, other, one], "sample_rate": [44100, 8000, None]})
    wanted = [(one, 44100), (other, 8000), (one, None)]
    for given in (frame, frame.rename(columns={"sample_rate": "rate"})):
        found = probabilities(model.classify(given))
        for row, (wave, rate) in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                row, probabilities(model.classify(wave, rate))[0], atol=1e-6
            )


@pytest.mark.parametrize("name", ["sr", "start", "file"])
@pytest.mark.parametrize("beside", ["samples", "waves"])
def test_a_column_that_nothing_is_known_of_is_refused_by_its_name(classifier, name, beside):
    known = {"samples": [np.zeros(1000)], "waves": [0.0]}[beside]
    frame = pd.DataFrame({"s0" if beside == "waves" else beside: known, name: [1]})
    with pytest.raises(ValueError, match=f"column '{name}' means; give one of path, audio"):
        served(classifier).classify(frame)


def test_what_a_manifest_has_beside_its_files_is_not_looked_at(classifier, tmp_path):
    soundfile.write(tmp_path / "a.wav", tones(CROP)[0], 16000)
    frame = pd.DataFrame({"path": [str(tmp_path / "a.wav")], "label": ["x"], "split": ["test"]})
    model = served(classifier)
    pd.testing.assert_frame_equal(model.classify(frame), model.classify(frame[["path"]]))


def test_waveforms_may_be_the_rows_of_a_data_frame(classifier):
    model, waves = served(classifier), tones(CROP // 4).astype(np.float32) / 32768
    wanted = model.classify(waves)
    assert wanted.equals(model.classify(pd.DataFrame(waves)))
    assert wanted.equals(model.classify(pd.DataFrame(waves).add_prefix("s")))


def test_whoever_asks_a_server_has_files_of_the_folder_that_is_served_alone(
    classifier, tmp_path, monkeypatch
):
    model, inside = served(classifier), tmp_path / "inside"
    inside.mkdir()
    outside = tmp_path / "secret.wav"
    soundfile.write(outside, tones(CROP, count=1)[0], 16000)
    (inside / "clip.wav").write_bytes(outside.read_bytes())
    (inside / "link.wav").symlink_to(outside)
    assert len(model.classify([str(outside)])) == 1, "a program of one's own reads what it names"
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(ValueError, match="reads no paths"):
        model.classify([str(inside / "clip.wav")])
    monkeypatch.setenv("UNFUSED_SERVED_FOLDER", str(inside))
    assert len(model.classify([str(inside / "clip.wav")])) == 1
    more = [inside / "../secret.wav", inside / "link.wav", "/etc/passwd", "s3://bucket/a.wav"]
    for path in map(str, [outside, *more]):
        with pytest.raises(ValueError, match="reads files below"):
            model.classify([path])
    column = pd.DataFrame({"path": [str(outside)]})
    with pytest.raises(ValueError, match="reads files below"):
        model.classify(column)


def test_what_a_small_file_unpacks_to_in_a_server_has_a_bound(classifier, monkeypatch):
    whole = io.BytesIO()
    soundfile.write(whole, np.zeros((1_000, 8)), 600_000, "PCM_16", format="FLAC")
    assert len(served(classifier).classify([whole.getvalue()])) == 1
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    monkeypatch.setattr("unfused.serving.SERVED_SECONDS", 0.05)
    with pytest.raises(ValueError, match=r"longer than 0\.001 s"):
        served(classifier).classify([whole.getvalue()])


@pytest.mark.parametrize("column", ["path", "audio", "base64", "lines", "url", "data", "alone"])
def test_files_are_given_by_path_by_their_bytes_or_as_base64(classifier, column, tmp_path):
    model, wave = served(classifier), tones(CROP, count=1)[0]
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.stack([wave, wave], 1), 16000)
    text = base64.b64encode(path.read_bytes()).decode()
    given = {
        "path": pd.DataFrame({"path": [str(path)]}),
        "audio": pd.DataFrame({"audio": [path.read_bytes()]}),
        "base64": [text],
        "lines": [base64.encodebytes(path.read_bytes()).decode()],
        "url": [base64.urlsafe_b64encode(path.read_bytes()).decode().rstrip("=")],
        "data": f"data:audio/flac;base64,{text}",
        "alone": str(path),
    }[column]
    wanted = model.classify(wave[None] / 32768.0)
    np.testing.assert_allclose(
        probabilities(model.classify(given)), probabilities(wanted), atol=1e-6
    )


@pytest.fixture(scope="module")
def registered(classifier: Folder, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What MLflow has after two pipelines with one classifier and a third with another."""
    from mlflow import MlflowClient

    uri = tracking.initialise(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    facts = model_facts(num_crops=3)
    runs = []
    one, other = (
        write_model(Folder.of(tmp_path_factory.mktemp("store") / "model" / key), classifier, 3)
        for key in ("feedface", "decade")
    )
    for folder in (one, one, other):
        tracker = tracking.Tracker(uri, "spoken/digits", str(tmp_path_factory.mktemp("store")))
        tracker(RunStarted({}, (), {}))
        tracker(RunFinished("FINISHED"))
        tracker.register(tracking.Classifier(folder, facts, "clips"), "spoken/digits")
        runs.append(tracker.describe()["run_id"])
        tracker.close()
    client = MlflowClient(uri)
    versions = client.search_model_versions("name = 'unfused-spoken-digits'")
    versions.sort(key=lambda version: int(version.version))
    folder = Path(versions[0].source.removeprefix("file://"))
    # Before anything loads it, which leaves bytecode beside its code.
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    return SimpleNamespace(uri=uri, client=client, runs=runs, versions=versions, files=files)


def test_mlflow_hands_a_rate_on_by_either_name(registered):
    import mlflow

    model, waves = mlflow.pyfunc.load_model(registered.versions[0].source), tones(CROP) / 32768
    wanted = model.predict(waves, params={"sample_rate": 44100})
    assert wanted.equals(model.predict(waves, params={"rate": 44100}))
    assert not wanted.equals(model.predict(waves))
    with pytest.raises(ValueError, match="A rate is Hz"):
        model.predict(waves, params={"sample_rate": 0})


def test_every_new_classifier_is_a_version_that_leads_back_to_its_pipeline(registered):
    first, _, third = registered.runs
    assert [version.run_id for version in registered.versions] == [first, third]
    assert {version.status for version in registered.versions} == {"READY"}
    tags = registered.versions[0].tags
    assert tags["key"] == "feedface"
    assert tags["store"].endswith("/model/feedface")
    assert tags["pipeline"] == first


def test_a_model_says_that_it_is_registered_what_it_is_and_how_good(registered):
    client, version = registered.client, registered.versions[0]
    assert client.get_model_version_by_alias(version.name, "champion").version == version.version
    assert f"runs/{registered.runs[0]}" in version.description
    model = client.get_logged_model(version.tags["model_id"])
    known = [{"name": version.name, "version": version.version}]
    assert json.loads(model.tags["mlflow.modelVersions"]) == known
    assert model.tags["mlflow.note.content"] == version.description
    assert {m.key: m.value for m in model.metrics} == {
        "test_accuracy_own": 0.75,
        "cross_validated": 0.625,
    }


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


def test_asking_a_database_that_is_not_there_makes_none(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ConfigError, match=r"gives no model models:/x/1 \(there is no such file"):
        tracking.registered_files("models:/x/1", uri, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["spoken/digits:best", "models:/unfused-spoken-digits@champion"]
)
def test_the_champion_is_found_by_the_name_of_its_experiment(registered, name):
    found = load(named(name, "no-store", registered.uri).uri)
    assert found.facts == model_facts(num_crops=3)


def test_the_model_is_signed_holds_one_draw_and_no_pickle(registered):
    from mlflow.models import Model

    folder, files = Path(registered.versions[0].source.removeprefix("file://")), registered.files
    assert {"head-00.safetensors", "start.safetensors", "serving.py", "model.json"} <= files
    assert not {name for name in files if name.endswith((".pkl", ".pyc")) or "head-01" in name}
    signature = Model.load(str(folder)).signature
    params = {one.name: one.default for one in signature.params.params}
    assert params == {"sample_rate": 16000, "rate": None}
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


@pytest.fixture(scope="module")
def served_by_mlflow(registered, tmp_path_factory) -> Iterator[str]:
    """`mlflow models serve`, in the environment at hand."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = registered.versions[0].source.removeprefix("file://")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", folder]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    # It finds its server on the path, as in an environment that is activated.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["UNFUSED_SERVED_FOLDER"] = str(tmp_path_factory.getbasetemp())
    process = subprocess.Popen(
        command, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()
                break
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["base64", "path", "float64 at 8 kHz"])
def test_mlflows_own_server_answers_for_files_and_for_arrays(
    served_by_mlflow, registered, kind, tmp_path
):
    wave, rate = tones(2 * CROP, count=1)[0][::2], 8000
    path = tmp_path / "clip.flac"
    soundfile.write(path, wave, rate)
    body = {
        "base64": {"inputs": [base64.b64encode(path.read_bytes()).decode()]},
        "path": {"dataframe_split": {"columns": ["path"], "data": [[str(path)]]}},
        "float64 at 8 kHz": {
            "inputs": [(wave / 32768).tolist()],
            "params": {"sample_rate": rate},
        },
    }[kind]
    request = urllib.request.Request(
        f"{served_by_mlflow}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (told,) = json.loads(answer.read())["predictions"]
    folder = Folder.of(registered.versions[0].source.removeprefix("file://"))
    wanted = load((folder / "artifacts" / "model").uri).predict(path)
    assert told["label"] == wanted.label
    for name, probability in wanted.probabilities.items():
        assert told[f"probability.{name}"] == pytest.approx(probability, abs=1e-3)
