"""The protocol over published data sets runs on those that are there, and prints a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import ROOT, TINY, tone

OF_PROTOCOL = ("finetune.labels_per_class", "finetune.num_repeats")
SMALLER = (*(s for s in TINY if not s.startswith(OF_PROTOCOL)), "rounds=1", "pretrain.epochs=8")
HERTZ = {"bass": 200, "guitar": 2500}
PARTS = {"train": 8, "valid": 3, "test": 4}


@pytest.fixture
def data(tmp_path) -> Path:
    """NSynth and birds, with two classes each that a tone tells apart."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "data"
    for part, count in PARTS.items():
        examples = {}
        for family, hertz in HERTZ.items():
            for i in range(count):
                name = f"{family}_{part}_{i:03d}-060-100"
                write(folder / f"nsynth/nsynth-{part}/audio/{name}.wav", tone(rng, hertz, 1, 16000))
                told = {"instrument_family_str": family, "instrument_str": f"{family}_{part}_{i}"}
                examples[name] = told
        table = folder / f"nsynth/nsynth-{part}/examples.json"
        table.write_text(json.dumps(examples))
    rows = ["itemid,hasbird"]
    for i in range(30):
        rows.append(f"{i},{i % 2}")
        wave = tone(rng, (200, 2500)[i % 2], 1, 16000)
        write(folder / f"freefield-1010/wav/{i}.wav", wave)
    (folder / "freefield-1010/ff1010bird_metadata.csv").write_text("\n".join(rows))
    return folder


def write(file: Path, wave: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, wave, 16000)


def lape(data: Path, program, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "lape.py"), str(data), *arguments]
    return subprocess.run(
        command, cwd=program.folder, env=program.environment, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_protocol_says_what_it_would_run_and_what_it_does_not_know(data, program):
    one = program("protocol-plan")
    done = lape(data, one, "--only", "freefield1010", "--dry-run", "distill.epochs=2")
    assert done.returncode == 0, done.stderr
    commands = done.stdout.splitlines()
    place = data / "freefield-1010"
    start = f"unfused run --task freefield1010:{place} --preset faithful finetune.mode=linear"
    assert len(commands) == 2 and all(one.startswith(start) for one in commands)
    assert commands[1].endswith("finetune.num_repeats=5 distill.epochs=2")
    wrong = lape(data, one, "--only", "esc50")
    assert wrong.returncode == 2 and "no folder" in wrong.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_protocol_puts_what_it_measured_beside_what_was_published(data, program):
    one = program("protocol")
    done = lape(data, one, "--only", "nsynth", "--preset", "recommended", *SMALLER)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| nsynth |")
    ]
    assert [row[:2] for row in rows] == [
        ["nsynth", "linear, all labels"],
        ["nsynth", "linear, 5 labels a class"],
    ]
    assert [row[4:] for row in rows] == [["74.1", "73.1"], ["-", "-"]]
    measured = [cell for row in rows for cell in row[2:4]]
    assert all(float(cell.split()[0]) >= 75 for cell in measured), rows
    assert all("±" in row[2] for row in rows[1::2])
