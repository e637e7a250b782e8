"""What is the label of one task is the nuisance of another: trust has to find out which it is."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.long
RATE = 16000
PITCHES, FORMANTS = (100.0, 150.0, 220.0, 320.0), (600.0, 1100.0, 1900.0, 3000.0)
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


@pytest.fixture(scope="module", params=["pitch", "timbre"])
def task(request, tmp_path_factory):
    """A folder of voices, each of a pitch and of a timbre, labelled by one of the two."""
    root, rng = tmp_path_factory.mktemp(request.param), np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(count):
            pitch, timbre = number % 4, number // 4 % 4
            label = pitch if request.param == "pitch" else timbre
            folder = root / split / f"{request.param}-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            wave = voice(
                PITCHES[pitch] * rng.uniform(0.95, 1.05),
                FORMANTS[timbre] * rng.uniform(0.95, 1.05),
                rng.uniform(0.4, 0.8),
                rng,
            )
            soundfile.write(folder / f"{number}.wav", wave, RATE)
    return root


def test_the_chosen_arm_is_hardly_behind_the_best_one(program, task):
    summary = program(task.name).run("--task", str(task), "--preset", "demo")
    best = max(scores["accuracy"]["mean"] for scores in summary["arms"].values())
    assert summary["chosen"]["accuracy"]["mean"] >= best - 0.02
    assert summary["chosen"]["accuracy"]["mean"] > 0.9
