"""The envelope of a clip: its level, when it is loud, and its rhythm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused import teachers
from unfused.audio.envelope import (
    BANDS,
    FASTEST,
    QUANTILES,
    SEGMENTS,
    SHARE_FLOOR,
    SLOWEST,
    WIDTH,
    band_means,
    envelope,
    front_end,
)
from unfused.config import ConfigError

RATE = 16000
LEVEL = len(QUANTILES)
CONTOUR = slice(LEVEL + 3, LEVEL + 3 + SEGMENTS)
NEAR = {"rtol": 0, "atol": 0.02, "check_dtype": False}


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 3000


def features(wave: np.ndarray, rate: int = RATE) -> torch.Tensor:
    clip = torch.from_numpy(wave.clip(-32768, 32767).astype(np.int16))
    return envelope(clip, front_end(rate), rate)


def trembling(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return noise(seconds, rate) * (1 + 0.8 * np.sin(2 * np.pi * hertz * time)) / 2


@pytest.mark.parametrize(
    ("seconds", "rate"), [(1.5, 8000), (3.0, 16000), (10.3, 44100), (35, 8000)]
)
@pytest.mark.parametrize("hertz", [2.0, 6.0, 15.0])
def test_a_tremolo_is_heard_in_the_band_of_its_rate(hertz, seconds, rate):
    shares = features(trembling(hertz, seconds, rate), rate)[-BANDS:]
    edges = np.geomspace(SLOWEST, FASTEST, BANDS + 1)
    strongest = int(shares.argmax())
    # A neighbour may be: what a second and a half tells apart is wider than a band.
    near = slice(max(0, strongest - 1), strongest + 3)
    assert edges[near][0] <= hertz <= edges[near][-1]
    assert shares[strongest] > shares.median() + 1


def test_every_band_has_a_bin_at_every_rate():
    for rate in (1000, 1149, 1150, 8000, 11025, 16000, 22050, 44100, 96000):
        hop = front_end(rate).hop_length / rate
        assert torch.allclose(band_means(hop).sum(0), torch.ones(BANDS))


def test_twice_as_loud_moves_the_level_and_nothing_else():
    quiet, loud = features(noise(2.0)), features(2 * noise(2.0))
    moved = loud - quiet
    torch.testing.assert_close(moved[: LEVEL + 1], torch.full((LEVEL + 1,), np.log(4)), **NEAR)
    torch.testing.assert_close(moved[LEVEL + 1 :], torch.zeros(WIDTH - LEVEL - 1), **NEAR)


def test_when_a_clip_is_loud_and_how_long_it_is():
    wave = np.concatenate([noise(1.0) / 100, noise(1.0), noise(2.0) / 100])
    found = features(wave)
    contour = found[CONTOUR]
    assert set(contour.topk(2).indices.tolist()) == {2, 3}
    assert contour.mean().abs() < 0.05
    assert found[LEVEL + 2] == pytest.approx(np.log(4.0))


@pytest.mark.parametrize("samples", [1, 159, 160, 700, 200_000])
def test_silence_changes_in_no_way(samples):
    found = features(np.zeros(samples))
    assert found.shape == (WIDTH,)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:LEVEL], torch.full((LEVEL,), np.log(1e-6)), **NEAR)
    torch.testing.assert_close(found[-BANDS:], torch.full((BANDS,), np.log(SHARE_FLOOR)), **NEAR)


def test_it_is_a_teacher_at_any_rate():
    found = teachers.read("envelope")
    teacher = teachers.load(found.folder, found.facts.settled(8000), torch.device("cpu"))
    rows = teacher.embed([noise(0.5, 8000).astype(np.int16), noise(2.0, 8000).astype(np.int16)])
    assert rows.shape == (2, WIDTH) and rows.dtype == np.float32
    with pytest.raises(ConfigError, match="write --teacher envelope"):
        teachers.read("envelope:x")
