"""What is exported, before it is: it says of every clip what its scorer says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from exporting import exported
from unfused import exporting, teachers
from unfused.audio.cepstra import front_end as of_cepstra
from unfused.audio.frontend import LogMel
from unfused.audio.samples import Cut, to_int16
from unfused.audio.statistics import front_end as of_statistics
from unfused.config import ConfigError
from unfused.config.choices import plugin
from unfused.exporting.cutting import Windowed, as_int16
from unfused.exporting.kinds import floor, linear, probes
from unfused.exporting.program import Classifier
from unfused.exporting.spectrum import PlainLogMel
from unfused.scorers import ScorerFacts
from unfused.store import Folder


@pytest.fixture(scope="module")
def clips(shared_data) -> list[np.ndarray]:
    return exported.recordings(shared_data)


def said(module, clips: list[np.ndarray]) -> np.ndarray:
    """The probabilities of a module that is not exported."""
    model = Classifier(module).eval()
    with torch.inference_mode():
        waves = [torch.from_numpy(clip[None] / np.float32(32768)) for clip in clips]
        return torch.cat([model(wave)["probabilities"] for wave in waves]).numpy()


@pytest.mark.parametrize(
    ("kind", "num_crops", "pooling"),
    [
        ("audio_ntt", "auto", "mean"),
        ("audio_ntt", 5, "max"),
        ("mobile_net", "auto", "attention"),
        ("mobile_net", 1, "mean"),
    ],
)
def test_an_encoder_with_a_head_says_what_its_scorer_says(
    tmp_path, clips, kind, num_crops, pooling
):
    facts = exported.linear(tmp_path, kind, num_crops, pooling)
    found = said(linear.module(Folder.of(tmp_path), facts, exported.RATE), clips)
    wanted = exported.expected(tmp_path, facts, clips)
    assert wanted.std(0).max() > 0.02, "all clips alike would prove nothing"
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_floor_says_what_its_scorer_says(tmp_path, clips):
    facts = exported.floor(tmp_path, clips)
    found = said(floor.module(Folder.of(tmp_path), facts, exported.RATE), clips)
    np.testing.assert_allclose(found, exported.expected(tmp_path, facts, clips), atol=1e-3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory, clips) -> tuple[Path, ScorerFacts]:
    folder = tmp_path_factory.mktemp("pool")
    return folder, exported.pool(folder, clips)


def test_every_teacher_of_a_pool_embeds_as_it_did(pool, clips):
    folder, _ = pool
    for name, facts in exported.teachers_of(folder).items():
        where = Folder.of(folder / name)
        module = plugin(probes.ROOM, facts.kind).module(where, facts, exported.RATE)
        teacher = teachers.load(where, facts, torch.device("cpu"))
        wanted = teacher.embed(clips)
        with torch.inference_mode():
            waves = [torch.from_numpy(clip[None].astype(np.float32)) for clip in clips]
            found = torch.cat([module(wave) for wave in waves]).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3, err_msg=name)


def test_a_pool_says_what_its_scorer_says(pool, clips):
    folder, facts = pool
    found = said(probes.module(Folder.of(folder), facts, exported.RATE), clips)
    np.testing.assert_allclose(found, exported.expected(folder, facts, clips), atol=1e-3)


def test_a_pool_with_a_teacher_from_outside_names_the_arm_to_export_instead(pool):
    folder, facts = pool
    told = Folder.of(folder / "own").read_json("teacher.json")
    try:
        Folder.of(folder / "own").write_json("teacher.json", told | {"kind": "hf"})
        with pytest.raises(ConfigError, match="export the arm selftrain"):
            probes.module(Folder.of(folder), facts, exported.RATE)
    finally:
        Folder.of(folder / "own").write_json("teacher.json", told)


@pytest.mark.parametrize("num_crops", ["auto", 1, 3])
@pytest.mark.parametrize("samples", [1, 99, 100, 101, 110, 111, 200, 201, 1234, 6399, 6401, 99999])
def test_the_windows_are_those_that_are_scored(num_crops, samples):
    rng = np.random.default_rng(samples)
    wave = (rng.standard_normal(samples) * 1000).astype(np.int16)
    wave[samples // 3 : samples // 2] = 0
    cut = Cut(100, num_crops)
    windows, sound = Windowed(cut)(torch.from_numpy(wave[None]).float())
    np.testing.assert_array_equal(windows[sound].numpy(), cut.windows(wave))


def test_a_clip_of_silence_is_looked_at_all_the_same():
    windows, sound = Windowed(Cut(100))(torch.zeros(2, 950))
    assert windows.shape == (2, 10, 100) and sound.all()


def test_samples_are_rounded_as_ingest_rounds_them():
    samples = np.linspace(-1.1, 1.1, 100_001, dtype=np.float32)
    samples = np.concatenate([samples, np.float32([0.5, 1.5, 2.5, -0.5, -1.5]) / 32768])
    found = as_int16(torch.from_numpy(samples)).numpy()
    np.testing.assert_array_equal(found, to_int16(samples).astype(np.float32))


@pytest.mark.parametrize(
    "log_mel",
    [LogMel(), LogMel(8000, 512, 80, 40, 50.0, 3900.0), of_statistics(44100), of_cepstra(44100)],
)
def test_the_log_mel_is_that_of_the_front_end(clips, log_mel):
    samples = torch.from_numpy(clips[-1][None, :40000].copy())
    found = PlainLogMel(log_mel)(samples.float())
    torch.testing.assert_close(found, log_mel(samples), rtol=0, atol=2e-3)


def test_another_rate_than_the_encoders_is_refused(tmp_path):
    facts = exported.linear(tmp_path, "audio_ntt")
    with pytest.raises(ConfigError, match="16000 Hz and the export says 8000"):
        linear.module(Folder.of(tmp_path), facts, 8000)


def test_a_program_of_torch_has_no_int8(tmp_path):
    facts = exported.linear(tmp_path, "audio_ntt")
    with pytest.raises(ConfigError, match="--format onnx"):
        exporting.write(
            Folder.of(tmp_path), facts, exported.RATE, tmp_path / "a.pt2", "torch", int8=True
        )
