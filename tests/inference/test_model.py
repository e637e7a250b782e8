"""A model's folder, and what it says of audio however that is given."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import unfused
from small_classifier import (
    CLASSES,
    CROP,
    evaluated,
    model_facts,
    random_classifier,
    tones,
    write_model,
)
from unfused import teachers
from unfused.audio.decode import BadClip
from unfused.audio.samples import Cut
from unfused.config import ConfigError
from unfused.inference import Model, TimelineConfig, read_facts
from unfused.inference.card import card
from unfused.inference.files import Looking, predicted
from unfused.inference.folder import ModelFacts
from unfused.inference.hearing import Hearing
from unfused.store import Folder
from unfused.teachers import TeacherFacts


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return random_classifier(Folder.of(tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="module")
def folder(classifier: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "noises"
    write_model(Folder.of(place), classifier)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return unfused.load(folder)


def wav(path: Path, wave: np.ndarray, rate: int = 16000, **how: str) -> Path:
    soundfile.write(path, wave, rate, **how)
    return path


def test_a_file_is_scored_as_the_evaluation_scores_it(model, classifier, tmp_path):
    clips = tones(3 * CROP + 11)
    wanted = evaluated(clips, classifier, "auto", tmp_path)
    for number, clip in enumerate(clips):
        found = model.predict(wav(tmp_path / f"{number}.wav", clip))
        np.testing.assert_allclose(list(found.probabilities.values()), wanted[number], atol=1e-6)
        assert found.label == CLASSES[wanted[number].argmax()]
        assert found.probability == max(found.probabilities.values())
        assert len(found.digest) == 64 and found.end == pytest.approx(len(clip) / 16000)


def test_samples_bytes_and_files_of_one_recording_are_labelled_alike(model, tmp_path):
    clip = tones(CROP, count=1)[0]
    path = wav(tmp_path / "clip.wav", clip)
    given = [
        (path, None), (path.read_bytes(), None), (clip, 16000), (clip / 32768, 16000),
        (np.stack([clip, clip], 1).astype(np.float64) / 32768, 16000),
    ]  # fmt: skip
    found = [list(model.predict(*one).probabilities.values()) for one in given]
    np.testing.assert_allclose(found, [found[0]] * len(found), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_samples_at_a_files_rate_are_labelled_as_the_file(model, tmp_path, rate, kind):
    if kind == "ogg" and rate > 48000:
        rate = 48000
    time = np.arange(rate) / rate
    wave = 0.4 * np.sin(2 * np.pi * 440 * time)
    path = wav(tmp_path / f"clip.{kind}", np.stack([wave, 0.5 * wave], 1), rate)
    samples, read = soundfile.read(path)
    one, other = model.predict(path), model.predict(samples, read)
    assert one.label == other.label
    np.testing.assert_allclose(
        list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-3
    )


@pytest.mark.parametrize("channel", ["mean", "left", "right", "loudest"])
@pytest.mark.parametrize("sides", [(1, -1), (0.2, 0.9)])
def test_channels_of_samples_are_heard_as_those_of_a_file(tmp_path, channel, sides):
    one, other = tones(CROP, count=2) / 32768
    second = one if sides == (1, -1) else other
    stereo = np.stack([sides[0] * one, sides[1] * second], 1)
    path = wav(tmp_path / "stereo.wav", stereo, 22050, subtype="FLOAT")
    hearing = Hearing(16000, channel=channel)
    wanted = hearing.wave(path)
    assert np.abs(wanted).max() > 1000
    for samples in (stereo, stereo.T):
        np.testing.assert_allclose(hearing.wave(samples, 22050), wanted, atol=1)


def test_what_cannot_be_understood_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="rate=16000"):
        model.predict(np.zeros(100))
    with pytest.raises(ValueError, match="its own rate"):
        model.predict(b"", 16000)
    with pytest.raises(ValueError, match="give each to `predict`"):
        model.predict_all([np.zeros(100)])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(np.full(100, np.nan), 16000)
    with pytest.raises(BadClip, match="missing"):
        model.predict(tmp_path / "none.wav")


KINDS = {
    "float64": lambda wave: wave,
    "float16": lambda wave: wave.astype(np.float16),
    "int16": lambda wave: (wave * 32767).astype(np.int16),
    "int32": lambda wave: (wave * (2**31 - 1)).astype(np.int32),
    "uint8": lambda wave: (wave * 127 + 128).astype(np.uint8),
    "(S, 2)": lambda wave: np.stack([wave, wave], 1),
    "(2, S)": lambda wave: np.stack([wave, wave]),
    "a list": lambda wave: wave.tolist(),
    "torch": lambda wave: torch.from_numpy(wave),
    "torch (2, S)": lambda wave: torch.from_numpy(np.stack([wave, wave])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_type_and_order_are_one_sound(model, kind):
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(CROP) / 16000)
    heard, wanted = (model.wave(one, 16000) for one in (KINDS[kind](wave), wave))
    assert heard.shape == wanted.shape
    assert np.abs(heard.astype(int) - wanted).max() < (400 if kind == "uint8" else 20)
    assert model.predict(KINDS[kind](wave), 16000).label == model.predict(wave, 16000).label


@pytest.mark.parametrize(
    "rate", [0, -1, 0.5, np.nan, np.inf, "16000", 16, 44.1, True, np.True_, 2e7]
)
def test_a_rate_that_is_none_is_refused(model, rate):
    with pytest.raises(ValueError, match="A rate is Hz, as in rate=16000; got "):
        model.predict(np.zeros(100), rate)


def test_samples_are_no_longer_than_a_model_takes(folder):
    model = Model(Folder.of(folder), max_seconds=2.0)
    assert model.predict(np.zeros(2000), 1000).label
    with pytest.raises(ValueError, match="are 3 s of sound at 1000 Hz, and 2 are taken"):
        model.predict(np.zeros(3000), 1000)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.full(100, 20000.0), "reach 20000, where 1 is full scale; divide them"),
        (np.full(100, 3), "of type int64; give floats"),
        (np.zeros(100, bool), "of type bool"),
        (np.array(["a.wav"]), "of type <U5"),
        (np.zeros((2, 3, 100)), "shape"),
    ],
)
def test_samples_whose_scale_nobody_knows_are_refused(model, samples, told):
    with pytest.raises(ValueError, match=told):
        model.predict(samples, 16000)


def test_many_files_are_a_table_and_what_cannot_be_read_has_its_reason(model, tmp_path):
    good = wav(tmp_path / "good.wav", tones(CROP, count=1)[0])
    bad = tmp_path / "[a] bad.wav"
    bad.write_bytes(b"this is no audio")
    table = model.predict_all([good, bad, tmp_path / "none.wav", good])
    assert list(table["reason"].isna()) == [True, False, False, True]
    assert table["reason"][1].startswith("not audio") and table["reason"][2] == "missing"
    assert list(table["path"])[:2] == [str(good), str(bad)]
    assert table["label"][0] == table["label"][3] == model.predict(good).label
    total = table[[f"probability.{name}" for name in CLASSES]].iloc[0].sum()
    assert total == pytest.approx(1)


@pytest.mark.parametrize("clips", ["clip.wav", b"RIFF", Path("clip.wav"), None, 3])
def test_what_is_no_list_of_files_is_not_taken_apart(model, clips):
    with pytest.raises(ValueError, match=r"for a list of files; give \[file\]"):
        model.predict_all(clips)


@pytest.mark.parametrize("clip", [None, [0.0, 0.1], np.zeros(9), 0.5])
def test_what_is_no_file_is_not_looked_for_as_one(model, clip):
    with pytest.raises(ValueError, match=rf"Clip 1 is {type(clip).__name__}, .* to `predict`"):
        model.predict_all(["clip.wav", clip])


def test_a_name_that_no_file_can_have_is_a_row_with_its_reason(model, tmp_path):
    good = wav(tmp_path / "good.wav", tones(CROP, count=1)[0])
    table = model.predict_all(["a\0b.wav", "", good])
    assert list(table["label"].isna()) == [True, True, False]
    assert table["reason"][0] == "missing: no file has a NUL in its name"
    with pytest.raises(BadClip, match="NUL"):
        model.predict("a\0b.wav")


def test_a_long_recording_is_a_timeline_and_one_label_if_asked(model, tmp_path):
    pieces = tones(CROP, count=8)
    path = wav(tmp_path / "long.wav", np.concatenate([*pieces, *pieces]))
    rows = list(predicted(model, [path], Looking(timeline=TimelineConfig(threshold=0.0))))
    assert rows[0]["start"] == 0 and rows[-1]["end"] == pytest.approx(16 * CROP / 16000)
    assert all(a["end"] == b["start"] for a, b in itertools.pairwise(rows))
    assert all(a["label"] != b["label"] for a, b in itertools.pairwise(rows))
    (whole,) = predicted(model, [path], Looking(whole=True))
    assert whole["label"] == model.predict(path).label
    (none,) = predicted(model, [path], Looking(timeline=TimelineConfig(threshold=1.0)))
    assert none["label"] is None and "no label" in none["reason"]


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_recording_of_many_stretches_is_the_timeline_of_its_samples(
    model, tmp_path, monkeypatch, rate
):
    monkeypatch.setattr("unfused.inference.hearing.HELD_BYTES", 1000)
    monkeypatch.setattr(Model, "stretch_seconds", 1.5)
    wave = np.concatenate(tones(CROP, count=24))
    path = wav(tmp_path / "long.wav", wave, rate)
    assert len([*model.hearing.stretches(path, 1.5)]) > 2
    all_of_it = Looking(parts=True, timeline=TimelineConfig(threshold=0.0))
    rows = list(predicted(model, [path], all_of_it))
    wanted = model.timeline(wave, rate, all_of_it.timeline)
    assert [row["label"] for row in rows] == [one.label for one in wanted]
    np.testing.assert_allclose(
        [(row["start"], row["end"], row["probability"]) for row in rows],
        [(one.start, one.end, one.probability) for one in wanted], atol=2e-3,
    )  # fmt: skip
    assert rows[0]["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.timeline(path, config=all_of_it.timeline)[-1].end == pytest.approx(
        len(wave) / rate, abs=1e-3
    )


def test_a_long_recording_that_lacks_its_end_is_a_timeline_up_to_there(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(Model, "stretch_seconds", 1.0)
    path = wav(tmp_path / "long.wav", np.concatenate(tones(CROP, count=8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    in_parts = Looking(parts=True, timeline=TimelineConfig(threshold=0.0))
    *rows, last = predicted(model, [path], in_parts)
    assert rows[-1]["end"] == pytest.approx(4 * CROP / 16000, abs=0.01) and rows[-1]["label"]
    assert last["label"] is None and last["reason"].startswith("truncated: ")
    (refused,) = predicted(model, [path], Looking(whole=True))
    assert refused["reason"] == last["reason"]


def test_samples_that_are_no_numbers_end_a_timeline_and_are_found(model, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "stretch_seconds", 1.0)
    wave = np.concatenate(tones(CROP, count=24)) / np.float32(32768)
    wave[-CROP] = np.nan
    path = wav(tmp_path / "long.wav", wave, subtype="FLOAT")
    in_parts = Looking(parts=True, timeline=TimelineConfig(threshold=0.0))
    *rows, last = predicted(model, [path], in_parts)
    begin, end = map(float, re.findall(r"\d+\.\d+", last["reason"]))
    assert last["reason"] == f"NaN or infinite samples: between {begin:.2f} and {end:.2f} s"
    assert rows[-1]["end"] == pytest.approx(begin, abs=0.01)
    assert begin < 23 * CROP / 16000 < end


@pytest.mark.parametrize("seconds", [1.0, 60.0])
def test_a_file_of_floats_in_other_units_has_the_reason_that_a_run_gives(
    model, tmp_path, monkeypatch, seconds
):
    monkeypatch.setattr(Model, "stretch_seconds", seconds)
    wave = np.concatenate(tones(CROP, count=2)).astype(np.float32)
    path = wav(tmp_path / "loud.wav", wave, subtype="FLOAT")
    with pytest.raises(BadClip) as refused:
        model.predict(path)
    (row,) = predicted(model, [path], Looking(parts=True))
    assert row["reason"] == str(refused.value) and "where 1 is full scale" in row["reason"]


def test_a_name_that_is_not_utf8_is_text_in_what_is_said_of_it(model, tmp_path):
    path = wav(tmp_path / "x.wav", tones(CROP, count=1)[0]).rename(
        os.fsdecode(os.fsencode(tmp_path) + b"/\xfc.wav")
    )
    assert model.predict(path).path == f"{tmp_path}/%FC.wav"
    (row,) = model.predict_all([path]).to_dict("records")
    assert row["path"] == f"{tmp_path}/%FC.wav" and row["label"]


def test_a_model_in_a_folder_whose_name_is_not_utf8_is_one_sentence(copied):
    elsewhere = copied.rename(os.fsdecode(os.fsencode(copied) + b"\xfc"))
    with pytest.raises(ConfigError, match="not UTF-8 text; rename that folder"):
        unfused.load(elsewhere)


def test_a_clip_has_the_vector_that_its_classifier_sees(model):
    found = model.embed(tones(CROP, count=1)[0], 16000)
    assert {name: row.shape for name, row in found.items()} == {"embedding": (16,)}


def test_the_card_says_what_the_model_is_scored_and_was_made_of(folder):
    card = (folder / "README.md").read_text()
    scores = ("0.750", "0.625 ± 0.177", "0.333")
    scores = (*scores, "balanced accuracy (mean recall of the classes), likewise | 0.580")
    for told in ("# noises", "`dog`", *scores, "Apache-2.0", "noises.csv"):
        assert told in card
    assert read_facts(Folder.of(folder)) == model_facts()


def test_a_model_of_before_balanced_accuracy_was_measured_is_read_and_has_a_card():
    told = model_facts().model_dump(mode="json")
    del told["measured"]["balanced_accuracy"]
    older = ModelFacts.model_validate(told)
    assert "balanced" not in card(older) and "| macro-F1, likewise | 0.600 |" in card(older)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("{", "damaged"),
        ('{"form": 1}', "damaged"),
        ('{"form": 99}', "the form 99"),
        (None, "no model"),
    ],
)
def test_a_folder_that_is_no_model_is_one_sentence(tmp_path, damage, told):
    if damage is not None:
        (tmp_path / "model.json").write_text(damage)
    with pytest.raises(ConfigError, match=told):
        unfused.load(tmp_path)


ALONE = """
import sys
sys.modules["ray"] = sys.modules["mlflow"] = None
import unfused
print(unfused.load(sys.argv[1]).predict(sys.argv[2]).label)
"""


@pytest.mark.slow
def test_three_lines_label_a_file_without_ray_and_mlflow(model, folder, tmp_path):
    path = wav(tmp_path / "clip.wav", tones(CROP, count=1)[0], 16000)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), str(path)], capture_output=True, text=True
    )
    assert done.stdout.strip() == model.predict(path).label, done.stderr


def test_what_is_printed_of_a_prediction_says_how_sure_it_is(model, tmp_path):
    path = wav(tmp_path / "clip.wav", tones(CROP, count=1)[0], 16000)
    said = model.predict(path)
    assert f"label={said.label!r}, probability={said.probability:.3f}" in repr(said)


def test_settings_of_a_timeline_are_given_by_name(model, tmp_path):
    path = wav(tmp_path / "long.wav", np.tile(tones(CROP, count=1)[0], 12), 16000)
    config = TimelineConfig(threshold=0.1)
    assert model.timeline(path, threshold=0.1) == model.timeline(path, config=config)
    with pytest.raises(ConfigError, match="threshold is a probability"):
        model.timeline(path, threshold=2)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("audio", "told"),
    [
        (None, "Got NoneType; give the path or the bytes of a file, or samples"),
        ({}, "Got dict"),
        ([[1.0, 2.0], [1.0]], r"lists of several lengths; give \(samples,\)"),
        ("", "missing: the name is empty"),
    ],
)
def test_what_is_no_audio_at_all_is_one_sentence(model, audio, told):
    with pytest.raises(ValueError, match=told):
        model.predict(audio, None if audio == "" else 16000)


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(ConfigError, match=f"no device '{device}' here; there is cpu"):
        unfused.load(folder, device)


def test_a_gpu_is_refused_where_there_is_none(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no device 'cuda' here; there is cpu\."):
        unfused.load(folder, "cuda")
    assert unfused.load(folder, "cpu").device == unfused.load(folder).device


@pytest.mark.parametrize("place", ["", " ", "s3://", "gs:///"])
def test_a_name_of_no_folder_is_not_taken_for_the_one_at_hand(copied, monkeypatch, place):
    monkeypatch.chdir(copied)
    with pytest.raises(ConfigError, match=r"folder is empty; say|names no place; write s3://"):
        unfused.load(place)


@pytest.mark.parametrize("name", ["../../outside/start", "/outside/start", "a/../../start", 3])
def test_a_model_names_no_file_outside_its_folder(copied, classifier, tmp_path, name):
    shutil.copytree(classifier.path, tmp_path / "outside")
    head = copied / "classifier" / "head-00.json"
    head.write_text(json.dumps({**json.loads(head.read_text()), "encoder": name}))
    with pytest.raises(ConfigError, match=r"leads out of its folder|classifier is damaged"):
        unfused.load(copied)


@pytest.mark.parametrize("what", ["model.json", "classifier", "classifier/start.safetensors"])
def test_a_model_has_no_link_that_leads_out_of_it(copied, tmp_path, what):
    (copied / what).rename(tmp_path / "outside")
    (copied / what).symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="leads out of its model"):
        unfused.load(copied)


def test_a_model_may_lie_behind_a_link_and_have_links_to_its_own_files(copied, tmp_path):
    (copied / "classifier" / "start.json").rename(copied / "classifier" / "blob")
    (copied / "classifier" / "start.json").symlink_to("blob")
    (tmp_path / "best").symlink_to(copied)
    assert unfused.load(tmp_path / "best").classes == CLASSES


def test_a_pipe_in_a_model_is_not_waited_for(copied):
    (copied / "classifier" / "start.safetensors").unlink()
    os.mkfifo(copied / "classifier" / "start.safetensors")
    with pytest.raises(ConfigError, match="is no file"):
        unfused.load(copied)


@pytest.mark.parametrize("harm", ["cut", "garbled", "gone"])
def test_a_damaged_classifier_is_one_sentence(copied, harm):
    weights = copied / "classifier" / "start.safetensors"
    data = weights.read_bytes()
    weights.write_bytes({"cut": data[:100], "garbled": b"x" * len(data), "gone": b""}[harm])
    if harm == "gone":
        weights.unlink()
    with pytest.raises(ConfigError, match="copy the model again") as refused:
        unfused.load(copied)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["model.json", "classifier/start.json", "classifier/head-00.safetensors"]
)
def test_a_folder_in_the_place_of_a_file_is_one_sentence(copied, name):
    (copied / name).unlink()
    (copied / name).mkdir()
    with pytest.raises(ConfigError, match="is damaged; copy the model again"):
        unfused.load(copied)


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        ("model.json", ("scorer", "num_repeats"), -1),
        ("model.json", ("scorer", "num_crops"), 0),
        ("model.json", ("scorer", "crop_samples"), None),
        ("classifier/start.json", ("encoder",), 0),
    ],
)
def test_facts_that_cannot_be_are_one_sentence(copied, file, place, value):
    told = json.loads((copied / file).read_text())
    inner = told
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (copied / file).write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="is damaged; copy the model again"):
        unfused.load(copied)


@pytest.mark.parametrize("file", ["/etc/model.onnx", "../model.onnx", "a/../../model.onnx"])
def test_a_teacher_of_a_model_names_no_file_outside_its_folder(file):
    facts = teachers.own("ears", 16000, Cut(CROP, 1), "last").model_dump()
    with pytest.raises(ValueError, match="leads out of its folder"):
        TeacherFacts.model_validate(facts | {"file": file})
