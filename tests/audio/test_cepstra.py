"""Cepstra that are aligned in time, and their moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dct

from unfused import teachers
from unfused.audio.cepstra import (
    COEFFICIENTS,
    NUM_FEATURES,
    NUM_MOMENTS,
    SEGMENTS,
    cepstra,
    cosines,
    front_end,
    moments,
    sounding,
)

RATE = 16000


def sweep(seconds: float, seed: int = 0) -> np.ndarray:
    """A tone that rises from 300 to 3000 Hz however long it takes, with a little noise."""
    time = np.linspace(0, 1, int(seconds * RATE))
    phase = 2 * np.pi * seconds * (300 * time + 1350 * time**2)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return ((0.4 * np.sin(phase) + 0.002 * noise) * 32767).astype(np.int16)


def features(wave: np.ndarray, *, centred: bool = False) -> torch.Tensor:
    return cepstra(torch.from_numpy(wave), front_end(RATE), centred=centred)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one[:-1] - other[:-1]).norm())


def test_the_transform_is_scipys():
    frames = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    found = cosines(40, 13).numpy() @ frames
    np.testing.assert_allclose(found, dct(frames, axis=0, norm="ortho")[:13], atol=1e-5)


def test_silence_before_and_after_and_how_long_it_takes_make_no_difference():
    wave = sweep(0.6)
    quiet = (np.random.default_rng(1).standard_normal(9000) * 4).astype(np.int16)
    later = np.concatenate([quiet, wave, quiet[:4000]])
    other = sweep(0.6)[::-1].copy()
    same = features(wave)
    assert same.shape == (NUM_FEATURES,) == (COEFFICIENTS * SEGMENTS + 1,)
    assert apart(features(later), same) < 0.3 * apart(features(other), same)
    assert apart(features(sweep(0.9)), same) < 0.3 * apart(features(other), same)
    assert features(sweep(0.9))[-1] - same[-1] == pytest.approx(np.log(1.5), abs=0.05)


def test_centred_they_do_not_hear_a_filter():
    wave = sweep(0.6)
    darker = np.convolve(wave, np.ones(3) / 3, "same").astype(np.int16)
    plain = apart(features(darker), features(wave))
    assert apart(features(darker, centred=True), features(wave, centred=True)) < 0.5 * plain


@pytest.mark.parametrize("wave", [np.zeros(1, np.int16), np.zeros(30000, np.int16), sweep(0.02)])
def test_whatever_is_there_they_are_numbers(wave):
    assert torch.isfinite(features(wave)).all()
    frames = front_end(RATE)(torch.from_numpy(wave)[None])[0]
    assert sounding(frames).shape[1] >= 1


def test_moments_leave_the_order_of_things_out():
    wave = sweep(0.6)
    there, back = (moments(torch.from_numpy(w), front_end(RATE)) for w in (wave, wave[::-1].copy()))
    assert there.shape == (NUM_MOMENTS,)
    assert (there - back).norm() < 0.1 * (features(wave) - features(wave[::-1].copy())).norm()
    steady = np.full(9600, 0.0) + np.sin(np.arange(9600) * 2 * np.pi * 500 / RATE)
    still = moments(torch.from_numpy((steady * 9000).astype(np.int16)), front_end(RATE))
    third = NUM_MOMENTS // 3
    assert still[third:].norm() < 0.6 * there[third:].norm()


@pytest.mark.parametrize("seconds", [0.0, 0.001, 2.0])
def test_moments_of_whatever_is_there_are_numbers(seconds):
    wave = torch.zeros(max(1, int(seconds * RATE)), dtype=torch.int16)
    assert torch.isfinite(moments(wave, front_end(RATE))).all()


@pytest.mark.parametrize(
    ("spec", "width"),
    [
        ("cepstra", NUM_FEATURES),
        ("cepstra:centred", NUM_FEATURES),
        ("cepstra:moments", NUM_MOMENTS),
    ],
)
def test_they_are_a_teacher_at_any_rate(spec, width):
    found = teachers.read(spec)
    waves = [sweep(0.3)[::2].copy(), sweep(0.7)[::2].copy()]
    teacher = teachers.load(found.folder, found.facts.settled(8000), torch.device("cpu"))
    rows = teacher.embed(waves)
    assert rows.shape == (2, width) and rows.dtype == np.float32
    assert teacher.embedding_dim == width
    assert teachers.files(found.folder, found.facts) == []
