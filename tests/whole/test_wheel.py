"""What `pip install .` gives, in a fresh environment: a run from another folder, its model used.

Nothing of this environment is seen by the other: its own Python, its own libraries, no PYTHONPATH.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import soundfile

from conftest import ROOT

pytestmark = pytest.mark.long

VERSIONS = ("3.11", "3.12", "3.13")
SMALL = ("arms=[floor]", "finetune.num_repeats=2")


def interpreter(version: str) -> Path | None:
    """A Python of this version: this one, of those on the path, or of those that lie beside it."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return Path(sys.executable)
    beside = sorted(Path(sys.base_prefix).parent.glob(f"*{version}*/bin/python{version}"))
    found = [shutil.which(f"python{version}"), *map(str, beside)]
    return next((Path(one) for one in found if one and works(one)), None)


def works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def uv() -> str:
    return shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "uv"


@pytest.fixture(scope="module")
def wheel(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what building leaves behind is no part of the checkout."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    names = ("pyproject.toml", "README.md", "LICENSE")
    left = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "platform", source / "platform", ignore=left)
    for name in names:
        shutil.copy(ROOT / name, source / name)
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", root, source], check=True)
    return next(root.glob("unfused-*.whl"))


@pytest.fixture(scope="module", params=VERSIONS)
def installed(
    request: pytest.FixtureRequest,
    uv: str,
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A fresh environment with the wheel, one for each version of Python."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} here")
    place = tmp_path_factory.mktemp("fresh") / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", python, place], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", wheel], check=True)
    yield place / "bin"
    shutil.rmtree(place)


def program(bin_: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`unfused` as somebody calls it who has nothing but the environment."""
    kept: Mapping[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "UNFUSED", "VIRTUAL_ENV", "MLFLOW", "RAY"))
    }
    command = [bin_ / "unfused", *arguments]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)


def test_the_wheel_has_every_module_and_the_page(wheel: Path):
    inside = set(ZipFile(wheel).namelist())
    ours = ROOT / "platform"
    wanted = [*ours.rglob("*.py"), *ours.rglob("*.html")]
    assert {str(one.relative_to(ours)) for one in wanted} <= inside


@pytest.mark.timeout(900)
def test_an_installed_wheel_runs_the_demo_and_labels_a_file_from_any_folder(
    installed: Path, tmp_path: Path
):
    run = program(installed, tmp_path, "run", "--preset", "demo", *SMALL)
    assert run.returncode == 0, run.stderr
    assert "chosen     floor" in run.stdout
    model = next(line.split()[1] for line in run.stdout.splitlines() if line.startswith("model "))
    noise = np.random.default_rng(0).standard_normal(22050) * 0.1
    soundfile.write(tmp_path / "clip.wav", noise, 22050)
    said = program(installed, tmp_path, "predict", model, "clip.wav", "--out", "said.csv")
    assert said.returncode == 0, said.stderr
    (row,) = csv.DictReader((tmp_path / "said.csv").open())
    assert row["label"] and 0 < float(row["probability"]) <= 1
    refused = program(installed, tmp_path, "run", "--task", "nowhere.csv")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
