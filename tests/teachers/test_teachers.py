"""What the room says of a SPEC, cuts of a clip, and tells apart; teachers of this platform."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from unfused import teachers
from unfused.audio.samples import Cut, Windows
from unfused.audio.statistics import front_end, statistics
from unfused.config import AudioConfig, ConfigError
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.store import Folder, Store
from unfused.teachers.axes import frames, into
from unfused.teachers.protocol import TeacherFacts
from unfused.teachers.windows import Windowed, cut

CPU = torch.device("cpu")


def facts(**known) -> TeacherFacts:
    about = {"kind": "onnx", "name": "bird", "source": "onnx:bird.onnx", "sample_rate": 32000}
    return TeacherFacts(**about | known)


def noise(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(3000 * rng.standard_normal(n)).astype(np.int16) for n in lengths]


@pytest.mark.parametrize("spec", ["speech.onnx", "tf:model", "", "encoder:x", "protocol:x"])
def test_an_unknown_spec_is_told_those_there_are(spec):
    with pytest.raises(ConfigError, match=r"is no teacher; write .*onnx:FILE.*torch:FILE.*run:KEY"):
        teachers.read(spec)


@pytest.mark.parametrize("spec", ["onnx:none.onnx", "onnx:", "torch:/none.pt2", "onnx:~/none/x"])
def test_a_file_that_is_not_there_is_named(spec):
    with pytest.raises(ConfigError, match=r"there is no file '/.*'; name one\.$"):
        teachers.read(spec)


def test_nothing_heavy_is_imported_to_name_a_teacher():
    code = (
        "import sys; from unfused import teachers; from unfused.stages import embed, teacher\n"
        "teachers.read('statistics')\n"
        "print({'torch', 'onnxruntime', 'transformers', 'ray'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_rate_that_nobody_recorded_is_refused():
    with pytest.raises(ConfigError) as said:
        teachers.check_rate(facts(), 16000, 16000)
    assert str(said.value) == (
        "The teacher bird takes 32000 Hz and the recordings have 16000: set"
        " audio.sample_rate=32000 to have them resampled upwards, or name another teacher."
    )
    with pytest.raises(ConfigError, match="and the clips have 16000"):
        teachers.check_rate(facts(), 16000)


@pytest.mark.parametrize(("shards", "recorded"), [(32000, 8000), (16000, 44100)])
def test_a_rate_that_shards_or_recordings_have_is_none_to_refuse(shards, recorded):
    teachers.check_rate(facts(), shards, recorded)
    teachers.check_rate(facts(sample_rate=teachers.ANY_RATE), 4000)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 200, 201, 1000, 1234])
def test_as_few_windows_as_cover_a_clip(length):
    wave = np.arange(1, length + 1, dtype=np.int16)
    windows = cut(wave, 100, 100, "both")
    assert {len(window) for window in windows} == {100}
    assert len(windows) == -(-max(length, 100) // 100)
    assert set(np.concatenate(windows)) - {0} == set(wave)


def test_zeros_go_to_both_sides_or_to_the_end():
    wave = np.ones(5, np.int16)
    assert cut(wave, 100, 10, "both")[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert cut(wave, 100, 10, "end")[0].tolist() == [1] * 5 + [0] * 5
    assert cut(wave, 100, 3, "both")[0].tolist() == [1] * 5


@pytest.mark.parametrize("mixes", [True, False])
def test_passes_are_bounded_and_of_one_length_unless_lengths_mix(mixes):
    seen: list[list[int]] = []

    def run(windows):
        seen.append([len(window) for window in windows])
        return [window[:, None].astype(np.float32) for window in windows]

    teacher = Windowed(facts(sample_rate=1000, pooling="mean"), run, 1, "cpu", mixes)
    waves = noise(*[5000] * 9, 4000, 60000)
    rows = teacher.embed(waves)
    np.testing.assert_allclose(rows[:, 0], [wave.mean() for wave in waves], rtol=1e-4, atol=1)
    assert all(max(sizes) * len(sizes) <= 32000 for sizes in seen)
    assert mixes or all(len(set(sizes)) == 1 for sizes in seen)
    assert len(seen) == (4 if mixes else 5)


def test_short_clips_count_as_what_the_model_pads_them_to():
    seen: list[int] = []

    def run(windows):
        seen.append(len(windows))
        return [np.zeros((1, 1), np.float32) for _ in windows]

    Windowed(facts(), run, 1, "cpu", True, padded_to=8 * 32000).embed(noise(*[100] * 10))
    assert seen == [4, 4, 2]


def test_nan_of_one_clip_stays_its_own():
    def run(windows):
        return [
            np.full((2, 3), np.nan if window[0] == 7 else 1.0, np.float32) for window in windows
        ]

    teacher = Windowed(facts(), run, 3)
    rows = teacher.embed([np.full(9, value, np.int16) for value in (1, 7, 2)])
    assert np.isfinite(rows).all(1).tolist() == [True, False, True] and rows.shape == (3, 6)


@pytest.mark.parametrize("word", ["BFT", "B1FT", "BTF", "BT1F", "FT", "TF1"])
def test_axes_are_put_in_the_order_that_is_named(word):
    values = np.arange(6.0).reshape(1, 2, 3)
    found = into(values, "BFT", word)
    sizes = {"B": 1, "F": 2, "T": 3, "1": 1}
    assert found.shape == tuple(sizes[axis] for axis in word)
    back = frames(found, word.replace("F", "D"))
    np.testing.assert_array_equal(back[0].T, values[0])


def test_all_places_of_a_map_are_frames():
    values = np.arange(24.0).reshape(1, 2, 3, 4)
    found = frames(values, "BDTT")
    assert found.shape == (1, 12, 2)
    np.testing.assert_array_equal(found[0, :, 1], values[0, 1].ravel())


def test_statistics_are_a_teacher_at_the_rate_of_the_shards():
    found = teachers.read("statistics")
    assert found.facts.sample_rate == teachers.ANY_RATE
    known = found.facts.model_copy(update={"sample_rate": 8000})
    teacher, waves = teachers.load(found.folder, known, CPU), noise(5000, 900)
    wanted = [statistics(torch.from_numpy(wave), front_end(8000)).numpy() for wave in waves]
    np.testing.assert_array_equal(teacher.embed(waves), np.stack(wanted))
    with pytest.raises(ConfigError, match="has no file"):
        teachers.read("statistics:x")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A pre-trained encoder, a classifier and what has no encoder."""
    store = Store.at(str(tmp_path_factory.mktemp("store")))
    torch.manual_seed(0)
    encoder = ClipEncoder(AudioConfig(), AudioNTTConfig(embedding_dim=16), mean=-8.0, std=4.0)
    encoder.save(store.folder("pretrain", "aaaa"))
    encoder.save(store.folder("finetune", "bbbb"), "encoder-00")
    head = LinearClassifier(16, 2, power=0.5)
    ClipClassifier.save_head(store.folder("finetune", "bbbb"), 0, head, ["a", "b"], "encoder-00")
    for stage, key in (("pretrain", "aaaa"), ("finetune", "bbbb"), ("finetune", "cccc")):
        store.folder(stage, key).write_json("manifest.json", {"facts": {}})
    return store


