"""The log-mel front end against librosa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unfused.audio.fast_log_mel import FRAMES_IN_CACHE, GroupedMelPower
from unfused.audio.frontend import LogMel, MelPower, Normalize, to_float
from unfused.audio.samples import crop_or_pad
from unfused.config import AudioConfig
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig

DATA = Path(__file__).parents[2] / "../shared/data"
SETTINGS = (
    {},
    {
        "sample_rate": 8000,
        "n_fft": 512,
        "hop_length": 100,
        "n_mels": 40,
        "f_min": 0.0,
        "f_max": 4e3,
    },
)


def librosa_log_mel(samples: np.ndarray, **settings) -> np.ndarray:
    import librosa

    chosen = {
        "sample_rate": 16000,
        "n_fft": 1024,
        "hop_length": 160,
        "n_mels": 64,
        "f_min": 60.0,
        "f_max": 7800.0,
    } | settings
    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=chosen["sample_rate"],
        n_fft=chosen["n_fft"],
        hop_length=chosen["hop_length"],
        n_mels=chosen["n_mels"],
        fmin=chosen["f_min"],
        fmax=chosen["f_max"],
        power=2.0,
        center=True,
        pad_mode="constant",
        norm="slaney",
        htk=False,
    )
    return np.log(mel + 1e-6)


def sweep(num_samples: int) -> np.ndarray:
    """A rising tone over noise, float32 in [-1, 1)."""
    time = np.arange(num_samples) / 16000
    noise = np.random.default_rng(0).normal(0, 1e-2, num_samples)
    return (0.5 * np.sin(2 * np.pi * (100 + 1500 * time) * time) + noise).astype(np.float32)


@pytest.mark.parametrize("speedups", ["all", "none"])
@pytest.mark.parametrize("settings", SETTINGS, ids=["published", "other"])
@pytest.mark.slow
def test_log_mel_equals_librosas(settings, speedups, monkeypatch):
    monkeypatch.setenv("UNFUSED_SPEEDUPS", speedups)
    samples = sweep(9000)
    ours = LogMel(**settings)(torch.from_numpy(samples)[None])[0].numpy()
    np.testing.assert_allclose(ours, librosa_log_mel(samples, **settings), atol=1e-4)


def test_a_padded_clip_has_librosas_log_mel_too():
    samples = crop_or_pad((sweep(4000) * 32767).astype(np.int16), 15200, 0)
    ours = LogMel()(to_float(torch.from_numpy(samples))[None])[0].numpy()
    np.testing.assert_allclose(ours, librosa_log_mel(samples / np.float32(32768)), atol=1e-4)


def test_real_recordings_have_librosas_log_mel():
    import soundfile

    paths = sorted((DATA / "arabic_commands/clips").rglob("*.flac"))[::300]
    paths += sorted((DATA / "esc10/clips").rglob("*.flac"))[::100]
    if not paths:
        pytest.skip(f"no recordings under {DATA}")
    for path in paths:
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == 16000
        window = crop_or_pad(samples, 15200, (len(samples) - 15200) // 2)
        ours = LogMel()(to_float(torch.from_numpy(window.copy()))[None])[0].numpy()
        reference = librosa_log_mel(window.astype(np.float32) / 32768)
        np.testing.assert_allclose(ours, reference, atol=1e-4, err_msg=str(path))


def test_low_precision_training_computes_log_mel_in_full():
    whole = ClipEncoder(AudioConfig(), AudioNTTConfig(embedding_dim=16), mean=-8.0, std=3.0)
    samples = torch.randint(-9000, 9000, (2, 8000), dtype=torch.int16)
    exact = whole.spectrogram(samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(whole.spectrogram(samples), exact)


@pytest.mark.parametrize("num_samples", [1, 159, 160, 15199, 15200])
def test_there_is_a_frame_every_hop_and_one_more(num_samples):
    assert LogMel()(torch.zeros(2, num_samples)).shape == (2, 64, 1 + num_samples // 160)


def test_no_clips_have_no_spectrograms_of_the_right_shape():
    assert LogMel()(torch.zeros(0, 15200)).shape == (0, 64, 96)


def test_silence_is_the_floor_of_the_logarithm():
    assert torch.allclose(LogMel()(torch.zeros(1, 1600)), torch.tensor(1e-6).log())


def test_a_clip_sounds_the_same_alone_and_in_a_batch():
    # More clips than are transformed together.
    count = 2 * FRAMES_IN_CACHE // (1 + 3000 // 160) + 1
    batch = torch.from_numpy(np.stack([np.roll(sweep(3000), 50 * i) for i in range(count)]))
    alone = torch.cat([LogMel()(clip[None]) for clip in batch])
    torch.testing.assert_close(LogMel()(batch), alone)


@pytest.mark.parametrize("settings", SETTINGS, ids=["published", "other"])
def test_the_plain_steps_give_what_the_fast_ones_give(settings, monkeypatch):
    batch = torch.from_numpy(np.stack([np.roll(sweep(9000), 50 * i) for i in range(9)]))
    found = []
    for chosen, power in (("log_mel", GroupedMelPower), ("none", MelPower)):
        monkeypatch.setenv("UNFUSED_SPEEDUPS", chosen)
        transform = LogMel(**settings)
        assert type(transform.steps[1]) is power
        found.append(transform(batch))
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)


def test_the_front_end_adds_nothing_to_saved_weights():
    assert not LogMel().state_dict()


def test_a_band_edge_above_half_the_sample_rate_is_refused():
    with pytest.raises(ValueError, match=r"7800 Hz.*8000 Hz.*f_max <= 4000"):
        LogMel(sample_rate=8000)


def test_int16_becomes_float_between_minus_one_and_one():
    values = to_float(torch.tensor([-32768, 0, 16384, 32767], dtype=torch.int16))
    assert values.dtype == torch.float32
    assert values.tolist() == [-1.0, 0.0, 0.5, 32767 / 32768]


def test_normalised_clips_have_mean_zero_and_variance_one():
    x = torch.randn(8, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 - 7
    y = Normalize(float(x.mean()), float(x.std(correction=0)))(x)
    assert y.mean().abs() < 1e-5
    assert abs(float(y.std(correction=0)) - 1) < 1e-5


def test_normalisation_statistics_travel_with_the_weights():
    other = Normalize(0.0, 1.0)
    other.load_state_dict(Normalize(-5.5, 4.25).state_dict())
    assert (float(other.mean), float(other.std)) == (-5.5, 4.25)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_clips_without_any_variation_cannot_be_normalised(std):
    with pytest.raises(ValueError, match="silent"):
        Normalize(-5.0, std)
