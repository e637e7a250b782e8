"""Periodicity: the pitch of a clip, whatever its timbre."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused import teachers
from unfused.audio.periodicity import BANDS, LONGEST, SHORTEST, WIDTH, periodicity
from unfused.config import ConfigError

RATE = 16000


def voice(hertz: float, formant: float, rate: int = RATE, seconds: float = 0.5) -> torch.Tensor:
    """Pulses of a pitch, whose spectrum is loudest at a formant."""
    time = np.arange(int(seconds * rate)) / rate
    orders = np.arange(1, int(0.4 * rate / hertz))
    loud = np.exp(-(((orders * hertz - formant) / 600) ** 2))
    wave = (np.cos(2 * np.pi * hertz * np.outer(orders, time)) * loud[:, None]).sum(0)
    return torch.from_numpy((wave / np.abs(wave).max() * 9000).astype(np.int16))


def strongest(hertz: float, **kwargs) -> float:
    """The pitch of the band in which a voice repeats itself most, of those around its own."""
    found = periodicity(voice(hertz, 900.0, **kwargs), kwargs.get("rate", RATE))
    edges = np.geomspace(SHORTEST, LONGEST, BANDS + 1)
    middle = 1 / np.sqrt(edges[:-1] * edges[1:])
    near = (middle > 0.7 * hertz) & (middle < 1.5 * hertz)
    return float(middle[near][found[:BANDS].numpy()[near].argmax()])


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("hertz", [80.0, 140.0, 330.0])
def test_a_voice_repeats_itself_at_its_pitch(hertz, rate):
    assert strongest(hertz, rate=rate) == pytest.approx(hertz, rel=0.08)


def test_pitch_moves_it_and_timbre_hardly():
    base = periodicity(voice(120, 700), RATE)
    timbre, pitch = periodicity(voice(120, 1800), RATE), periodicity(voice(190, 700), RATE)
    assert base.shape == (WIDTH,)
    assert (timbre - base).norm() < 0.6 * (pitch - base).norm()


def test_silence_around_a_sound_and_how_loud_it_is_make_no_difference():
    wave = voice(120, 700)
    base = periodicity(wave, RATE)
    around = torch.cat([torch.zeros(16000), wave.float() / 4, torch.zeros(8000)]).to(torch.int16)
    other = periodicity(voice(190, 700), RATE)
    assert (periodicity(around, RATE) - base).norm() < 0.3 * (other - base).norm()


@pytest.mark.parametrize("samples", [1, 700, 30000])
def test_silence_has_none(samples):
    assert torch.equal(
        periodicity(torch.zeros(samples, dtype=torch.int16), RATE), torch.zeros(WIDTH)
    )


def test_it_is_a_teacher_at_any_rate():
    found = teachers.read("periodicity")
    teacher = teachers.load(found.folder, found.facts.settled(8000), torch.device("cpu"))
    rows = teacher.embed([voice(100, 700, 8000).numpy(), voice(200, 700, 8000, 2.0).numpy()])
    assert rows.shape == (2, WIDTH) and rows.dtype == np.float32
    with pytest.raises(ConfigError, match="write --teacher periodicity"):
        teachers.read("periodicity:x")