@pytest.mark.parametrize(("key", "name"), [("aaaa", "pretrain-aaaa"), ("bbbb", "finetune-bbbb")])
def test_another_runs_encoder_embeds_windows_of_the_whole_clip(store, key, name):
    found = teachers.read(f"run:{key}", store)
    assert found.facts.name == name and found.facts.embedding_dim == 16
    waves = noise(15200 * 3, 700)
    rows = teachers.load(found.folder, found.facts, CPU).embed(waves)
    encoder = ClipEncoder.load(store.folder("pretrain", "aaaa")).eval()
    cut = Windows.of([Cut(15200).windows(wave) for wave in waves])
    windows = Windows(torch.from_numpy(cut.samples), torch.from_numpy(cut.counts))
    with torch.inference_mode():
        wanted = encoder.embed(windows).numpy()
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-5)


def test_the_same_encoder_is_the_same_teacher_wherever_it_lies(store):
    digests = {teachers.read(f"run:{key}", store).digest for key in ("aaaa", "bbbb")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("run:dddd", r"has no encoder with the key 'dddd'; name a key of pretrain, distill"),
        ("run:", r"has no encoder with the key ''"),
        ("run:cccc", r"cccc has no encoder; name a model that has one"),
        ("models:/m/1", "there is no tracking to ask"),
    ],
)
def test_a_key_without_an_encoder_is_refused(store, spec, match):
    with pytest.raises(ConfigError, match=match):
        teachers.read(spec, store)


def test_a_registered_models_files_are_found_by_who_can(store):
    asked: list[str] = []

    def registered(spec: str) -> Folder:
        asked.append(spec)
        return store.folder("finetune", "bbbb")

    found = teachers.read("models:/digits/2", store, registered)
    assert asked == ["models:/digits/2"] and found.facts.name == "digits-2"
