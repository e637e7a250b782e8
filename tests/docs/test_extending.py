"""The worked examples of docs/extending.md do what they say, in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow
BLOCK = re.compile(r"^```python (?P<about>[^\n]+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = (ROOT / "docs" / "extending.md").read_text()
CHAPTERS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}


def put(root: Path, about: str, code: str) -> None:
    """Write a block's file, or add it to one behind its first line, which is there already."""
    file = root / about.removeprefix("add to ")
    if about.startswith("add to "):
        first = code.partition("\n")[0] + "\n"
        before = file.read_text()
        assert before.count(first) == 1, f"{about} does not have the line {first!r} once"
        code = before.replace(first, code)
    file.write_text(code)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_example_runs(chapter, tmp_path):
    without = shutil.ignore_patterns("*.pyc", "*.egg-info")
    shutil.copytree(ROOT / "platform", tmp_path / "platform", ignore=without)
    (tmp_path / "search_spaces").mkdir()
    blocks = [(found["about"], found["code"]) for found in BLOCK.finditer(CHAPTERS[chapter])]
    tries = [code for about, code in blocks if about == "try it"]
    assert tries
    for about, code in blocks:
        if about != "try it":
            put(tmp_path, about, code)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "platform")}
    for code in tries:
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
