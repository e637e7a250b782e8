"""What is the label of one task is the nuisance of another: trust has to find out which it is. And
a label that no frame tells, however well it is embedded: how fast clicks follow one another."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.long
RATE = 16000
PITCHES, FORMANTS = (100.0, 150.0, 220.0, 320.0), (600.0, 1100.0, 1900.0, 3000.0)
TEMPI = (2.0, 2.8, 3.9, 5.5)
"""Clicks a second."""
COUNTS = {"train": 160, "valid": 16, "test": 160}


def voice(hertz: float, formant: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Pulses of a pitch, loudest around a formant, in noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    orders = np.arange(1, int(0.45 * RATE / hertz))
    loud = np.exp(-(((orders * hertz - formant) / 500) ** 2)) + 0.02
    phase = 2 * np.pi * hertz * np.outer(orders, time)
    wave = (np.cos(phase + rng.uniform(0, 6, (len(orders), 1))) * loud[:, None]).sum(0)
    level = rng.uniform(0.1, 0.5) / np.abs(wave).max()
    return level * wave + 0.01 * rng.standard_normal(len(wave))


def clicks(hertz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Short decaying tones, of another pitch and length in every clip, in noise."""
    wave = 0.01 * rng.standard_normal(int(seconds * RATE))
    order = np.arange(int(rng.uniform(0.01, 0.06) * RATE))
    click = np.sin(2 * np.pi * rng.uniform(300, 4000) * order / RATE)
    click *= rng.uniform(0.1, 0.5) * np.exp(-5 * order / len(order))
    for begin in np.arange(rng.uniform(0, 1 / hertz), seconds - 0.1, 1 / hertz):
        at = int(begin * RATE)
        wave[at : at + len(click)] += click
    return wave


def sound(kind: str, number: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The clip of a number, and its class."""
    one, other = number % 4, number // 4 % 4
    near = rng.uniform(0.95, 1.05, 2)
    if kind == "tempo":
        return clicks(TEMPI[one] * near[0], rng.uniform(2.5, 3.5), rng), one
    wave = voice(PITCHES[one] * near[0], FORMANTS[other] * near[1], rng.uniform(0.4, 0.8), rng)
    return wave, one if kind == "pitch" else other


@pytest.fixture(scope="module", params=["pitch", "timbre", "tempo"])
def task(request, tmp_path_factory):
    """A folder of clips that differ in more than their label."""
    root, rng = tmp_path_factory.mktemp(request.param), np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(count):
            wave, label = sound(request.param, number, rng)
            folder = root / split / f"{request.param}-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / f"{number}.wav", wave, RATE)
    return root


def test_the_chosen_arm_is_hardly_behind_the_best_one(program, task):
    summary = program(task.name).run("--task", str(task), "--preset", "demo")
    best = max(scores["accuracy"]["mean"] for scores in summary["arms"].values())
    assert summary["chosen"]["accuracy"]["mean"] >= best - 0.02
    assert summary["chosen"]["accuracy"]["mean"] > 0.9
