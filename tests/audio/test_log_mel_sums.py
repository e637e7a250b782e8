"""The sums by which log-mel values are normalised, against the front end itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchaudio.functional import melscale_fbanks

from unfused.audio.log_mel_sums import LogMelSums, mel_filters
from unfused.config import AudioConfig
from unfused.models.clip_encoder import log_mel

OTHER = AudioConfig(sample_rate=44100, n_fft=2048, hop_length=441, n_mels=40, f_min=0, f_max=22050)


def clip(seconds: float, audio: AudioConfig) -> np.ndarray:
    level = np.linspace(10, 9000, round(seconds * audio.sample_rate))
    return (np.random.default_rng(0).standard_normal(len(level)) * level).astype(np.int16)


def moments(clips: list[np.ndarray], audio: AudioConfig) -> tuple[float, float]:
    sums = LogMelSums(audio)
    for samples in clips:
        sums.add(samples)
    found = sums.totals()
    mean = found["sum"] / found["count"]
    return mean, (found["sum_of_squares"] / found["count"] - mean**2) ** 0.5


@pytest.mark.parametrize("audio", [AudioConfig(), OTHER], ids=["default", "44.1 kHz"])
def test_mean_and_deviation_are_those_of_the_front_end(audio):
    clips = [clip(seconds, audio) for seconds in (0.02, 0.5, 3.0)]
    front = log_mel(audio)
    values = [front(torch.from_numpy(one)[None]).double().flatten() for one in clips]
    whole = torch.cat(values)
    expected = float(whole.mean()), float(whole.std(correction=0))
    assert moments(clips, audio) == pytest.approx(expected, rel=2e-6)


def test_those_of_a_long_clip_are_those_of_the_whole():
    audio = AudioConfig()
    samples = clip(61, audio)
    whole = log_mel(audio)(torch.from_numpy(samples)[None]).double()
    expected = float(whole.mean()), float(whole.std())
    assert moments([samples], audio) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("audio", [AudioConfig(), OTHER], ids=["default", "44.1 kHz"])
def test_the_filters_are_torchaudios(audio):
    expected = melscale_fbanks(
        audio.n_fft // 2 + 1, audio.f_min, audio.f_max, audio.n_mels, audio.sample_rate,
        norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    np.testing.assert_allclose(mel_filters(audio), expected.numpy(), atol=2e-7)


def test_a_task_of_ingest_imports_no_torch():
    code = (
        "import sys, unfused.stages.shards, unfused.audio.log_mel_sums;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
