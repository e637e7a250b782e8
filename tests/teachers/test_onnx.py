"""ONNX files as teachers: what they say of themselves, and what they give."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from real_teachers import SpeakerEncoder, speaker_encoder, speech_embedding
from small_models import BANDS, of_log_mel, of_samples

from unfused import teachers
from unfused.audio.frontend import LogMel
from unfused.config import ConfigError

CPU = torch.device("cpu")
RNG = np.random.default_rng(1)


def noise(*lengths: int) -> list[np.ndarray]:
    return [(3000 * RNG.standard_normal(n)).astype(np.int16) for n in lengths]


def embed(path, waves):
    found = teachers.read(f"onnx:{path}")
    return teachers.load(found.folder, found.facts, CPU).embed(waves)


def session_of(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda wave: session.run(None, {name: wave[None].astype(np.float32)})[0]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return speech_embedding(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return speaker_encoder(tmp_path_factory.mktemp("speaker"))


def test_a_speech_embedding_is_read_from_its_own_signature(speech):
    facts = teachers.read(f"onnx:{speech}").facts
    assert (facts.name, facts.license) == ("speech-embedding", "Apache-2.0")
    assert (facts.input, facts.input_axes, facts.output_axes) == ("samples:0", "BS", "BT1D")
    assert (facts.embedding_dim, facts.window_seconds, facts.batch) == (192, None, None)
    assert facts.min_samples == 2 * 12400 and facts.assumed == ()


@pytest.mark.parametrize("seconds", [0.3, 2.0, 7.1])
def test_a_clip_is_the_mean_and_maximum_of_the_frames_of_a_plain_call(speech, seconds):
    (wave,) = noise(int(16000 * seconds))
    short = max(0, 24800 - len(wave))
    padded = np.pad(wave, (short // 2, short - short // 2)) / 32768
    frames = session_of(speech)(padded).reshape(-1, 96)
    wanted = np.concatenate([frames.mean(0), frames.max(0)])
    np.testing.assert_allclose(embed(speech, [wave])[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_clip_does_not_depend_on_those_beside_it(speech):
    waves = noise(100, 30000, 30000, 45000, 45001, 16000)
    together = embed(speech, waves)
    alone = np.concatenate([embed(speech, [wave]) for wave in waves])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_a_clip_longer_than_memory_should_hold_is_cut_into_windows(speech):
    (wave,) = noise(16000 * 61)
    windows = [wave[begin : begin + 480000] for begin in (0, 248000, 496000)]
    rows = embed(speech, windows)
    found = embed(speech, [wave])[0]
    np.testing.assert_allclose(found[:96], rows[:, :96].mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[96:], rows[:, 96:].max(0), rtol=1e-4, atol=1e-4)


def test_the_exported_speaker_encoder_is_the_one_that_was_trained(speaker):
    model, wave = SpeakerEncoder.pretrained(), noise(25600)[0]
    with torch.inference_mode():
        wanted = model(torch.from_numpy(wave.astype(np.float32) / 32768)[None])[0].numpy()
    found = embed(speaker, [wave])[0]
    np.testing.assert_allclose(found, np.concatenate([wanted, wanted]), atol=1e-5)


@pytest.mark.slow
def test_its_front_end_is_librosas():
    import librosa

    wave = noise(8000)[0].astype(np.float32) / 32768
    raised = wave * max(1.0, 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2)))
    wanted = librosa.feature.melspectrogram(
        y=raised, sr=16000, n_fft=400, hop_length=160, n_mels=40
    )
    found = SpeakerEncoder().mel_power(torch.from_numpy(wave)[None])[0].numpy().T
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_window_of_the_json_cuts_a_long_clip_into_as_few_as_cover_it(speaker):
    facts = teachers.read(f"onnx:{speaker}").facts
    assert (facts.window_seconds, facts.min_samples, facts.padding) == (1.6, 25600, "end")
    (wave,) = noise(40000)
    rows = embed(speaker, [wave[:25600], wave[-25600:]])[:, :256]
    wanted = np.concatenate([rows.mean(0), rows.max(0)])
    np.testing.assert_allclose(embed(speaker, [wave])[0], wanted, atol=1e-5)


@pytest.mark.slow
def test_few_labels_on_the_speech_embedding_tell_digits_apart(speech, shared_data):
    """On validation clips; log-mel statistics reach .62."""
    import csv

    from sklearn.linear_model import LogisticRegression

    from unfused.audio.decode import decode

    rows = list(csv.DictReader((shared_data / "fsdd" / "digits.csv").open()))
    train = [r for r in rows if r["split"] == "train"]
    few = [r for n in range(10) for r in [t for t in train if t["label"] == str(n)][::48]]
    valid = [row for row in rows if row["split"] == "valid"][::2]
    assert len(few) == 50

    def embedded(some):
        files = [(shared_data / "fsdd" / row["path"]).read_bytes() for row in some]
        return embed(speech, [decode(data, 16000, 60.0) for data in files])

    x, y = embedded(few), [row["label"] for row in few]
    mean, std = x.mean(0), x.std(0)
    model = LogisticRegression(C=0.1, max_iter=2000).fit((x - mean) / std, y)
    score = model.score((embedded(valid) - mean) / std, [row["label"] for row in valid])
    assert score > 0.93


def test_another_json_is_another_teacher_and_another_licence_is_not(tmp_path):
    path = of_samples(tmp_path / "m.onnx")
    beside = tmp_path / "m.onnx.json"

    def digest(**said):
        beside.write_text(json.dumps({"sample_rate": 16000, **said}))
        return teachers.read(f"onnx:{path}").digest

    first = digest()
    assert digest(license="MIT") == first
    assert len({first, digest(level="int16"), digest(pooling="max"), digest(padding="end")}) == 4
    of_samples(path, metadata={"anything": "else"})
    assert digest() != first


def test_the_files_own_metadata_speaks_and_the_json_goes_before_it(tmp_path):
    said = {"sample_rate": "8000", "level": "int16", "license": "MIT", "author": "somebody"}
    path = of_samples(tmp_path / "m.onnx", metadata=said)
    facts = teachers.read(f"onnx:{path}").facts
    assert (facts.sample_rate, facts.level, facts.license) == (8000, "int16", "MIT")
    (tmp_path / "m.json").write_text('{"sample_rate": 22050}')
    facts = teachers.read(f"onnx:{path}").facts
    assert (facts.sample_rate, facts.level) == (22050, "int16")


def test_what_nothing_states_is_assumed_and_told(tmp_path):
    facts = teachers.read(f"onnx:{of_samples(tmp_path / 'm.onnx')}").facts
    assert (facts.sample_rate, facts.level) == (16000, "float")
    assert facts.assumption == (
        "Nothing states sample_rate and level of the teacher m: sample_rate=16000, level=float is"
        " assumed; say it in m.onnx.json."
    )


@pytest.mark.parametrize(("seconds", "samples"), [(0.2, 3200), (0.001, 400)])
def test_the_json_may_say_how_short_a_clip_may_be(tmp_path, seconds, samples):
    path = of_samples(tmp_path / "m.onnx")
    assert teachers.read(f"onnx:{path}").facts.min_samples == 800
    (tmp_path / "m.json").write_text(json.dumps({"min_seconds": seconds}))
    assert teachers.read(f"onnx:{path}").facts.min_samples == samples


def test_null_is_not_said_and_a_name_is_taken(tmp_path):
    path = of_samples(tmp_path / "m.onnx")
    said = {"name": "bird", "window_seconds": None, "pooling": "mean+max", "level": None}
    (tmp_path / "m.json").write_text(json.dumps(said))
    facts = teachers.read(f"onnx:{path}").facts
    assert (facts.name, facts.window_seconds, facts.pooling) == ("bird", None, "mean_max")
    assert facts.assumed == ("sample_rate", "level")


def test_frames_may_lie_before_or_behind_the_embedding(tmp_path):
    path = of_samples(tmp_path / "m.onnx")
    assert teachers.read(f"onnx:{path}").facts.output_axes == "BDT"
    (wave,) = noise(1200)
    frames = session_of(path)(wave / 32768)[0]
    assert frames.shape == (BANDS, 6)
    wanted = np.concatenate([frames.mean(1), frames.max(1)])
    np.testing.assert_allclose(embed(path, [wave])[0], wanted, rtol=1e-5)


def test_levels_of_int16_are_fed_as_they_are(tmp_path):
    whole = of_samples(tmp_path / "int.onnx", kind=TensorProto.INT16)
    assert teachers.read(f"onnx:{whole}").facts.level == "int16"
    small, waves = of_samples(tmp_path / "float.onnx"), noise(2000)
    np.testing.assert_allclose(embed(whole, waves), embed(small, waves) * 32768, rtol=1e-4)


def test_a_fixed_window_and_batch_are_kept(tmp_path):
    path = of_samples(tmp_path / "m.onnx", shape=(2, 4000))
    (tmp_path / "m.json").write_text('{"output_axes": "BDT"}')
    facts = teachers.read(f"onnx:{path}").facts
    assert (facts.batch, facts.window_seconds, facts.min_samples) == (2, 0.25, 4000)
    free, waves = of_samples(tmp_path / "free.onnx"), noise(4000, 4000, 4000)
    np.testing.assert_allclose(embed(path, waves), embed(free, waves), rtol=1e-5)


@pytest.mark.parametrize("frames", ["time", 51])
def test_a_model_of_log_mel_is_fed_it(tmp_path, frames):
    path = of_log_mel(tmp_path / "m.onnx", ("batch", 1, 64, frames))
    facts = teachers.read(f"onnx:{path}").facts
    assert facts.input_axes == "B1FT" and facts.log_mel.n_mels == 64
    assert facts.window_seconds == (None if frames == "time" else 0.5)
    (wave,) = noise(8000)
    wanted = LogMel()(torch.from_numpy(wave)[None])[0].mean(1).numpy()
    np.testing.assert_allclose(embed(path, [wave])[0][:64], wanted, rtol=1e-4, atol=1e-4)


def test_the_json_says_which_log_mel(tmp_path):
    path = of_log_mel(tmp_path / "m.onnx", ("batch", 1, 40, "time"))
    settings = {"n_fft": 400, "n_mels": 40, "f_min": 0, "mean": -5, "std": 2}
    (tmp_path / "m.json").write_text(json.dumps({"log_mel": settings}))
    (wave,) = noise(8000)
    frames = LogMel(n_fft=400, n_mels=40, f_min=0.0)(torch.from_numpy(wave)[None])[0].mean(1)
    wanted = (frames.numpy() + 5) / 2
    np.testing.assert_allclose(embed(path, [wave])[0], wanted, rtol=1e-4, atol=1e-4)


def test_weights_in_a_file_beside_are_part_of_the_teacher(tmp_path):
    import onnx

    from unfused.teachers.kinds.onnx import external_files

    path = of_samples(tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.weights", size_threshold=1000)
    assert external_files(path) == [tmp_path / "m.weights"]
    before = teachers.read(f"onnx:{path}").digest
    weights = np.fromfile(tmp_path / "m.weights", np.float32)
    weights[:100] *= 2
    weights.tofile(tmp_path / "m.weights")
    assert teachers.read(f"onnx:{path}").digest != before


def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"m\.onnx is no ONNX model .*; export it again\.$"):
        teachers.read(f"onnx:{path}")


def test_of_several_outputs_the_one_that_calls_itself_an_embedding_is_read(tmp_path):
    path = of_samples(tmp_path / "m.onnx", also="embedding")
    assert teachers.read(f"onnx:{path}").facts.output == "embedding"


@pytest.mark.parametrize(
    ("shape", "said", "match"),
    [
        ((1, 4000), {}, r'output has the shape \(1, 4, 23\); name its axes by "output_axes"'),
        ((1, 4000), {"window_seconds": 1.0}, r"takes windows of 4000 samples"),
        (("b", "s"), {"output": "nothing"}, r'outputs frames .*; say which is read by "output"'),
        (("b", "s"), {"input": "nothing"}, r'says "input": "nothing" and it has x'),
        (("b", "s"), {"window_seconds": 0.01}, r'fails on 1 x 160 .*; set "window_seconds"'),
        (("b", "s"), {"level": "loud"}, r"says level='loud' .*; the keys .* are name, sample_"),
        (("b", "s"), {"sample_rates": 1}, r"says sample_rates=1 .*; the keys"),
    ],
)
def test_what_cannot_be_understood_names_the_key_that_settles_it(tmp_path, shape, said, match):
    path = of_samples(tmp_path / "m.onnx", shape=shape)
    (tmp_path / "m.onnx.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=match):
        teachers.read(f"onnx:{path}")


@pytest.mark.parametrize("shape", [("b", 1, "y", "z"), ("b", 1, 64, 96)])
def test_log_mel_whose_bands_cannot_be_told_is_asked_for(tmp_path, shape):
    """(96, 64) is VGGish's time and bands, (64, 96) other people's bands and time."""
    path = of_log_mel(tmp_path / "m.onnx", shape)
    with pytest.raises(ConfigError, match=r'shape \(\?, 1, .*\); name its axes by "input_axes"'):
        teachers.read(f"onnx:{path}")
    (tmp_path / "m.onnx.json").write_text('{"input_axes": "B1FT", "output_axes": "BD"}')
    assert teachers.read(f"onnx:{path}").facts.log_mel.n_mels == 64


def test_several_outputs_without_a_name_are_listed(tmp_path):
    path = of_samples(tmp_path / "m.onnx", also="logits")
    with pytest.raises(ConfigError, match=r"outputs frames .*, logits .*; say which is read"):
        teachers.read(f"onnx:{path}")


def test_a_json_that_is_none_is_refused(tmp_path):
    path = of_samples(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_text("sample_rate: 16000")
    with pytest.raises(ConfigError, match=r"m\.onnx\.json is no JSON object; write one such as"):
        teachers.read(f"onnx:{path}")
